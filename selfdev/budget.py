"""What the search may still spend; the first limit that is reached ends it, once and for all.

Only the loop is counted. The tuning of baselines and the final examination come after it, with what was found
by then, whatever they take: a search without them would have no result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from selfdev.config.settings import Budget as Limits
from selfdev.store.archive import Archive

T = TypeVar("T")


class Budget:
    """The limits of a run, which holds `gpus`, and what its archive says was spent; `clock` gives seconds and
    never goes back."""

    def __init__(
        self, limits: Limits, archive: Archive, gpus: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._limits = limits
        self._archive = archive
        self._gpus = gpus
        self._clock = clock
        self._began = clock()
        stages = archive.events("stage")
        self._earlier = sum(stage["seconds"] for stage in stages)
        self._earlier_of_gpus = sum(stage["seconds"] * stage["gpus"] for stage in stages)

    def reached(self) -> str | None:
        """The limit that ended the search, such as "questions"; None while it goes on."""
        if self._limits == Limits():
            return None  # the usual case costs nothing
        found = self._archive.get("budget")
        if found is None:
            now = self._clock() - self._began
            hours, of_gpus = (self._earlier + now) / 3600, (self._earlier_of_gpus + now * self._gpus) / 3600
            asked = self._archive.asked("factory")
            if self._limits.hours is not None and hours >= self._limits.hours:
                found = self._end("hours")
            elif self._limits.gpu_hours is not None and of_gpus >= self._limits.gpu_hours:
                found = self._end("gpu_hours")
            elif self._limits.questions is not None and asked >= self._limits.questions:
                found = self._end("questions")
        return found

    def within(self, jobs: Iterable[T]) -> Iterator[T]:
        """Jobs, one at a time, as long as there is something left to spend."""
        for job in jobs:
            if self.reached():
                return
            yield job

    def programs(self, wanted: int) -> int:
        """How many of the programs of a new iteration may be written."""
        if self.reached():
            return 0
        left = wanted
        if self._limits.attempts is not None:
            left = min(wanted, self._limits.attempts - self._archive.count("factory"))
            if left <= 0:
                self._end("attempts")
        return left

    def _end(self, limit: str) -> str:
        self._archive.put("budget", limit)
        return limit
