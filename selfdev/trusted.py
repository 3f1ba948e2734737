"""Built-in programs run in this process: their text is ours, so there is nothing to keep them from.

A sandbox's start, its processes and the copy of every result cost a merge with built-in methods half of its
time. What is checked of a result is the same, and so are the numbers.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from selfdev.checkpoints import ModelView, tensor
from selfdev.checkpoints.slots import finite
from selfdev.records import Outcome, Program, State
from selfdev.sandbox import Limits
from selfdev.sandbox.layout import Verdict
from selfdev.sandbox.result import Run
from selfdev.workers.heap import keep_freed_memory

if TYPE_CHECKING:
    from torch import Tensor

STATES = {Verdict.MEMORY: State.OUT_OF_MEMORY}
# Built-in programs whose random numbers depend on what was drawn before; all others are local, which need not
# be found out anew for each merge.
IN_ORDER = frozenset({"della", "della_linear"})


class InProcess:
    """What a `Sandbox` is to its callers, without walls. A run that is too slow ends first and is told so.

    A program that uses torch's shared random numbers is not run by two threads at once (`pays`). Inside,
    torch computes with one thread: blocks run side by side, and numbers do not depend on the cores.
    """

    layers: frozenset[str] = frozenset()

    def __init__(self, model_sets: Mapping[str, Sequence[ModelView]], limits: Limits) -> None:
        self.limits = limits
        self._drew = False
        self._threads = 0
        keep_freed_memory()
        self._sets = model_sets

    @property
    def pays(self) -> float:
        """Seconds of work left from which another thread pays: any, but where random numbers were drawn."""
        return math.inf if self._drew else 0.0

    def __enter__(self) -> Self:
        import torch

        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self._threads)

    def run(
        self, program: Program, seed: int, on: str = "models", timeout: float | None = None,
        named: bool = True,  # noqa: ARG002
    ) -> Run:  # fmt: skip
        """Run a program on one set of models; the outcome has neither hash nor `copy_of`."""
        seconds = self.limits.seconds if timeout is None else timeout
        views = self._sets[on]
        begin = time.monotonic()
        outcome, tensors = self._called(program.code, seed, views)
        wall = time.monotonic() - begin
        if wall > seconds:
            reason = f"not finished after {seconds:g} s; fewer or cheaper operations are needed"
            return Run(Outcome(State.TIMED_OUT, reason, wall), None)
        return Run(Outcome(outcome.state, outcome.reason, wall), tensors)

    def forget(self, on: str) -> None:
        """Results are plain tensors: they go when nobody has them any more."""

    def abandon(self) -> None:
        """A run in hand goes on to its end."""

    def _called(
        self, code: str, seed: int, views: Sequence[ModelView]
    ) -> tuple[Outcome, dict[str, Tensor] | None]:
        import numpy as np
        import torch

        from selfdev.sandbox import child

        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        before = torch.default_generator.get_state()
        models = {view.name: {slot.name: tensor(slot) for slot in view.slots} for view in views}
        names: dict[str, Any] = {"__name__": "program", "torch": torch}
        try:
            exec(compile(code, child.PROGRAM, "exec", dont_inherit=True), names)
            result = names["merge_models"](models, torch.device("cpu"))
            tensors = {slot.name: result[slot.name].to(tensor(slot).dtype) for slot in views[0].slots}
        except Exception as error:
            verdict, reason = child.explain(error, code)
            return Outcome(STATES.get(verdict, State.CRASHED), reason), None
        self._drew = self._drew or not torch.equal(before, torch.default_generator.get_state())
        bad = [name for name, value in tensors.items() if not finite(value)]
        if bad:
            reason = f"{len(bad)} of {len(tensors)} parameters hold NaN or infinity, the first is {bad[0]!r}"
            return Outcome(State.BAD_WEIGHTS, reason[:300]), None
        return Outcome(State.MERGED), tensors
