"""The end of a run: finalists on fresh dev questions, then the test set, opened once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selfdev.besides import split_of
from selfdev.checkpoints import Checkpoint
from selfdev.config.settings import Config, TaskBesides
from selfdev.gate import gate
from selfdev.library import load_program
from selfdev.lineage import Parents, promotions
from selfdev.loop import Progress, try_attempts
from selfdev.records import Attempt, Score, best_first, fully_scored
from selfdev.report.findings import SIGNIFICANT
from selfdev.results import Kind, TestRow
from selfdev.stats import mcnemar, paired_difference
from selfdev.store.archive import Archive
from selfdev.tasks.questions import ExamName
from selfdev.workers.workers import Subject, Workers

RIVALS = 5  # parameter sets of baselines that are looked at again on fresh dev questions


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that is examined: a program (`attempt`) or a whole model (`checkpoint`)."""

    name: str
    kind: Kind
    attempt: Attempt | None = None
    checkpoint: Checkpoint | None = None
    parents: Parents | None = None  # what the program merges; None: the models of the config


def tune_baselines(config: Config, archive: Archive, workers: Workers, progress: Progress) -> None:
    """Try every parameter set of every human-designed method on dev, on the road all programs take."""
    if not archive.has("baseline", 0):
        names, texts = [], []
        for name, grid in config.baselines.items():
            for values in grid:
                shown = [f"{key}={value}" for key, value in values.items()] or ["as it is"]
                names.append(" ".join([name, *shown]))
                texts.append(load_program(name, values).code)
        archive.add_written("baseline", 0, names, texts, [config.seed] * len(texts))
    try_attempts("baseline", 0, archive, workers, progress)


def tuned(archive: Archive) -> list[Attempt]:
    """The best parameter set of each human-designed method: by fresh dev questions where there are."""
    fresh = archive.examined("finalist_dev")
    ranked = best_first(fully_scored(archive.attempts("baseline", 0)))
    asked = sorted((a for a in ranked if a.name in fresh), key=lambda a: -fresh[a.name].accuracy)
    best: dict[str, Attempt] = {}
    for attempt in [*asked, *ranked]:
        best.setdefault(attempt.name.split()[0], attempt)
    return list(best.values())


def finalists(archive: Archive, count: int, kind: str = "factory") -> list[Attempt]:
    """The best programs of a kind by dev and those that were promoted, one per behaviour; copies of a model
    or a baseline are none."""
    known = {attempt.fingerprint for attempt in archive.attempts("baseline", 0)}
    found: dict[str, Attempt] = {}
    for attempt in best_first(fully_scored(list(archive.each(kind, only="scored")))):
        if attempt.outcome.copy_of is None and attempt.fingerprint and attempt.fingerprint not in known:
            found.setdefault(attempt.fingerprint, attempt)
    ranked, promoted = list(found.values()), {p.program for p in promotions(archive) if p.promoted}
    return ranked[:count] + [a for a in ranked[count:] if name_of(a) in promoted]  # asked already


def name_of(attempt: Attempt) -> str:
    """What a program that was found is called: its search (the loop has no name), iteration and place."""
    search = "program" if attempt.kind == "factory" else attempt.kind
    return f"{search} {attempt.iteration}.{attempt.index}"


def leaders(archive: Archive) -> list[Candidate]:
    """The parameter sets of baselines that lead on dev: winners of a noisy dev set like the best programs,
    so that they get the same second look."""
    ahead = best_first(fully_scored(archive.attempts("baseline", 0)))[:RIVALS]
    return [Candidate(a.name, "baseline", attempt=a) for a in ahead]


def final_examination(
    config: Config, seed: Checkpoint, experts: Sequence[Checkpoint], archive: Archive, workers: Workers,
    progress: Progress, kind: str = "factory", parents: Callable[[int], Parents | None] = lambda _: None,
) -> Candidate:  # fmt: skip
    """Choose the best program of a kind on fresh dev questions, then open the test set once; returns it.

    A program merges the `parents` of its iteration.
    """
    ahead = finalists(archive, config.finalists, kind)
    chosen = [Candidate(name_of(a), "discovered", attempt=a, parents=parents(a.iteration)) for a in ahead]
    own = Candidate("seed", "seed", checkpoint=seed)
    examine([own, *leaders(archive), *chosen], "finalist_dev", archive, workers, progress)
    fresh = archive.examined("finalist_dev")
    rivals = [Candidate(a.name, "baseline", attempt=a) for a in tuned(archive)]
    best = max(chosen, key=lambda c: fresh[c.name].accuracy, default=own)
    others = [Candidate(e.name, "expert", checkpoint=e) for e in experts]
    asked = [own, *others, *rivals, *([best] if best.kind == "discovered" else [])]
    if not archive.events("test opened"):
        archive.log("test opened", for_=[candidate.name for candidate in asked])
    examine(asked, "test", archive, workers, progress)
    for task in config.besides if best is not own else ():
        examine([own, best], task, archive, workers, progress)
    return best


