"""What one worker runs programs on: the parents of one iteration in a sandbox, and how known methods act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfdev.checkpoints import views
from selfdev.fingerprint import change
from selfdev.lineage import Parents
from selfdev.records import Program
from selfdev.sandbox import Limits, Sandbox

if TYPE_CHECKING:
    import numpy as np


@dataclass(slots=True)
class Merging:
    """A sandbox with the parents and their probes; `known` has what human-designed methods change there,
    `seed_accuracy` is that of the parents' seed on dev, None until it is measured."""

    parents: Parents
    sandbox: Sandbox
    known: dict[str, np.ndarray]
    seed_accuracy: float | None = None


def open_merging(
    parents: Parents, scope: str, dtype: str | None, limits: Limits, accept_weaker: bool,
    methods: Mapping[str, str],
) -> Merging:  # fmt: skip
    """Start a sandbox for these parents and try every method (name -> code) on the probes."""
    models = views(parents.seed, parents.experts, scope, dtype)
    sandbox = Sandbox({"models": models, "probes": parents.probes}, limits, accept_weaker=accept_weaker)
    known: dict[str, np.ndarray] = {}
    for name, code in methods.items():
        run = sandbox.run(Program(code), 0, on="probes")
        if run.tensors is not None:
            known[name] = change(parents.probes, run.tensors)
    return Merging(parents, sandbox, known)
