"""The verb `verify`: is an archive whole, and do its attempts give the same again from their recorded seeds?

Everything stored is checked: SQLite's pages, each program's text against its hash, each program against what
the gate makes of that text, each trained factory and the best model against the hash of their weights. Then a
sample of attempts is run and scored again; what differs is named.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfdev.checkpoints import open_checkpoint
from selfdev.collect import config_of
from selfdev.config.config import Config
from selfdev.errors import SelfdevError
from selfdev.finish import name_of
from selfdev.gate import gate
from selfdev.loop import bar_before
from selfdev.progress import Bars
from selfdev.records import Attempt, Score, State
from selfdev.run import Models, check_confinement, open_models, staffed
from selfdev.store import hashes
from selfdev.store.archive import Archive
from selfdev.workers.workers import Probed, Tried, Workers

REPEATABLE = ("factory", "baseline", "search")  # the bar that their race had can be told from the archive
NO_RESULT = (State.MERGED, State.UNSCORED)  # has not ended yet, or by a fault of ours


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether all is as recorded, in one sentence and by each difference; `sampled` are the ids run again."""

    ok: bool
    sentence: str
    run: str
    attempts: int
    sampled: tuple[int, ...]
    differences: tuple[str, ...]


def verify_run(folder: Path, sample: int = 20) -> Verified:
    """Check a run folder, finished or not, and run `sample` of its attempts again."""
    archive = Archive(folder / "archive.sqlite")
    try:
        broken = archive.integrity()
        if broken:
            return _told(folder, 0, (), broken)
        return _verify(folder, archive, sample)
    finally:
        archive.close()


def _verify(folder: Path, archive: Archive, sample: int) -> Verified:
    if archive.get("config") is None:
        raise SelfdevError(f"{folder} holds no attempt yet; give its selfdev run command first.")
    config, attempts = config_of(folder, archive), archive.attempts()
    check_confinement(config)
    models = open_models(config)
    found = [*wrong_texts(archive, attempts), *wrong_weights(folder, archive, models)]
    chosen = sampled(config, attempts, sample)
    if chosen:
        with staffed(config, models) as (_, workers):
            found += run_again(config, archive, chosen, workers, Bars(lambda *_: None))
    return _told(folder, len(attempts), tuple(a.id for a in chosen), found)


def _told(folder: Path, attempts: int, chosen: tuple[int, ...], found: Sequence[str]) -> Verified:
    counts = f"{attempts:,} attempts checked, {len(chosen):,} of them run again"
    if found:
        more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
        sentence = f"{folder} is not as recorded: {found[0]}{more} ({counts})."
    else:
        sentence = f"{folder} is as recorded: {counts}."
    return Verified(not found, sentence, str(folder), attempts, chosen, tuple(found))


def sampled(config: Config, attempts: Sequence[Attempt], count: int) -> list[Attempt]:
    """Attempts to run again, the same ones each time, in their order."""
    ended = [a for a in attempts if a.kind in REPEATABLE and a.outcome.state not in NO_RESULT]
    rng = random.Random(f"verify {config.seed}")
    return sorted(rng.sample(ended, min(count, len(ended))), key=lambda a: a.id)


def wrong_texts(archive: Archive, attempts: Sequence[Attempt]) -> Iterator[str]:
    """Programs whose text is not the one that was written, or whose code the gate does not make of it."""
    written = archive.text_hashes()
    for attempt in attempts:
        if hashes.of_text(attempt.text) != written[attempt.id]:
            yield f"{_name(attempt)}: its text does not have the hash it was written with"
        elif attempt.code and attempt.code != _gated(attempt.text):
            yield f"{_name(attempt)}: its code is not what the gate makes of its text"


def _gated(text: str) -> str:
    try:
        return gate.check(text).code
    except gate.Rejected:
        return ""


def wrong_weights(folder: Path, archive: Archive, models: Models) -> Iterator[str]:
    """Trained factories and the best model whose weights do not have their recorded hash."""
    for iteration, recorded in archive.factories().items():
        place = folder / "factory" / f"iteration_{iteration}"
        if hashes.of_weights(place) != recorded:
            yield f"{place}: its weights do not have the hash they were trained with"
    best = archive.get("best")
    attempt = next((a for a in archive.attempts() if name_of(a) == best), None)
    if attempt is not None:
        model = open_checkpoint(folder / "best" / "model", "best")
        names = [slot.name for slot in models.shown[0].slots]
        if hashes.of_merged(model, names) != attempt.outcome.weights_hash:
            yield f"{model.path}: its weights are not those that {best} was scored with"


def run_again(
    config: Config, archive: Archive, chosen: Sequence[Attempt], workers: Workers, bars: Bars
) -> list[str]:
    """What differs when these attempts take the road again, from their texts and seeds."""
    probes = workers.probe([(a.text, a.seed) for a in chosen])
    probed = dict(bars(probes, "gate and probes again", len(chosen)))
    found = [line for place, a in enumerate(chosen) for line in _probed_differently(a, probed[place])]
    # A score that was reused belongs to the first program of that behaviour, and was made from its seed.
    sources = {a.same_as or a.id: a for a in chosen if a.fingerprint is not None}
    origins = [archive.attempt(ident) for ident in sources]
    for iteration in sorted({a.iteration for a in origins}):
        same = [a for a in origins if a.iteration == iteration]
        bar = bar_before(config, iteration, archive)  # none before iteration 1, where baselines are too
        results = workers.try_programs([(a.code, a.seed, "dev") for a in same], bar)
        for place, tried in bars(results, f"iteration {iteration}: run and score again", len(same)):
            found += _tried_differently(same[place], tried)
    return found


def _probed_differently(attempt: Attempt, again: Probed) -> Iterator[str]:
    if attempt.fingerprint != again.fingerprint:
        yield from _differ(attempt, "fingerprint", attempt.fingerprint, again.fingerprint)
    elif attempt.fingerprint is None and attempt.outcome.state is not again.outcome.state:
        yield from _differ(attempt, "state", attempt.outcome.state, again.outcome.state)


def _tried_differently(attempt: Attempt, again: Tried) -> Iterator[str]:
    state = State.SCORED if again.score is not None else again.outcome.state
    pairs = {
        "state": (attempt.outcome.state, state),
        "weights hash": (attempt.outcome.weights_hash, again.outcome.weights_hash),
        "score": (_score(attempt.score), _score(again.score)),
    }
    for what, (recorded, now) in pairs.items():
        if recorded != now:
            yield from _differ(attempt, what, recorded, now)
    if pairs["score"][0] == pairs["score"][1] and attempt.score != again.score:
        yield f"{_name(attempt)}: as many right answers, to other questions"


def _differ(attempt: Attempt, what: str, recorded: object, now: object) -> Iterator[str]:
    yield f"{_name(attempt)}: {what} {recorded or 'none'} is recorded, {now or 'none'} came again"


def _score(score: Score | None) -> str | None:
    return None if score is None else f"{sum(score.strict)}/{sum(score.flexible)} of {score.n}"


def _name(attempt: Attempt) -> str:
    return f"attempt {attempt.id} ({attempt.name or name_of(attempt)})"
