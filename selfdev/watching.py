"""What a run is doing now, read from its archive beside the process that writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selfdev.collect import collect, config_of
from selfdev.config.config import Config
from selfdev.errors import SelfdevError
from selfdev.finish import name_of
from selfdev.records import Attempt, State, best_first, fully_scored
from selfdev.results import IterationStats
from selfdev.store.archive import Archive
from selfdev.store.folder import telling
from selfdev.store.lock import holder

LATEST = 8


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that is over; with a score, its accuracy (0..1) on n dev questions and 95 % interval."""

    name: str
    state: str
    reason: str
    n: int = 0
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A run at one moment.

    `holder` is the process at work. `stage` ("" when finished) has `done` of `total` (0: not counted). `best`
    is the best program on dev so far, `latest` the last attempts of the iteration, newest first.
    """

    run: str
    name: str
    state: Literal["running", "stopped", "finished"]
    holder: str | None
    stage: str
    done: int
    total: int
    seconds: float
    iterations: tuple[IterationStats, ...]
    best: Ended | None
    latest: tuple[Ended, ...]


def look(folder: Path) -> Seen:
    """A run now; SelfdevError where there is none. Nothing is written and no lock is held."""
    archive = Archive(folder / "archive.sqlite")
    try:
        with telling(folder):
            if archive.get("config") is None:
                raise SelfdevError(f"{folder} holds a run that has only just begun; look again in a moment.")
            return _seen(folder, archive)
    finally:
        archive.close()


def watch(folder: Path, show: Callable[[Seen], None], wait: Callable[[], None]) -> Seen:
    """Look again and again, `wait` between, until nobody works there any more; returns the last look."""
    while True:
        seen = look(folder)
        show(seen)
        if seen.state != "running":
            return seen
        wait()


def _seen(folder: Path, archive: Archive) -> Seen:
    config, found = config_of(folder, archive), collect(folder, archive)
    stage, done, total = _stage(config, archive)
    at_work = holder(folder)
    over = archive.get("best") is not None
    scored = list(archive.each("factory", only="scored", texts=False))
    best = best_first(fully_scored(scored))[:1]
    last = max((turn.iteration for turn in found.iterations), default=0)
    ended = [a for a in archive.each("factory", last, texts=False) if a.outcome.state is not State.MERGED]
    return Seen(
        run=str(folder),
        name=config.name,
        state="finished" if over else "running" if at_work else "stopped",
        holder=at_work,
        stage="" if over else stage,
        done=done,
        total=total,
        seconds=found.seconds,
        iterations=found.iterations,
        best=_ended(best[0]) if best else None,
        latest=tuple(map(_ended, ended[: -LATEST - 1 : -1])),
    )


def _ended(attempt: Attempt) -> Ended:
    outcome, score = attempt.outcome, attempt.score
    if score is None:
        return Ended(name_of(attempt), outcome.state.value, outcome.reason)
    low, high = score.interval
    return Ended(name_of(attempt), outcome.state.value, outcome.reason, score.n, score.accuracy, low, high)


def _stage(config: Config, archive: Archive) -> tuple[str, int, int]:
    """What comes next by what the archive holds, how much of it is done, and of how much."""
    last = config.factory.iterations
    for turn in range(1, last + 1):
        if not archive.has("factory", turn):
            return f"iteration {turn}: write", 0, config.factory.programs
        attempts = list(archive.each("factory", turn, texts=False))
        left = archive.unfinished("factory", turn)
        if left:
            new = [a for a in attempts if a.id in left and a.fingerprint is None]
            if new:
                return f"iteration {turn}: gate and probes", len(attempts) - len(new), len(attempts)
            return f"iteration {turn}: run and score", len(attempts) - len(left), len(attempts)
        if turn < last and not archive.has("factory", turn + 1) and not archive.training(turn):
            return f"iteration {turn}: {config.dpo.objective.upper()}", 0, 0
    return _after_the_search(archive)


def _after_the_search(archive: Archive) -> tuple[str, int, int]:
    baselines = len(archive.attempts("baseline"))
    left = len(archive.unfinished("baseline", 0))
    if left or not baselines:
        return "baselines", baselines - left, baselines
    if archive.examined("test"):
        return "test", len(archive.examined("test")), 0
    return "finalist_dev", len(archive.examined("finalist_dev")), 0
