"""Runs one program on large models: a local one layer by layer in bounded memory, any other at once."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from selfdev.checkpoints import ModelView, fill, lay_out, tensor
from selfdev.checkpoints.slots import torch_dtype
from selfdev.fingerprint import make_probes
from selfdev.locality import dependence, only, probe_sets
from selfdev.records import Outcome, Program, State
from selfdev.sandbox import Limits, Sandbox, ServerProcess

if TYPE_CHECKING:
    from torch import Tensor

Put = Callable[[Mapping[str, "Tensor"]], None]
SLACK = 2.0  # seconds that a whole call may take beyond its program's limit
END = 0.7  # of which its beginning and end need so many
MOST_BLOCKS = 200  # a sandbox numbers its sets by one byte


@dataclass(frozen=True, slots=True)
class Streamed:
    """How a program ended, in how many blocks of parameters it ran, and the sandbox's layers in force."""

    outcome: Outcome
    blocks: int
    layers: frozenset[str]


def run_program(
    program: Program, views: Sequence[ModelView], limits: Limits, put: Put, *, random_seed: int = 0,
    accept_weaker: bool = False, server: ServerProcess | None = None, started: float | None = None,
) -> Streamed:  # fmt: skip
    """Run a program on models and hand each finished block of merged tensors to `put`, in the seed's dtypes.

    A program that is local on probes gets one layer of all models at a time, which gives the same numbers.
    The time limit, and the seconds told, are for the runs on probes and all blocks together. `server` is a
    sandbox's process that was started ahead. With `started`, from time.monotonic(), a program without end is
    over 2 s behind the limit, counted from there, unless the start takes longer than that and half the limit.
    """
    groups = layer_groups([slot.name for slot in views[0].slots])
    with tempfile.TemporaryDirectory(prefix="selfdev-") as folder:
        scratch = Path(folder)
        sets = probe_sets(make_probes(views, scratch), groups)
        parts = [only(views, group) for group in groups]
        laid = [lay_out(part, scratch / "block", convert=True) for part in parts]
        blocks = {f"block {place}": part for place, part in enumerate(laid)}
        with (scratch / "block").open("wb") as file:  # mapped now, filled anew before each block runs
            file.truncate(max(_end(part, scratch / "block") for part in laid))
        with Sandbox({**sets, **blocks}, limits, accept_weaker=accept_weaker, server=server) as sandbox:
            begin = time.monotonic()
            sandbox.limits = _shortened(limits, begin - (started or begin))
            local = len(groups) == 1 or dependence(sandbox, program, sets, random_seed) is None
            spent = time.monotonic() - begin
            if local:
                outcome = _by_block(sandbox, program, parts, laid, put, random_seed, spent)
                return Streamed(outcome, len(groups), sandbox.layers)
            if spent >= sandbox.limits.seconds:
                reason = (
                    f"not finished after {sandbox.limits.seconds:g} s; fewer or cheaper operations are needed"
                )
                return Streamed(Outcome(State.TIMED_OUT, reason, spent), 1, sandbox.layers)
        whole = lay_out(views, scratch / "whole")
        fill(views, whole)
        with Sandbox({"models": whole}, limits, accept_weaker=accept_weaker) as sandbox:
            begin = time.monotonic() - spent
            left = _shortened(limits, begin - (started or begin)).seconds - spent
            run = sandbox.run(program, random_seed, timeout=max(0.01, left))
            if run.tensors is not None:
                put(run.tensors)
            outcome = replace(run.outcome, seconds=spent + run.outcome.seconds)
            return Streamed(outcome, 1, sandbox.layers)


def _shortened(limits: Limits, waited: float) -> Limits:
    """The limits after a start that took `waited` seconds."""
    late = max(0.0, waited - (SLACK - END))
    return replace(limits, seconds=round(max(limits.seconds / 2, limits.seconds - late), 2))


def layer_groups(names: Sequence[str]) -> list[list[str]]:
    """Names in order, those of one layer together; neighbouring layers join where there are very many."""
    found = [list(group) for _, group in groupby(names, lambda name: re.sub(r"(\.\d+)\..*", r"\1", name))]
    step = -(-len(found) // MOST_BLOCKS)
    return [list(chain(*found[start : start + step])) for start in range(0, len(found), step)]


@dataclass(slots=True)
class _Total:
    """What the blocks so far come to."""

    copies: list[str]
    seconds: float = 0.0
    stderr: str = ""  # of the last block that printed
    digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))


def _by_block(
    sandbox: Sandbox, program: Program, parts: Sequence[Sequence[ModelView]],
    laid: Sequence[Sequence[ModelView]], put: Put, seed: int, spent: float,
) -> Outcome:  # fmt: skip
    total = _Total([view.name for view in parts[0]], spent)
    for place, (views, shown) in enumerate(zip(parts, laid, strict=True)):
        fill(views, shown)
        on = f"block {place}"
        run = sandbox.run(program, seed, on=on, timeout=max(0.01, sandbox.limits.seconds - total.seconds))
        total.seconds += run.outcome.seconds
        total.stderr = run.outcome.stderr or total.stderr
        if run.tensors is None:
            return replace(run.outcome, seconds=total.seconds)
        stored = {s.name: run.tensors[s.name].to(torch_dtype(s.dtype)) for s in views[0].slots}
        bad = next((name for name, value in stored.items() if not bool(value.isfinite().all())), None)
        if bad is not None:
            reason = f"{bad!r} is too large for the seed's dtype"
            return Outcome(State.BAD_WEIGHTS, reason, total.seconds, run.outcome.stderr)
        _count_in(total, views, stored)
        put(stored)
        sandbox.forget(on)
    copy_of = total.copies[0] if total.copies else None
    return Outcome(State.MERGED, "", total.seconds, total.stderr, copy_of, total.digest.hexdigest())


def _count_in(total: _Total, views: Sequence[ModelView], stored: Mapping[str, Tensor]) -> None:
    """Add a block's bytes to the digest and drop the models that it is no copy of."""
    import torch

    for value in stored.values():
        total.digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    by_name = {view.name: view for view in views}
    for name in list(total.copies):
        pairs = ((tensor(slot), stored[slot.name]) for slot in by_name[name].slots)
        if not all(torch.equal(own.to(value.dtype), value) for own, value in pairs):
            total.copies.remove(name)


def _end(views: Sequence[ModelView], file: Path) -> int:
    return max((s.offset + s.nbytes for view in views for s in view.slots if s.file == file), default=0)
