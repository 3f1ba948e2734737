"""Runs a local program block by block: while one runs, finished ones are checked, hashed and handed on.

A long merge gets more sandboxes, one for each further processor core. Whoever is free takes the next block;
one thread finishes them in their order, so that neither numbers nor hash depend on who did what.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import xxhash

from selfdev.checkpoints import ModelView, check_finite, fill, tensor
from selfdev.checkpoints.slots import finite, torch_dtype
from selfdev.records import Outcome, Program, State
from selfdev.sandbox import Limits
from selfdev.sandbox.result import Run
from selfdev.store.hashes import merged_digest

if TYPE_CHECKING:
    from torch import Tensor

Put = Callable[[Mapping[str, "Tensor"]], None]
Models = Sequence[ModelView]
AHEAD = 4  # times the largest block that may be begun and not yet finished: results take memory
MOST_HELPERS = 3


class Runs(Protocol):
    """A sandbox, or what stands for one (`selfdev.trusted`)."""

    limits: Limits
    layers: frozenset[str]

    @property
    def pays(self) -> float:
        """Seconds of work left from which another one of it pays."""

    def __enter__(self) -> Runs: ...

    def __exit__(self, *_: Any) -> None: ...

    def run(
        self, program: Program, seed: int, on: str = ..., timeout: float | None = ..., named: bool = ...
    ) -> Run:
        """Run a program on one set of models."""

    def forget(self, on: str) -> None:
        """The last result on a set is not used any more."""

    def abandon(self) -> None:
        """End the run in hand, if that can be done."""


@dataclass(frozen=True, slots=True)
class Runner:
    """A sandbox that knows every block as a set named by `name_of`, and the blocks as it is shown them."""

    sandbox: Runs
    laid: Sequence[Models]


def name_of(place: int) -> str:
    """The set of a block."""
    return f"block {place}"


@dataclass(slots=True)
class Blocks:
    """The blocks of one merge and what has come of them so far; `seconds` of the program in all of them."""

    program: Program
    parts: Sequence[Models]
    put: Put
    seed: int
    limit: float
    seconds: float
    another: Callable[[], Runner]  # starts a further sandbox
    pays: float  # seconds of work left from which it does
    _copies: list[str] = field(init=False)  # models that everything so far equals
    _digest: xxhash.xxh3_128 = field(default_factory=merged_digest)
    _stderr: str = ""  # of the last block that printed
    _sizes: list[int] = field(init=False)  # bytes of each block
    _begun: int = 0
    _finished: int = 0
    _ready: dict[int, tuple[Runner, Run]] = field(default_factory=dict)
    _failed: Outcome | None = None
    _fault: BaseException | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _finisher: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _helpers: list[threading.Thread] = field(default_factory=list)
    _sandboxes: list[Runs] = field(default_factory=list)  # theirs

    def run(self, runner: Runner) -> Outcome:
        """Run all blocks. A fault of ours, and an interrupt, is raised when nothing is at work any more."""
        self._copies = [view.name for view in self.parts[0]]
        self._sizes = [sum(slot.nbytes for slot in part[0].slots) for part in self.parts]
        try:
            self._work(runner, calls=True)
            with self._changed:
                self._changed.wait_for(lambda: self._finished == len(self.parts) or self._ended())
        except BaseException as error:
            self._stop(error)
        for sandbox in self._sandboxes:
            sandbox.abandon()
        for helper in self._helpers:
            helper.join()
        self._finisher.shutdown()
        if self._fault is not None:
            raise self._fault
        if self._failed is not None:
            return replace(self._failed, seconds=self.seconds)
        copy_of = self._copies[0] if self._copies else None
        return Outcome(State.MERGED, "", self.seconds, self._stderr, copy_of, self._digest.hexdigest())

    def _work(self, runner: Runner, calls: bool = False) -> None:
        """Take blocks until none is left; who `calls` starts helpers when much is left."""
        begin = time.monotonic()
        while (place := self._take()) is not None:
            fill(self.parts[place], runner.laid[place])
            left = max(0.01, self.limit - self.seconds)
            run = runner.sandbox.run(self.program, self.seed, name_of(place), left, named=False)
            with self._changed:
                self.seconds += run.outcome.seconds
            self._finisher.submit(self._finish, place, runner, run)
            if calls and not self._helpers and self._left(time.monotonic() - begin) > self.pays:
                self._helpers = [threading.Thread(target=self._help) for _ in range(_helpers())]
                for helper in self._helpers:
                    helper.start()

    def _help(self) -> None:
        try:
            runner = self.another()
            with runner.sandbox:
                self._sandboxes.append(runner.sandbox)
                self._work(runner)
        except BaseException as error:
            self._stop(error)

    def _take(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._over() or self._has_room())
            if self._over():
                return None
            self._begun += 1
            return self._begun - 1

    def _has_room(self) -> bool:
        """Whether the results of blocks begun, and of one more, are no more than may wait to be finished."""
        waiting = sum(self._sizes[self._finished : self._begun + 1])
        return waiting <= AHEAD * max(self._sizes)

    def _over(self) -> bool:
        return self._begun == len(self.parts) or self._ended()

    def _ended(self) -> bool:
        return self._failed is not None or self._fault is not None

    def _left(self, spent: float) -> float:
        """Seconds that the blocks not yet begun would take one process."""
        done = sum(self._sizes[: self._begun])
        return spent * (sum(self._sizes) - done) / max(done, 1)

    def _stop(self, fault: BaseException) -> None:
        with self._changed:
            if not self._ended():  # what an abandoned sandbox says is no news
                self._fault = fault
            self._changed.notify_all()

    def _finish(self, place: int, runner: Runner, run: Run) -> None:
        """In the one finishing thread: this block and those that waited for it."""
        try:
            self._ready[place] = runner, run
            while self._finished in self._ready and not self._ended():
                failed = self._finish_next(*self._ready.pop(self._finished))
                with self._changed:
                    self._failed = failed
                    self._finished += 1
                    self._changed.notify_all()
        except BaseException as error:
            self._stop(error)

    def _finish_next(self, runner: Runner, run: Run) -> Outcome | None:
        """Check, count in and hand on one block; its outcome when it failed."""
        place = self._finished
        views = self.parts[place]
        check_finite(views)  # before a program is blamed for what it was given
        self._stderr = run.outcome.stderr or self._stderr
        if run.tensors is None:
            return run.outcome
        stored = {s.name: run.tensors[s.name].to(torch_dtype(s.dtype)) for s in views[0].slots}
        for name, value in stored.items():
            if value is not run.tensors[name] and not finite(value):
                reason = f"{name!r} is too large for the seed's dtype"
                return Outcome(State.BAD_WEIGHTS, reason, 0.0, run.outcome.stderr)
        self._count_in(views, stored)
        self.put(stored)
        runner.sandbox.forget(name_of(place))
        return None

    def _count_in(self, views: Models, stored: Mapping[str, Tensor]) -> None:
        """Add a block's bytes to the digest and drop the models that it is no copy of."""
        import torch

        for value in stored.values():
            self._digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
        by_name = {view.name: view for view in views}
        for name in list(self._copies):
            pairs = ((tensor(slot), stored[slot.name]) for slot in by_name[name].slots)
            if not all(torch.equal(own.to(value.dtype), value) for own, value in pairs):
                self._copies.remove(name)


def _helpers() -> int:
    """How many processes can run programs beside the first."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores - 1, MOST_HELPERS)
