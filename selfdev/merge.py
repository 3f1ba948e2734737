"""The verb `merge`: one program on given models in the sandbox; with `out`, the result as HF checkpoint."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from selfdev.blocks import Put
from selfdev.checkpoints import (
    check_free,
    check_shard_size,
    drafted,
    open_checkpoint,
    views,
)
from selfdev.errors import SelfdevError
from selfdev.gate import gate
from selfdev.library import builtin_names, load_program
from selfdev.records import MOST_GIB, MOST_SECONDS, Program, State
from selfdev.sandbox import Limits, ServerProcess
from selfdev.sandbox.layers import in_words
from selfdev.stream import Streamed, run_program
from selfdev.trusted import IN_ORDER

BUILT_IN = "The program is built into selfdev and ran without a sandbox."
Experts = Mapping[str, Path | str] | Iterable[tuple[str, Path | str]]


@dataclass(frozen=True, slots=True)
class MergeResult:
    """How a merge ended. `seconds` is the program's wall time; `out` the checkpoint, None when none was
    written; `copy_of` the model the result equals, if any; `parameters` the values the program ran with;
    `blocks` in how many parts, one after another: a local program runs layer by layer; `stderr` the last
    lines of what it printed."""

    program: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    out: str | None = None
    copy_of: str | None = None
    weights_hash: str | None = None
    parameters: dict[str, object] = field(default_factory=dict)
    blocks: int = 1
    stderr: str = ""


def merge(
    program: str,
    seed: Path | str,
    experts: Experts,
    *,
    out: Path | str | None = None,
    parameters: Mapping[str, object] | None = None,
    scope: str = "mlp",
    dtype: str | None = None,
    random_seed: int = 0,
    shard_size: str | None = None,
    timeout: float = 600.0,
    memory: float = 16.0,
    accept_weaker: bool = False,
    started: float | None = None,
) -> MergeResult:
    """Run a program (built-in name or path) on a seed and named experts; with `out`, write a checkpoint.

    `dtype` "F32" shows the program float32, None what is stored; `shard_size` such as "5GB" cuts the files
    anew (None: as the seed's); `memory` in GiB. `timeout` is for the program, in seconds: a start of the
    sandbox that takes long shortens it (see `run_program`), counted from `started`, by default now. An expert
    may be a PEFT adapter. Built-in programs run in this process, where `memory` means nothing, any other in
    the sandbox. A program that fails is a result with its state; SelfdevError means the input is wrong.
    """
    began = time.monotonic() if started is None else started
    named = list(experts.items()) if isinstance(experts, Mapping) else list(experts)
    target = Path(out) if out is not None else None
    _check_asked([name for name, _ in named], timeout, memory, shard_size, target)
    trusted = program in builtin_names()
    # A sandbox gets warm while torch is imported and headers are read here.
    with nullcontext() if trusted else ServerProcess() as server:
        import torch  # noqa: F401

        if target is not None:
            from selfdev.report.card import model_card
        base = open_checkpoint(seed, "seed")
        relatives = [open_checkpoint(path, name, base) for name, path in named]
        shown = views(base, relatives, scope, dtype)
        title = Path(program).stem
        try:
            accepted = load_program(program, parameters)
        except gate.Rejected as refusal:
            return MergeResult(title, State.INVALID, str(refusal))
        limits = Limits(timeout, memory)

        def run(put: Put) -> Streamed:
            return run_program(
                accepted, shown, limits, put,
                random_seed=random_seed, accept_weaker=accept_weaker, server=server, started=began,
                trusted=trusted, known_local=trusted and program not in IN_ORDER,
            )  # fmt: skip

        if target is None:
            return _result(title, accepted, run(lambda _: None), None)
        names = frozenset(slot.name for slot in shown[0].slots)
        with drafted(base, target, shard_size, names) as draft:
            done = run(draft.put)
            if done.outcome.state is State.MERGED:
                card = model_card(
                    target.absolute().name, accepted, base, relatives, scope=scope, dtype=dtype,
                    random_seed=random_seed, confinement=BUILT_IN if trusted else in_words(done.layers),
                )  # fmt: skip
                draft.appear({"README.md": card, "program.py": accepted.code})
        return _result(title, accepted, done, target)


def _check_asked(
    names: list[str], timeout: float, memory: float, shard_size: str | None, target: Path | None
) -> None:
    _check_names(names)
    _check_limit("timeout", timeout, MOST_SECONDS, "seconds")
    _check_limit("memory", memory, MOST_GIB, "GiB")
    check_shard_size(shard_size)
    if target is not None:
        check_free(target)


def _result(title: str, program: Program, done: Streamed, target: Path | None) -> MergeResult:
    outcome = done.outcome
    return MergeResult(
        program=title,
        state=outcome.state,
        reason=outcome.reason,
        seconds=outcome.seconds,
        out=str(target) if target is not None and outcome.state is State.MERGED else None,
        copy_of=outcome.copy_of,
        weights_hash=outcome.weights_hash,
        parameters=gate.parameters(program.code),
        blocks=done.blocks,
        stderr=outcome.stderr,
    )


def _check_limit(name: str, value: float, most: float, unit: str) -> None:
    if not 0 < value <= most:
        raise SelfdevError(
            f"{name} is {value:g} and must be above 0 and at most {most:,} {unit}; give such a number"
        )


def _check_names(names: list[str]) -> None:
    if not names:
        raise SelfdevError("no expert is given; a merge needs at least one, as name and folder")
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name) or name == "seed":
            raise SelfdevError(
                f"expert name {name!r} must be letters, digits, '_', '-', '.', and not 'seed'; rename it"
            )
        if names.count(name) > 1:
            raise SelfdevError(f"two experts are named {name}; give each its own name")
