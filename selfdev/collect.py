"""The result of a run from its archive alone: what `--json` prints and what the report shows."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfdev import collapse
from selfdev.besides import warnings, what_changed
from selfdev.config.config import Config, parse_config
from selfdev.cost import cost_of, stage_seconds
from selfdev.errors import SelfdevError
from selfdev.factory import factory
from selfdev.finish import name_of, notes, test_table
from selfdev.lineage import promotions
from selfdev.records import Attempt, Score, State
from selfdev.report.findings import promotion_words
from selfdev.results import IterationStats, Kind, RunResult
from selfdev.store.archive import Archive
from selfdev.store.folder import telling
from selfdev.store.lock import refuse_if_held

MOST_PRINTED = 400  # characters of a failed program's output that the report shows
NO_FAILURE = (State.SCORED, State.MERGED, State.UNSCORED)
UNFINISHED = "This run is not finished: its command, given again, goes on where it stopped."
DEV_IS_TEST = (
    "The dev questions were taken from the test split: the program was chosen on the benchmark itself."
)


def load_result(folder: Path) -> RunResult:
    """The result of a finished run, from its folder."""
    with finished_archive(folder) as archive:
        return collect(folder, archive)


@contextmanager
def finished_archive(folder: Path) -> Iterator[Archive]:
    """The archive of a finished run; SelfdevError where there is none."""
    archive = Archive(folder / "archive.sqlite")
    try:
        with telling(folder):
            yield _finished(folder, archive)
    finally:
        archive.close()


def _finished(folder: Path, archive: Archive) -> Archive:
    if archive.get("best") is None:
        refuse_if_held(folder)
        raise SelfdevError(f"{folder} holds an unfinished run; give its selfdev run command again.")
    return archive


def config_of(folder: Path, archive: Archive) -> Config:
    """The config a run was started with, from its archive."""
    return parse_config(json.loads(archive.get("config") or "{}"), str(folder / "archive.sqlite"))


def collect(folder: Path, archive: Archive) -> RunResult:
    """Everything the report shows, from the archive alone."""
    config = config_of(folder, archive)
    best = archive.get("best")
    rows = test_table(*tested(config, archive, best)) if best else ()
    besides = what_changed(archive, best, [task.title for task in config.besides]) if best else None
    spent = stage_seconds(archive)
    scored = archive.each("factory", only="scored", texts=False)
    winner = next((a.id for a in scored if name_of(a) == best), None) if best else None
    program = archive.attempt(winner) if winner is not None else None
    turns = [t for t in range(1, config.factory.iterations + 1) if archive.has("factory", t)]
    limit = archive.get("budget")
    return RunResult(
        name=config.name,
        config=config.model_dump(mode="json"),
        environment=json.loads(archive.get("environment") or "{}"),
        iterations=tuple(iteration_stats(config, t, archive, spent) for t in turns),
        test=rows,
        seconds=sum(spent.values()),
        stage_seconds=dict(spent),
        best_name=best or "",
        best_program=program.code if program else "",
        best_nearest=program.nearest if program else None,
        best_distance=program.distance if program else None,
        notes=(
            *(notes(rows, best) if best else [UNFINISHED]),
            *(warnings(besides) if besides else []),
            *map(promotion_words, promotions(archive)),
            *([DEV_IS_TEST] if config.task.i_know_dev_is_test else []),
            *([_stopped(config, limit)] if limit else []),
            *_collapses(config, archive, turns),
            *_unscored(archive.each(texts=False)),
        ),
        besides=besides,
        promotions=promotions(archive),
        cost=cost_of(config, archive),
        budget_reached=limit,
    )


def _collapses(config: Config, archive: Archive, turns: Sequence[int]) -> list[str]:
    """A warning for each iteration that wrote the same few behaviours."""
    below, stops = config.factory.collapse_below, config.factory.stop_on_collapse
    written = {turn: list(archive.each("factory", turn, texts=False)) for turn in turns}
    told = (collapse.warning(turn, attempts, below, stops) for turn, attempts in written.items())
    return [warning for warning in told if warning]


def _unscored(attempts: Iterable[Attempt]) -> list[str]:
    count = sum(a.outcome.state is State.UNSCORED for a in attempts)
    words = "programs could not be tried, by faults that were not theirs; they are in no pair"
    return [f"{count:,} {words}."] if count else []


def _stopped(config: Config, limit: str) -> str:
    most = config.budget.model_dump()[limit]
    return (
        f"The search stopped at its budget ({limit}: {most:,}); the final examination, which is not counted,"
        " used what it had found by then."
    )


def iteration_stats(config: Config, iteration: int, archive: Archive, spent: Counter[str]) -> IterationStats:
    """What one turn of the loop gave."""
    attempts = list(archive.each("factory", iteration, texts=False))
    scores = [a.score for a in attempts if a.score is not None]
    accuracies = sorted(score.accuracy for score in scores)
    firsts, common = _first_accuracies(scores)
    merged = {a.fingerprint for a in attempts if a.outcome.state is State.SCORED}
    return IterationStats(
        iteration=iteration,
        temperature=factory.temperature(iteration, config.factory.temperature, config.factory.decay),
        written=len(attempts),
        states=dict(Counter(a.outcome.state.value for a in attempts)),
        unique=len(merged),
        dev_mean=statistics.fmean(firsts) if firsts else None,
        dev_median=statistics.median(firsts) if firsts else None,
        dev_p90=_quantile(accuracies, 0.9) if accuracies else None,
        dev_best=accuracies[-1] if accuracies else None,
        dev_n=config.task.dev,
        dev_common=common,
        seconds=sum(s for name, s in spent.items() if name.startswith(f"iteration {iteration}:")),
        pairs=len(archive.pairs(iteration)),
        dpo=archive.training(iteration),
        failures=_failures(attempts),
        dev_scores=tuple(accuracies),
        printed=_printed(attempts),
        check=archive.check(iteration),
    )


def _first_accuracies(scores: Sequence[Score]) -> tuple[list[float], int]:
    """Accuracies on the questions that all of them were asked, and how many those are.

    Programs that were stopped early have few answers, and were stopped because those were bad: means over
    whole scores would fall as the race's bar rises.
    """
    common = min((score.n for score in scores), default=0)
    return [sum(score.leading[:common]) / common for score in scores], common


def tested(config: Config, archive: Archive, best: str) -> tuple[list[tuple[str, Kind]], Any, Any]:
    test = archive.examined("test")
    # By the config: with several workers the archive's order is that in which they happened to be done.
    rivals = [name for method in config.baselines for name in test if name.startswith(f"{method} ")]
    candidates: list[tuple[str, Kind]] = [("seed", "seed")]
    candidates += [(name, "expert") for name in config.models.experts]
    candidates += [(name, "baseline") for name in rivals]
    if best != "seed":
        candidates.append((best, "discovered"))
    return candidates, test, archive.examined("finalist_dev")


def _failures(attempts: Sequence[Attempt]) -> dict[str, int]:
    """The most frequent reasons why programs got no score, numbers and names taken out."""
    reasons = [a.outcome.reason for a in attempts if a.outcome.state not in NO_FAILURE]
    return dict(Counter(re.sub(r"^line \d+: ", "", reason)[:80] for reason in reasons).most_common(8))


def _printed(attempts: Sequence[Attempt]) -> dict[str, str]:
    """The last lines that the first program of each state of failure printed, if any printed."""
    failed = [a.outcome for a in attempts if a.outcome.state not in NO_FAILURE]
    ends = [(outcome.state, outcome.stderr.strip()) for outcome in failed]
    return {state.value: text[-MOST_PRINTED:] for state, text in reversed(ends) if text}


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