def examine(
    candidates: Sequence[Candidate], exam: ExamName | TaskBesides, archive: Archive, workers: Workers,
    progress: Progress,
) -> None:  # fmt: skip
    """Score candidates on finalist_dev, test or a task besides, those that are not in the archive yet."""
    split = exam if isinstance(exam, str) else split_of(exam.title)
    done = archive.examined(split)
    missing = [c for c in candidates if c.name not in done]
    results = workers.examine([(_subject(candidate), exam) for candidate in missing])
    for place, tried in progress(results, split, len(missing)):
        candidate = missing[place]
        if tried.score is None:
            raise RuntimeError(f"{candidate.name} merged before and now ends in {tried.outcome.state}")
        if tried.replies is not None:
            archive.add_replies(candidate.name, split, tried.replies)
        ident = candidate.attempt.id if candidate.attempt else None
        archive.add_examined(candidate.name, candidate.kind, split, ident, tried.score)


def _subject(candidate: Candidate) -> Subject:
    if candidate.checkpoint is not None:
        return candidate.checkpoint
    assert candidate.attempt is not None
    return candidate.attempt.code, candidate.attempt.seed, candidate.parents


def test_table(
    candidates: Sequence[tuple[str, Kind]], test: Mapping[str, Score], dev: Mapping[str, Score]
) -> tuple[TestRow, ...]:
    """The rows of the final table, with exact paired p-values against seed and best baseline on test."""
    asked = [(name, kind) for name, kind in candidates if name in test]
    rivals = [name for name, kind in asked if kind == "baseline"]
    rival = max(rivals, key=lambda name: test[name].accuracy, default=None)
    seed = next(name for name, kind in asked if kind == "seed")
    rows = []
    for name, kind in asked:
        score = test[name]
        low, high = score.interval
        other = test[rival] if rival and name != rival else None
        start = test[seed] if name != seed else None
        rows.append(
            TestRow(
                name, kind, score.n, score.correct, score.accuracy, low, high, score.flexible_accuracy,
                dev[name].n if name in dev else None,
                dev[name].accuracy if name in dev else None,
                mcnemar(score.leading, other.leading) if other else None,
                mcnemar(score.leading, start.leading) if start else None,
                score.strict_accuracy, score.lead,
                paired_difference(score.leading, other.leading) if other else None,
                paired_difference(score.leading, start.leading) if start else None,
            )
        )  # fmt: skip
    return tuple(rows)


def notes(rows: Sequence[TestRow], best: str) -> list[str]:
    """Sentences a reader must not miss: no gain, best equals seed, a format-only gain."""
    found = next((row for row in rows if row.name == best), None)
    seed = next(row for row in rows if row.kind == "seed")
    if found is None or found.kind == "seed":
        return ["No program beat or even joined the seed: the best model is the seed itself."]
    said = []
    if found.p_vs_seed is not None and (found.p_vs_seed >= SIGNIFICANT or found.accuracy <= seed.accuracy):
        said.append("No gain over the seed: the difference on test is inside its uncertainty.")
    if found.p_vs_best_baseline is not None and found.p_vs_best_baseline >= SIGNIFICANT:
        said.append("No gain over the best tuned baseline: the difference on test is inside its uncertainty.")
    strict, flexible = found.accuracy - seed.accuracy, found.flexible_accuracy - seed.flexible_accuracy
    if strict > 0 and flexible < strict / 2:
        said.append("At least half of the gain is in the answer's format: flexible extraction shows less.")
    return said


def check_programs(config: Config) -> None:
    """Raise before anything slow when a baseline's parameters do not fit it."""
    for name, grid in config.baselines.items():
        for values in grid:
            try:
                load_program(name, values)
            except gate.Rejected as refusal:
                raise ValueError(f"baseline {name} {values}: {refusal}") from refusal
