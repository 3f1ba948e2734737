"""Is a program local: does its result for a parameter depend on that parameter alone? Measured, not guessed.

Probe models are shown whole and in parts. Parts are chosen by the binary digits of a parameter's place, so
that for every two parameters one part has the first without the second; a local program gives the same
numbers in every part. This also finds programs that count parameters, and random numbers drawn in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from selfdev.records import Program

if TYPE_CHECKING:
    from selfdev.blocks import Runs
    from selfdev.checkpoints import ModelView

WHOLE = "probes"
SECONDS = 20.0  # most time for one run on probes
Groups = Sequence[Sequence[str]]  # names of parameters that may depend on each other


def only(views: Sequence[ModelView], names: Sequence[str]) -> tuple[ModelView, ...]:
    """The views with these parameters alone."""
    wanted = frozenset(names)
    return tuple(replace(v, slots=tuple(s for s in v.slots if s.name in wanted)) for v in views)


def probe_sets(probes: Sequence[ModelView], groups: Groups) -> dict[str, tuple[ModelView, ...]]:
    """The probes whole and in parts, as sets for a sandbox: 1 + 2 log2(groups) at most."""
    sets = {WHOLE: tuple(probes)}
    for digit in range((len(groups) - 1).bit_length()):
        for value in (0, 1):
            names = [n for place, group in enumerate(groups) if place >> digit & 1 == value for n in group]
            sets[f"{WHOLE} {digit} {value}"] = only(probes, names)
    return sets


def dependence(
    sandbox: Runs, program: Program, sets: Mapping[str, Sequence[ModelView]], seed: int = 0
) -> str | None:
    """Why a program is not local, as the end of a sentence; None when it is local on the probes."""
    import torch

    seconds = min(SECONDS, sandbox.limits.seconds)
    run = sandbox.run(program, seed, on=WHOLE, timeout=seconds)
    if run.tensors is None:
        return f"it ends in {run.outcome.state} on probes: {run.outcome.reason}"
    whole = {name: value.clone() for name, value in run.tensors.items()}
    for name in sets:
        if name == WHOLE or not name.startswith(WHOLE):
            continue
        part = sandbox.run(program, seed, on=name, timeout=seconds)
        if part.tensors is None:
            return f"it ends in {part.outcome.state} when some parameters are left out: {part.outcome.reason}"
        for key, value in part.tensors.items():
            if not torch.equal(value, whole[key]):
                return f"its result for {key} changes when other parameters are left out"
    return None
