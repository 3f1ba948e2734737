"""What DPO taught the factory, apart from the temperature: fresh programs at the same one, trained and not.

From iteration to iteration a run's temperature falls, so that its programs would get better without any
learning. Here each iteration's factory and the untrained one write new programs at that iteration's
temperature, and every program is asked all dev questions. The random numbers are those of no run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selfdev.budget import Budget
from selfdev.collapse import HUNDRED, distinct_in
from selfdev.config.config import Config
from selfdev.config.settings import Budget as Limits
from selfdev.factory import factory
from selfdev.loop import Progress, factory_of, scored, try_attempts, write_programs
from selfdev.progress import Bars
from selfdev.records import Attempt
from selfdev.report.findings import points
from selfdev.run import staffed
from selfdev.stats import wilson
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.workers.workers import Workers

Who = Literal["untrained", "trained"]
SEED = 1_000_003  # added to a run's seed
RESAMPLES = 2000
HEAD = ("factory", "T", "programs", "yield", "mean on dev", "top decile", "distinct per 100")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % bounds, from n observations; None where there are none."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """Programs of one factory at one temperature.

    `yield_` is the share that reached a score (Wilson); `distinct` counts behaviours among any 100 programs;
    mean and top decile are dev accuracies of scored programs (0..1, percentile bootstrap over programs).
    """

    iteration: int
    factory: str  # untrained, trained, or what a lesson changes (`lessons.py`)
    temperature: float
    written: int
    questions: int
    yield_: Estimate
    distinct: Estimate
    mean: Estimate
    top_decile: Estimate


@dataclass(frozen=True, slots=True)
class Learned:
    """Trained less untrained at one iteration's temperature: bootstrap over programs, 95 %."""

    iteration: int
    temperature: float
    yield_: Estimate
    mean: Estimate
    top_decile: Estimate


def learn(
    config: Config, run: Path, out: Path, programs: int
) -> tuple[tuple[Fresh, ...], tuple[Learned, ...]]:
    """Write, score and measure fresh programs for the run in `run`; `out` holds them and is gone on with."""
    own, target = fresh_config(config, programs), out / f"{programs} programs"
    with staffed(own) as (models, workers):
        write_fresh(own, run, target, models.factory, workers, Bars(lambda *_: None))
    return measured(own, target)


def fresh_config(config: Config, programs: int) -> Config:
    """A run's config for fresh programs: other random numbers, and no program is stopped early."""
    writes = config.factory.model_copy(update={"programs": programs})
    asks = config.task.model_copy(update={"first_block": 0})
    return config.model_copy(update={"seed": config.seed + SEED, "factory": writes, "task": asks})


def write_fresh(
    config: Config, run: Path, out: Path, untrained: Path, workers: Workers, progress: Progress
) -> None:
    """Write and score fresh programs of every factory of a run; `config` is that of `fresh_config`.

    `out` gets an archive per factory, and what is there is gone on with.
    """
    for who in ("untrained", "trained"):
        with open_archive(out / who) as archive:
            for iteration in range(1, config.factory.iterations + 1):
                writer = factory_of(iteration, untrained, run / "factory")
                if who == "trained" and writer == untrained:
                    continue
                writer = writer if who == "trained" else untrained
                write_and_try(config, iteration, writer, archive, workers, named(progress, f"fresh, {who}"))


def write_and_try(
    config: Config, iteration: int, writer: Path, archive: Archive, workers: Workers, progress: Progress
) -> None:
    """Let a factory write at an iteration's temperature and ask every program all dev questions."""
    write_programs(config, iteration, writer, archive, workers, progress, Budget(Limits(), archive))
    try_attempts("factory", iteration, archive, workers, progress)


def measured(config: Config, out: Path) -> tuple[tuple[Fresh, ...], tuple[Learned, ...]]:
    """What fresh programs gave, and what the trained ones gave more, from the archives of `write_fresh`."""
    found: dict[tuple[int, Who], list[Attempt]] = {}
    whos: tuple[Who, ...] = ("untrained", "trained")
    for who in whos:
        with closing(Archive(out / who / "archive.sqlite")) as archive:
            for iteration in range(1, config.factory.iterations + 1):
                attempts = archive.attempts("factory", iteration)
                if attempts:
                    found[iteration, who] = attempts
    rows = [fresh_of(config, iteration, who, found[iteration, who]) for iteration, who in sorted(found)]
    pairs = [(t, found[t, "trained"], found[t, "untrained"]) for t, who in sorted(found) if who == "trained"]
    return tuple(rows), tuple(learned_of(config, t, after, before) for t, after, before in pairs)


def lesson(learned: Learned, writer: str = "Factory") -> str:
    """What training changed at one temperature, in a sentence; inside its interval nothing is claimed."""
    parts = [
        _change("yield", learned.yield_),
        _change("mean on dev", learned.mean),
        _change("top decile", learned.top_decile),
    ]
    where = f"{writer} of iteration {learned.iteration} at temperature {learned.temperature:.2f}"
    return f"{where}, trained less untrained: {', '.join(parts)}."


