"""What happens inside the forked child: confine, run the program, write its result into shared memory."""

from __future__ import annotations

import builtins
import faulthandler
import gc
import linecache
import math
import os
import random
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import numpy as np
import torch

from selfdev.sandbox import kernel, layers
from selfdev.sandbox.layout import Place, Status, Verdict, size

PROGRAM = "<program>"
AROUND = 2**16  # bytes that the system maps when one of them is read
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "bad_alloc", "bad allocation", "out of memory")
_DENIED_WORDS = ("Permission denied", "Operation not permitted", "Too many open files")

Models = Mapping[str, Mapping[str, torch.Tensor]]
Target = Sequence[tuple[Place, torch.Tensor]]


class BadWeights(Exception):
    """What the program returned cannot be merged weights."""


def main(
    models: list[Models],
    targets: list[Target],
    status: Status,
    to: layers.Confinement,
    go: int,
    ready: int,
) -> NoReturn:
    """Confine this process, say so, wait for the number of a model set, run the program in `status`.

    Leaves the tensors in that set's target and a verdict in `status`; never returns. The program is not
    looked at before every wall is up.
    """
    try:
        _detach(go, ready)
        layers.confine(to)
        os.write(ready, b"1")
        os.close(ready)
        number = os.read(go, 1)[0]
        os.close(go)
        for other in targets[:number] + targets[number + 1 :]:
            _let_go(other)
        code, seed = status.take_job()
        run(code, seed, models[number], targets[number], status, to.device)
    finally:
        # Nothing of the program survives: no exit handlers, no destructors, no flushing.
        os._exit(1)


def _let_go(target: Target) -> None:
    """Take the result of another set out of this process: its caller may still be reading it."""
    start = next((tensor.data_ptr() - place.offset for place, tensor in target if tensor.numel()), None)
    if start is not None:
        kernel.unmap(start, size([place for place, _ in target]))


def _detach(*keep: int) -> None:
    """Own session (killed as one), dies with the server, no descriptors but `keep` and the output pipe."""
    os.setsid()
    if kernel.LINUX:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    low, high = sorted(keep)
    os.closerange(3, low)
    os.closerange(low + 1, high)
    kernel.close_from(high + 1)
    faulthandler.enable(all_threads=False)


def run(
    code: str,
    seed: int,
    models: Models,
    target: Target,
    status: Status,
    device: str = "cpu",
) -> None:
    """Execute a program and store its weights; whatever it does ends in a verdict in `status`."""
    try:
        _seed_everything(seed)
        result = _call(code, models, status, device)
        store(result, target)
    except BadWeights as error:
        status.conclude(Verdict.BAD_WEIGHTS, str(error))
    except BaseException as error:
        status.conclude(*explain(error, code))
        _print_traceback(error, code)
    else:
        status.conclude(Verdict.MERGED)
        os._exit(0)


def _seed_everything(seed: int) -> None:
    # torch.manual_seed would also queue the seed for every kind of device, which costs 8 ms.
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _call(code: str, models: Models, status: Status, device: str) -> object:
    names = {"__name__": "program", "__builtins__": builtins, "torch": torch, "math": math}
    exec(compile(code, PROGRAM, "exec", dont_inherit=True), names)
    function = names["merge_models"]
    assert callable(function)
    status.enter(time.monotonic_ns())
    return function({name: dict(tensors) for name, tensors in models.items()}, torch.device(device))


def store(result: object, target: Target) -> None:
    """Copy a program's result into shared memory in the seed's dtypes; BadWeights in words that help."""
    if not isinstance(result, dict):
        raise BadWeights(f"merge_models returned {_kind(result)}; it must return a dict: name -> tensor")
    names = [place.name for place, _ in target]
    absent = [name for name in names if name not in result]
    if absent:
        raise BadWeights(
            f"the result lacks {len(absent)} of {len(names)} parameters, the first is {absent[0]!r}; "
            'return one tensor for every name in models["seed"]'
        )
    extra = [name for name in result if name not in set(names)]
    if extra:
        raise BadWeights(
            f'the result has {len(extra)} names that models["seed"] lacks: {str(extra[0])[:80]!r}'
        )
    with torch.no_grad():
        for place, destination in target:
            value = _checked(place, result[place.name])
            # Pages met by writing are mapped one by one, those met by reading sixteen at a time.
            destination.view(-1)[:: AROUND // destination.itemsize].sum()
            destination.copy_(value)


def _checked(place: Place, value: object) -> torch.Tensor:
    if type(value) not in (torch.Tensor, torch.nn.Parameter):  # a subclass can lie about all that follows
        raise BadWeights(f"{place.name} is {_kind(value)}; it must be a plain torch.Tensor")
    assert isinstance(value, torch.Tensor)
    if tuple(value.shape) != place.shape:
        raise BadWeights(f"{place.name} has shape {list(value.shape)}; the seed's is {list(place.shape)}")
    if not value.is_floating_point():
        raise BadWeights(f"{place.name} is {value.dtype}; weights must be floating point")
    return value.detach().to_dense() if value.layout is not torch.strided else value.detach()


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__[:40]}"


def explain(error: BaseException, code: str) -> tuple[Verdict, str]:
    """A verdict and one line: what happened, where, and the line of the program it happened in."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    verdict = Verdict.EXCEPTION
    if isinstance(error, MemoryError) or any(word in text for word in _MEMORY_WORDS):
        verdict = Verdict.MEMORY
    elif isinstance(error, PermissionError) or any(word in text for word in _DENIED_WORDS):
        verdict = Verdict.DENIED
    what = f"{type(error).__name__}: {text.strip().splitlines()[0] if text.strip() else ''}".rstrip(": ")
    return verdict, f"{what[:180]}{_where(error, code)}"


def _where(error: BaseException, code: str) -> str:
    numbers = [
        number
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == PROGRAM
    ]
    lines = code.splitlines()
    if not numbers or not 0 < numbers[-1] <= len(lines):
        return ""
    return f" (line {numbers[-1]}: {lines[numbers[-1] - 1].strip()[:80]})"


def _print_traceback(error: BaseException, code: str) -> None:
    linecache.cache[PROGRAM] = (len(code), None, code.splitlines(keepends=True), PROGRAM)
    try:
        text = "".join(traceback.format_exception(_from_program(error), limit=-8))[-3000:]
        text = re.sub(r'File ".*/site-packages/', 'File "', text)
        os.write(2, text.encode("utf-8", "replace"))
    except BaseException:
        return


def _from_program(error: BaseException) -> BaseException:
    """The error without the frames of this file: its writer should see the program only."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename != PROGRAM:
        step = step.tb_next
    return error.with_traceback(step)


def quiet_diagnostics() -> None:
    """Warnings and tracebacks must not open source files: in a child that would look like an attack."""

    def update_nothing(filename: str, module_globals: object = None) -> list[str]:  # noqa: ARG001
        return []

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        sys.stderr.write(f"{category.__name__}: {message}\n"[:500])

    replace: Callable[[object, str, object], None] = setattr
    replace(linecache, "updatecache", update_nothing)
    replace(warnings, "showwarning", show)


def forget_imports() -> None:
    """What is not imported by now does not exist: no finder looks at paths any more."""
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    sys.argv[:] = ["program"]
    sys.orig_argv[:] = []
    os.environ.clear()
    gc.collect()
    gc.freeze()
