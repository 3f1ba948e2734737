"""Runs one program on large models: a local one layer by layer in bounded memory, any other at once."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, groupby
from pathlib import Path

from selfdev.blocks import Blocks, Put, Runner, Runs, name_of
from selfdev.checkpoints import ModelView, check_finite, fill, lay_out
from selfdev.fingerprint import make_probes
from selfdev.locality import dependence, only, probe_sets
from selfdev.records import Outcome, Program, State
from selfdev.sandbox import Limits, Sandbox, ServerProcess
from selfdev.store.temporary import temporary_folder
from selfdev.trusted import InProcess

SLACK = 2.0  # seconds that a whole call may take beyond its program's limit
END = 0.7  # of which its beginning and end need so many
Sets = Mapping[str, Sequence[ModelView]]
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
    trusted: bool = False, known_local: bool = False,
) -> Streamed:  # fmt: skip
    """Run a program on models and hand each finished block of merged tensors to `put`, in the seed's dtypes.

    A program that is local on probes gets one layer of all models at a time, which gives the same numbers.
    Models are checked to be finite: SelfdevError where one is not.
    The time limit, and the seconds told, are for the runs on probes and all blocks together. `server` is a
    sandbox's process that was started ahead. With `started`, from time.monotonic(), a program without end is
    over 2 s behind the limit, counted from there, unless the start takes most of the limit and more.
    A `trusted` program, whose text is ours, runs in this process: limits are looked at between its blocks.
    One that is `known_local` is not tried on probes.
    """

    def walled(sets: Sets, ahead: ServerProcess | None = None) -> Runs:
        if trusted:
            return InProcess(sets, limits)
        return Sandbox(sets, limits, accept_weaker=accept_weaker, server=ahead)

    groups = layer_groups([slot.name for slot in views[0].slots])
    with temporary_folder() as scratch:
        sets = {} if known_local else probe_sets(make_probes(views, scratch), groups)
        parts = [only(views, group) for group in groups]
        numbers = count()

        def another() -> Runner:
            return _runner(parts, scratch / f"block {next(numbers)}", walled)

        own = _runner(parts, scratch / "block", lambda sets: walled(sets, server), sets)
        with own.sandbox as sandbox:
            begin = time.monotonic()
            sandbox.limits = _shortened(limits, begin - (started or begin))
            local = known_local or len(groups) == 1
            local = local or dependence(sandbox, program, sets, random_seed) is None
            spent, limit = time.monotonic() - begin, sandbox.limits.seconds
            if local:
                blocks = Blocks(program, parts, put, random_seed, limit, spent, another, sandbox.pays)
                return Streamed(blocks.run(own), len(groups), sandbox.layers)
            if spent >= limit:
                reason = f"not finished after {limit:g} s; fewer or cheaper operations are needed"
                return Streamed(Outcome(State.TIMED_OUT, reason, spent), 1, sandbox.layers)
        if trusted:
            whole = [tuple(views)]
            only_one = _runner(whole, scratch / "whole", walled)
            blocks = Blocks(program, whole, put, random_seed, limit, spent, another, math.inf)
            return Streamed(blocks.run(only_one), 1, sandbox.layers)
        late = begin - (started or begin)
        return _at_once(program, views, put, random_seed, scratch / "whole", walled, spent, late)


def _at_once(
    program: Program, views: Sequence[ModelView], put: Put, seed: int, file: Path,
    walled: Callable[[Sets], Runs], spent: float, late: float,
) -> Streamed:  # fmt: skip
    """Run a program on whole models, of which `spent` seconds are used up; the start took `late` so far."""
    began = time.monotonic()
    check_finite(views)
    whole = lay_out(views, file)
    fill(views, whole)
    with walled({"models": whole}) as sandbox:
        left = _shortened(sandbox.limits, late + time.monotonic() - began).seconds - spent
        run = sandbox.run(program, seed, timeout=max(0.01, left))
        if run.tensors is not None:
            put(run.tensors)
        outcome = replace(run.outcome, seconds=spent + run.outcome.seconds)
        return Streamed(outcome, 1, sandbox.layers)


def _shortened(limits: Limits, waited: float) -> Limits:
    """The limits after a start that took `waited` seconds."""
    late = max(0.0, waited - (SLACK - END))
    return replace(limits, seconds=round(max(limits.seconds / 4, limits.seconds - late), 2))


def layer_groups(names: Sequence[str]) -> list[list[str]]:
    """Names in order, those of one layer together; neighbouring layers join where there are very many."""
    found = [list(group) for _, group in groupby(names, lambda name: re.sub(r"(\.\d+)\..*", r"\1", name))]
    step = -(-len(found) // MOST_BLOCKS)
    return [list(chain(*found[start : start + step])) for start in range(0, len(found), step)]


def _runner(
    parts: Sequence[Sequence[ModelView]], file: Path, walled: Callable[[Sets], Runs], more: Sets | None = None
) -> Runner:
    """A sandbox for the blocks; what of them is not stored as it is shown will be put into `file`."""
    laid = [lay_out(part, file, convert=True) for part in parts]
    with file.open("wb") as scratch:  # mapped now, filled anew before each block runs
        scratch.truncate(max(_end(part, file) for part in laid))
    sets = {name_of(place): part for place, part in enumerate(laid)}
    return Runner(walled({**(more or {}), **sets}), laid)


def _end(views: Sequence[ModelView], file: Path) -> int:
    return max((s.offset + s.nbytes for view in views for s in view.slots if s.file == file), default=0)