def table_of(rows: Sequence[Fresh]) -> list[tuple[str, ...]]:
    """One row of words per factory and temperature, under `HEAD`."""
    return [
        (
            f"iteration {row.iteration}, {row.factory}",
            f"{row.temperature:.2f}",
            f"{row.written:,}",
            *map(_share, (row.yield_, row.mean, row.top_decile)),
            _bounded(row.distinct, "{:.0f}"),
        )
        for row in rows
    ]


def _change(name: str, found: Estimate) -> str:
    if found.value is None or found.low is None or found.high is None:
        return f"{name} not known"
    interval = f"{points(found.low)} to {points(found.high)}, n = {found.n:,}"
    if found.low <= 0 <= found.high:
        return f"{name} no measurable change ({points(found.value)} points, {interval})"
    return f"{name} {points(found.value)} points ({interval})"


def _share(found: Estimate) -> str:
    return _bounded(found, "{:.1%}").replace("%", " %")


def _bounded(found: Estimate, form: str) -> str:
    """A value with its bounds, as "0.5 [0.4, 0.6]"."""
    if found.value is None:
        return "–"
    value = form.format(found.value)
    if found.low is None or found.high is None:
        return value
    return f"{value} [{form.format(found.low)}, {form.format(found.high)}]"


def fresh_of(config: Config, iteration: int, who: str, attempts: Sequence[Attempt]) -> Fresh:
    """What programs written at an iteration's temperature gave."""
    accuracies = _accuracies(attempts)
    low, high = wilson(len(accuracies), len(attempts))
    temperature = factory.temperature(iteration, config.factory.temperature, config.factory.decay)
    return Fresh(
        iteration, who, temperature, len(attempts), config.task.dev,
        Estimate(len(accuracies) / len(attempts), low, high, len(attempts)),
        _distinct(attempts),
        _bootstrapped(np.mean, accuracies),
        _bootstrapped(_top_decile, accuracies),
    )  # fmt: skip


def learned_of(
    config: Config, iteration: int, after: Sequence[Attempt], before: Sequence[Attempt]
) -> Learned:
    """What programs written after training gave more than those before."""
    temperature = factory.temperature(iteration, config.factory.temperature, config.factory.decay)
    ended = [np.array([a.score is not None for a in side], dtype=float) for side in (after, before)]
    accuracies = [_accuracies(side) for side in (after, before)]
    return Learned(
        iteration, temperature,
        _bootstrapped(_difference(np.mean), *ended),
        _bootstrapped(_difference(np.mean), *accuracies),
        _bootstrapped(_difference(_top_decile), *accuracies),
    )  # fmt: skip


def _accuracies(attempts: Sequence[Attempt]) -> np.ndarray:
    return np.array([a.score.accuracy for a in scored(attempts) if a.score is not None])


def _distinct(attempts: Sequence[Attempt]) -> Estimate:
    """Distinct behaviours per 100 programs; bounds are the middle 95 % of random hundreds among them."""
    marks = np.array([a.fingerprint if a.score is not None else "" for a in attempts])
    _, counts = np.unique(marks[marks != ""], return_counts=True)
    drawn = min(HUNDRED, len(marks))
    rng = np.random.default_rng(0)
    hundreds = [
        len(set(rng.choice(marks, drawn, replace=False).tolist()) - {""}) for _ in range(RESAMPLES // 10)
    ]
    low, high = np.quantile(hundreds, (0.025, 0.975))
    scale = HUNDRED / drawn
    value = distinct_in(counts.tolist(), len(marks), drawn)
    return Estimate(value * scale, float(low) * scale, float(high) * scale, len(marks))


def _top_decile(values: np.ndarray, axis: int = -1) -> np.ndarray:
    found: np.ndarray = np.quantile(values, 0.9, axis=axis)
    return found


def _difference(statistic: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def difference(after: np.ndarray, before: np.ndarray, axis: int = -1) -> np.ndarray:
        found: np.ndarray = statistic(after, axis=axis) - statistic(before, axis=axis)
        return found

    return difference


def _bootstrapped(statistic: Callable[..., np.ndarray], *samples: np.ndarray) -> Estimate:
    """A statistic of one or two independent samples with its percentile bootstrap interval (Efron 1979)."""
    from scipy.stats import bootstrap  # heavy; not needed by most commands

    least, n = min(map(len, samples)), sum(map(len, samples))
    if least == 0:
        return Estimate(None, None, None, n)
    value = float(statistic(*samples))
    if least == 1:
        return Estimate(value, None, None, n)
    found = bootstrap(
        samples, statistic, n_resamples=RESAMPLES, method="percentile", vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Estimate(value, float(found.low), float(found.high), n)


def named(progress: Progress, who: str) -> Progress:
    """The same progress, with the factory's name before each stage."""

    def shown(results: object, stage: str, total: int) -> object:
        return progress(results, f"{who}, {stage}", total)  # type: ignore[arg-type]

    return shown  # type: ignore[return-value]
