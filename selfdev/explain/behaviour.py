"""Programs by what they do on probes, and on real weights where there are models; `explain` judges by it.

Three sets of probes are shown: those that every search uses; the same in bf16, where a conversion matters;
and the same with experts that equal the seed in places, where a guard against nothing matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from selfdev.checkpoints import ModelView, TensorSlot, tensor
from selfdev.fingerprint import change, fingerprint, make_probes
from selfdev.gate import gate
from selfdev.locality import WHOLE, dependence, probe_sets
from selfdev.records import Outcome, Program, State
from selfdev.sandbox import Limits, Sandbox

if TYPE_CHECKING:
    import numpy as np

MODELS = "models"
TWINS = ("in bf16", "with equal tensors")
LEAST_SECONDS = 1.0  # for a variant on probes, or ten times what the program takes


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What gate and probes say of a program: its fingerprint on all sets and its change of the first one."""

    code: str
    outcome: Outcome
    fingerprint: str | None = None
    change: np.ndarray | None = None


class Bench:
    """A sandbox with probes, and with the real models where they are given; use it as a context manager.

    `shown` gives the names and shapes; `seed` is that of the programs' random numbers.
    """

    def __init__(
        self, shown: Sequence[ModelView], folder: Path, limits: Limits, seed: int, *, real: bool,
        accept_weaker: bool,
    ) -> None:  # fmt: skip
        self.probes = make_probes(shown, folder)
        self._seed, self._real = seed, real
        dtype = shown[0].dtype
        self._twins = {
            TWINS[0]: _in_bf16(self.probes, folder / "bf16", dtype),
            TWINS[1]: _equal_in_places(self.probes),
        }
        self._parts = probe_sets(self.probes, [[slot.name] for slot in shown[0].slots])
        sets = {**self._parts, **self._twins, **({MODELS: tuple(shown)} if real else {})}
        self._sandbox = Sandbox(sets, limits, accept_weaker=accept_weaker)
        self._seconds = limits.seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._sandbox.close()

    def settle(self, code: str) -> list[str]:
        """Take a program as the one that others are compared with: its time on probes bounds theirs, and
        sets that it cannot do are left out from now on; says which, and how it ends there."""
        begin = self._sandbox.run(Program(code), self._seed, on=WHOLE)
        self._seconds = min(self._seconds, max(LEAST_SECONDS, 10 * begin.outcome.seconds))
        troubles = []
        for name in TWINS:
            outcome = self._sandbox.run(Program(code), self._seed, on=name).outcome
            if outcome.state is not State.MERGED:
                del self._twins[name]
                troubles.append(f"On probes {name} it ends in {outcome.state}: {outcome.reason}.")
        return troubles

    def behave(self, text: str) -> Behaviour:
        """Gate, then every set of probes; what fails on one of them fails."""
        try:
            code = gate.check(text).code
        except gate.Rejected as refusal:
            return Behaviour(text, Outcome(State.INVALID, str(refusal)))
        prints, first = [], None
        outcome = Outcome(State.INVALID)
        for name, views in {WHOLE: self.probes, **self._twins}.items():
            run = self._sandbox.run(Program(code), self._seed, on=name, timeout=self._seconds)
            outcome = run.outcome
            if run.tensors is None:
                return Behaviour(code, outcome)
            moved = change(views, run.tensors)
            prints.append(fingerprint(moved))
            first = moved if first is None else first
        return Behaviour(code, outcome, " ".join(prints), first)

    def on_models(self, code: str) -> Outcome | None:
        """How a program ends on the real models, with the hash of its weights; None where there are none."""
        if not self._real:
            return None
        outcome = self._sandbox.run(Program(code), self._seed, on=MODELS).outcome
        self._sandbox.forget(MODELS)
        return outcome

    def dependence(self, code: str) -> str | None:
        """Why a program is not local, parameter by parameter; None when it is."""
        return dependence(self._sandbox, Program(code), self._parts, self._seed)

    def changes(self, programs: Mapping[str, str]) -> dict[str, np.ndarray]:
        """How each of these programs changes the probes, without those that fail."""
        found = {}
        for name, code in programs.items():
            run = self._sandbox.run(Program(code), self._seed, on=WHOLE)
            if run.tensors is not None:
                found[name] = change(self.probes, run.tensors)
        return found


def _in_bf16(probes: Sequence[ModelView], file: Path, dtype: str | None) -> tuple[ModelView, ...]:
    """The probes rounded to bf16, in one raw file, shown as the models are."""
    import torch

    twins, offset = [], 0
    with file.open("wb") as stream:
        for view in probes:
            slots = []
            for slot in view.slots:
                raw = tensor(slot).to(torch.bfloat16).reshape(-1).view(torch.uint8).numpy().tobytes()
                stream.write(raw)
                slots.append(TensorSlot(slot.name, "BF16", slot.shape, file, offset, len(raw)))
                offset += len(raw)
            twins.append(ModelView(view.name, tuple(slots), dtype))
    return tuple(twins)


def _equal_in_places(probes: Sequence[ModelView]) -> tuple[ModelView, ...]:
    """The probes where no expert changes the first parameter, and each one more that only it leaves alone."""
    seed = probes[0].slots
    views = [probes[0]]
    for number, view in enumerate(probes[1:], 1):
        same = {0, number % len(seed)}
        slots = tuple(seed[i] if i in same else slot for i, slot in enumerate(view.slots))
        views.append(replace(view, slots=slots))
    return tuple(views)
