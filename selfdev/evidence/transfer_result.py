"""What a transfer found: the records that `--json` prints, made from its archive."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfdev.collect import DEV_IS_TEST
from selfdev.config.config import Config
from selfdev.finish import notes, test_table, tuned
from selfdev.records import Attempt, Score, State
from selfdev.report.findings import Gain, Verdict, best_of, detail_of, gain, headline_of, verdict_of
from selfdev.results import Kind, TestRow
from selfdev.stats import Correlation, mcnemar, paired_difference, spearman
from selfdev.store.archive import Archive

SENT: tuple[Kind, ...] = ("home baseline", "discovered")  # what comes from home, unchanged

ONE_CHOICE = (
    "Only the home winner was chosen without these questions; the best of the other finalists would be a"
    " choice made on the test set."
)


@dataclass(frozen=True, slots=True)
class Failed:
    """A program that made no model away, and why."""

    name: str
    kind: Kind
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What the home winner shows away, in words, and the comparisons behind it (None: not tested)."""

    verdict: Verdict
    headline: str
    detail: str
    over_baseline: Gain | None  # the best one tuned again away
    over_home_baseline: Gain | None  # the best one as tuned at home
    over_seed: Gain | None


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A transfer. `test` is the table on the away test set: kind `baseline` was tuned again away, with
    `parameter_sets` tries; `home baseline` and `discovered` came unchanged, and their dev columns are the
    home finalist_dev. `correlation` is over the finalists, home finalist_dev against away test."""

    run: str
    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    best_name: str
    test: tuple[TestRow, ...]
    failed: tuple[Failed, ...]
    claim: Claim
    correlation: Correlation | None
    parameter_sets: int
    notes: tuple[str, ...]
    seconds: float


def collect_transfer(
    config: Config, run: Path, best: str, dev: Mapping[str, Score], archive: Archive
) -> TransferResult:
    """The result from the away archive, the name of the home winner and the scores on home finalist_dev."""
    candidates: list[tuple[str, Kind]] = [("seed", "seed")]
    candidates += [(name, "expert") for name in config.models.experts]
    for kind in ("baseline", *SENT):
        candidates += [(attempt.name, kind) for attempt in archive.attempts(kind, 0)]
    tested = archive.examined("test")
    rows = test_table(candidates, tested, {**archive.examined("finalist_dev"), **dev})
    failed = failures(archive)
    found = [row for row in rows if row.kind == "discovered"]
    rng = random.Random(f"transfer {config.seed}")
    said = notes(rows, best) if any(row.name == best for row in rows) else []
    said += [ONE_CHOICE] if len(found) > 1 else []
    said += [DEV_IS_TEST] if config.task.i_know_dev_is_test else []
    return TransferResult(
        run=str(run),
        name=config.name,
        config=config.model_dump(mode="json"),
        environment=json.loads(archive.get("environment") or "{}"),
        best_name=best,
        test=rows,
        failed=failed,
        claim=claim_of(rows, tested, failed, best),
        correlation=spearman([row.dev_accuracy or 0.0 for row in found], [r.accuracy for r in found], rng),
        parameter_sets=len(archive.attempts("baseline", 0)),
        notes=tuple(said),
        seconds=sum(stage["seconds"] for stage in archive.events("stage")),
    )


def failures(archive: Archive) -> tuple[Failed, ...]:
    """What came from home and made no model, and the methods none of whose parameter sets did."""
    worked = {attempt.name.split()[0] for attempt in tuned(archive)}
    sets = [a for a in archive.attempts("baseline", 0) if a.name.split()[0] not in worked]
    failed: list[tuple[Kind, Attempt]] = [("baseline", a) for a in sets]
    failed += [(kind, a) for kind in SENT for a in archive.attempts(kind, 0) if a.score is None]
    return tuple(Failed(a.name, kind, a.outcome.state, a.outcome.reason) for kind, a in failed)


def claim_of(
    rows: tuple[TestRow, ...], tested: Mapping[str, Score], failed: tuple[Failed, ...], best: str
) -> Claim:
    """Whether the home winner beats the best re-tuned baseline, the best home-tuned one and the seed."""
    row = next((row for row in rows if row.name == best), None)
    if row is None:
        why = "; ".join(f"{f.state}: {f.reason}" for f in failed if f.name == best) or "it was not tested"
        return Claim("empty", f"The home winner, {best}, made no model away.", f"{why}.", None, None, None)
    rivals: tuple[tuple[Kind, str], ...] = (
        ("baseline", "the best re-tuned baseline"),
        ("home baseline", "the best home-tuned baseline"),
        ("seed", "the seed"),
    )
    over = [_over(row, best_of(rows, kind), words, tested) for kind, words in rivals]
    gains = [g for g in over if g]
    headline = headline_of(gains[:1], f"The home winner, {best},")
    return Claim(verdict_of(gains), headline, detail_of(row, gains), *over)


def _over(row: TestRow, rival: TestRow | None, words: str, tested: Mapping[str, Score]) -> Gain | None:
    if rival is None:
        return None
    both = tested[row.name].leading, tested[rival.name].leading
    return gain(words, row, rival, mcnemar(*both), paired_difference(*both))
