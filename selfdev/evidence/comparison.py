"""What `compare` found: the run's own search beside its controls, from two archives alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfdev.config.config import Config
from selfdev.evidence.controls import cost, spending
from selfdev.evidence.learning import Fresh, Learned
from selfdev.finish import finalists, name_of
from selfdev.records import Attempt, Score, fully_scored
from selfdev.report import findings
from selfdev.stats import holm, mcnemar
from selfdev.store.archive import Archive

QUARTERS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Examined:
    """A program on the run's test questions; low and high are its Wilson 95 % bounds."""

    name: str
    dev_accuracy: float
    n: int
    accuracy: float
    low: float
    high: float
    flexible_accuracy: float


@dataclass(frozen=True, slots=True)
class Searched:
    """One search: `curve` has (budget spent, best on dev so far), `quarters` the programs that led on dev
    after each quarter of the budget (None: none yet), `chosen` the best by the second look. `p` is the
    exact paired test of `chosen` against the discovered program, `p_holm` the same over all controls."""

    control: str
    repeat: int
    spent: float
    tried: int
    scored: int
    distinct: int
    curve: tuple[tuple[float, float], ...]
    quarters: tuple[Examined | None, ...]
    chosen: Examined | None
    p: float | None = None
    p_holm: float | None = None

    @property
    def title(self) -> str:
        """The control's name, with the repeat where it is not the first."""
        return kind_of(self.control, self.repeat)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run's search and its controls', at `budget` full-score equivalents of `dev` questions each; `fresh`
    and `learned` are what trained and untrained factories write at equal temperature (`learning.py`),
    `lessons` what other objectives and pair rules make of the same programs (`lessons.py`)."""

    run: str
    budget: float
    dev: int
    discovered: Searched
    controls: tuple[Searched, ...]
    notes: tuple[str, ...]
    fresh: tuple[Fresh, ...] = ()
    learned: tuple[Learned, ...] = ()
    lessons: tuple[Fresh, ...] = ()


def kind_of(control: str, repeat: int) -> str:
    """Under which kind a control's attempts stand in the archive."""
    return control if repeat == 0 else f"{control}, repeat {repeat + 1}"


def chosen(config: Config, archive: Archive, kind: str) -> Attempt | None:
    """The best of a kind's finalists on fresh dev questions."""
    fresh = archive.examined("finalist_dev")
    looked = finalists(archive, config.finalists, kind)
    return max(looked, key=lambda a: fresh[name_of(a)].accuracy, default=None)


def leaders(attempts: Sequence[Attempt], dev: int) -> list[Attempt | None]:
    """Who led on dev after each quarter of what these attempts took."""
    whole, able = cost(attempts, dev), _able(attempts)
    found: list[Attempt | None] = []
    for share in QUARTERS:
        within = [a for a, spent in spending(attempts, dev) if a.id in able and spent <= share * whole + 1e-9]
        found.append(max(within, key=lambda a: (able[a.id], -a.id), default=None))
    return found


def _able(attempts: Sequence[Attempt]) -> dict[int, float]:
    """Accuracy of each attempt that could be chosen, by its id."""
    return {a.id: a.score.accuracy for a in fully_scored(attempts) if a.score and a.outcome.copy_of is None}


def gather(
    config: Config, folder: Path, run: Archive, archive: Archive, names: Sequence[str], repeats: int
) -> Comparison:
    """The result, from the two archives alone."""
    dev = config.task.dev
    found = run.attempts("factory")
    best = next((a for a in found if name_of(a) == run.get("best")), None)
    asked = run.examined("test") | archive.examined("test")
    discovered = _searched("discovered", 0, found, dev, best, asked)
    reference = asked.get(run.get("best") or "")
    rows = []
    for name in names:
        for repeat in range(repeats):
            kind = kind_of(name, repeat)
            pick = chosen(config, archive, kind)
            rows.append(_searched(name, repeat, archive.attempts(kind), dev, pick, asked))
    tested = [_tested_against(row, reference, asked) for row in rows]
    p_values = [row.p for row in tested if row.p is not None]
    adjusted = iter(holm(p_values))
    controls = tuple(row if row.p is None else replace(row, p_holm=next(adjusted)) for row in tested)
    spent = cost(found, dev)
    return Comparison(str(folder), spent, dev, discovered, controls, tuple(notes(discovered, controls)))


def _searched(
    control: str, repeat: int, attempts: Sequence[Attempt], dev: int, pick: Attempt | None,
    asked: Mapping[str, Score],
) -> Searched:  # fmt: skip
    quarters = [_tested(leader, asked) for leader in leaders(attempts, dev)]
    scored = [a for a in attempts if a.score is not None]
    return Searched(
        control, repeat, cost(attempts, dev), len(attempts), len(scored),
        len({a.fingerprint for a in scored}), tuple(_curve(attempts, dev)), tuple(quarters),
        _tested(pick, asked),
    )  # fmt: skip


def _tested(attempt: Attempt | None, asked: Mapping[str, Score]) -> Examined | None:
    if attempt is None or attempt.score is None:
        return None
    name = name_of(attempt)
    score, (low, high) = asked[name], asked[name].interval
    return Examined(name, attempt.score.accuracy, score.n, score.accuracy, low, high, score.flexible_accuracy)


def _tested_against(row: Searched, reference: Score | None, asked: Mapping[str, Score]) -> Searched:
    if row.chosen is None or reference is None:
        return row
    return replace(row, p=mcnemar(reference.leading, asked[row.chosen.name].leading))


def _curve(attempts: Sequence[Attempt], dev: int) -> Iterator[tuple[float, float]]:
    """Budget spent and best accuracy on dev, at every improvement and at the end."""
    able, best, last = _able(attempts), 0.0, 0.0
    for attempt, spent in spending(attempts, dev):
        if able.get(attempt.id, 0.0) > best:
            best = able[attempt.id]
            yield spent, best
        last = spent
    yield last, best


def notes(discovered: Searched, controls: Sequence[Searched]) -> list[str]:
    """One sentence for each control; a gain only where Holm's p is below 5 %."""
    names = dict.fromkeys(row.control for row in controls)
    return [
        _verdict(discovered.chosen, name, [row for row in controls if row.control == name]) for name in names
    ]


def _verdict(found: Examined | None, control: str, rows: Sequence[Searched]) -> str:
    tested = [row.chosen for row in rows if row.chosen is not None]
    if found is None:
        return f"No program was discovered, so there is nothing to set beside {control}."
    if len(tested) < len(rows):
        return f"{control}: nothing could be chosen in {len(rows) - len(tested)} of {len(rows)} searches."
    mean = statistics.fmean(one.accuracy for one in tested)
    difference = found.accuracy - mean
    worst = max(row.p_holm if row.p_holm is not None else 1.0 for row in rows)
    words = f"{control}: {findings.percent(mean)} on test, discovered {findings.points(difference)} points"
    tail = f"(Holm's p {findings.p_value(worst)}, n = {found.n:,})"
    if worst >= findings.SIGNIFICANT:
        return f"No gain over {words} {tail}."
    return f"{'Beats' if difference > 0 else 'Stays below'} {words} {tail}."
