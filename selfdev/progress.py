"""Progress on stderr with the time left, and the seconds each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


class Bars:
    """One bar per stage on stderr; `spent` is told the seconds of a stage when it ends, however it ends."""

    def __init__(self, spent: Callable[[str, float], None]) -> None:
        self._console = Console(stderr=True)
        self._spent = spent

    def __call__(self, results: Iterable[T], stage: str, total: int) -> Iterator[T]:
        """Pass the results on while counting them; a stage with nothing to do shows nothing."""
        if total == 0:
            return
        begin = time.monotonic()
        try:
            with self._bar() as bar:
                task = bar.add_task(stage, total=total)
                for result in results:
                    yield result
                    bar.advance(task)
        finally:
            self._spent(stage, time.monotonic() - begin)

    def steps(self, stage: str, work: Callable[[Callable[[int, int], None]], T]) -> T:
        """Run `work` with a function that takes (steps done, steps in all)."""
        begin = time.monotonic()
        try:
            with self._bar() as bar:
                task = bar.add_task(stage, total=None)
                return work(lambda done, total: bar.update(task, completed=done, total=total))
        finally:
            self._spent(stage, time.monotonic() - begin)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self._console,
        )  # fmt: skip
