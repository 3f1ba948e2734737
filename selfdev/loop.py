"""The Self-Developing loop (arXiv 2410.15639, section 3), as straight as the paper tells it.

    for t = 1 .. T:   write N programs at temperature T_t  ->  try each on the models, score it on dev
                      ->  make preference pairs  ->  DPO gives the next factory

The outside world enters as arguments: workers write, run and score; the archive remembers; `train` is DPO.
Every step looks in the archive first, so running the loop again goes on exactly where it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from selfdev.budget import Budget
from selfdev.collapse import collapsed
from selfdev.config.settings import Config
from selfdev.factory import factory
from selfdev.factory.lessons import lessons_of, teaches
from selfdev.factory.preferences import make_pairs
from selfdev.lineage import Parents
from selfdev.race import bar_of
from selfdev.records import Attempt, Lessons, State
from selfdev.results import Trained
from selfdev.store.archive import Archive
from selfdev.store.hashes import of_weights
from selfdev.workers.devices import in_use
from selfdev.workers.workers import Workers

T = TypeVar("T")
Within = Callable[[Iterable[Any]], Iterator[Any]]  # jobs, as long as there is something to spend
Train = Callable[[Path, Path, Lessons, int], Trained]  # start, out, lessons, seed


class Progress(Protocol):
    """Shows how far a stage is: wraps its results and counts them."""

    def __call__(self, results: Iterable[T], stage: str, total: int) -> Iterator[T]: ...


def run_loop(
    config: Config,
    seed_model: Path,
    folder: Path,
    archive: Archive,
    workers: Workers,
    train: Train,
    progress: Progress,
    parents: Callable[[int], Parents | None] = lambda _: None,
    promote: Callable[[int], None] = lambda _: None,
) -> None:
    """All iterations, or as many as the budget allows; the factory of iteration t lies in
    `folder/iteration_t`, the first is the seed.

    The models that programs of an iteration merge are its `parents` (None: those the workers hold); `promote`
    may make its winner the seed of the next. In the paper neither ever changes.
    """
    budget = Budget(config.budget, archive, in_use(config))
    for iteration in range(1, config.factory.iterations + 1):
        current = factory_of(iteration, seed_model, folder)
        write_programs(config, iteration, current, archive, workers, progress, budget)
        if archive.unfinished("factory", iteration):
            bar = bar_before(config, iteration, archive)
            within, merged = budget.within, parents(iteration)
            try_attempts("factory", iteration, archive, workers, progress, bar, within, merged)
        if config.factory.stop_on_collapse and has_collapsed(config, iteration, archive):
            return
        if iteration < config.factory.iterations and not budget.reached():
            promote(iteration)
            refine_factory(config, iteration, seed_model, folder, archive, train)


def factory_of(iteration: int, seed_model: Path, folder: Path) -> Path:
    """Where the factory of an iteration lies; without enough pairs it stays what it was."""
    trained = [folder / f"iteration_{t}" for t in range(iteration, 1, -1)]
    return next((path for path in trained if path.is_dir()), seed_model)


def write_programs(
    config: Config, iteration: int, current: Path, archive: Archive, workers: Workers, progress: Progress,
    budget: Budget,
) -> None:  # fmt: skip
    """Let the factory write the iteration's programs, unless they are in the archive already."""
    if archive.has("factory", iteration):
        return
    f, count = config.factory, budget.programs(config.factory.programs)
    batches = [
        factory.uniforms(config.seed, iteration, start, min(f.batch, count - start), f.max_new_tokens)
        for start in range(0, count, f.batch)
    ]
    temperature = factory.temperature(iteration, f.temperature, f.decay)
    done = workers.write(current, factory.prompt(), temperature, batches)
    written = dict(progress(done, f"iteration {iteration}: write", len(batches)))
    texts = [text for batch in range(len(batches)) for text in written[batch].texts]
    seeds = [factory.program_seed(config.seed, iteration, place) for place in range(len(texts))]
    tokens = sum(batch.tokens for batch in written.values())
    archive.add_written("factory", iteration, [""] * len(texts), texts, seeds, tokens)


def bar_before(config: Config, iteration: int, archive: Archive) -> float:
    """The accuracy that the factory's programs must be able to reach: what earlier iterations keep."""
    kept = max(config.pairs.min_each, config.finalists)
    scored = archive.each("factory", only="scored", texts=False)
    return bar_of((a for a in scored if a.iteration < iteration), kept)


def has_collapsed(config: Config, iteration: int, archive: Archive) -> bool:
    """Whether an iteration wrote the same few behaviours."""
    written = list(archive.each("factory", iteration, texts=False))
    return collapsed(written, config.factory.collapse_below)


def try_attempts(
    kind: str, iteration: int, archive: Archive, workers: Workers, progress: Progress, bar: float = 0.0,
    within: Within = iter, parents: Parents | None = None,
) -> None:  # fmt: skip
    """Gate, probe, run and score what was written and has no end yet; each result is stored at once.

    Programs surely below the accuracy `bar` are stopped early; `within` a budget, jobs may end before all.
    """
    label = f"iteration {iteration}" if kind == "factory" else kind
    todo = list(archive.each(kind, iteration, only="unprobed"))
    probes = workers.probe(within((attempt.text, attempt.seed) for attempt in todo), parents)
    for place, probed in progress(probes, f"{label}: gate and probes", len(todo)):
        attempt = todo[place]
        archive.set_probe(
            replace(
                attempt, code=probed.code, outcome=probed.outcome, fingerprint=probed.fingerprint,
                nearest=probed.nearest, distance=probed.distance,
            )
        )  # fmt: skip
    first, again = _by_behaviour(archive, kind, iteration)
    asked = within((attempt.code, attempt.seed, "dev") for attempt in first)
    results = workers.try_programs(asked, bar, parents)
    for place, tried in progress(results, f"{label}: run and score", len(first)):
        archive.set_result(first[place].id, tried.outcome, tried.score)
    for attempt, same_as in again:
        original = archive.attempt(same_as)
        if original.outcome.state is not State.MERGED:  # else the budget ended before its turn
            archive.set_result(attempt.id, original.outcome, original.score, same_as)


def _by_behaviour(
    archive: Archive, kind: str, iteration: int
) -> tuple[list[Attempt], list[tuple[Attempt, int]]]:
    """Unfinished attempts: the first of each behaviour, and the others with the id of theirs."""
    open_ids = archive.unfinished(kind, iteration)
    known: dict[str, int] = {}
    first, again = [], []
    for ident, seen, state in archive.behaviours():
        if state is State.UNSCORED or (state is None and ident not in open_ids):
            continue
        same_as = known.setdefault(seen, ident)
        if ident in open_ids:
            if same_as == ident:
                first.append(archive.attempt(ident))
            else:
                again.append((archive.attempt(ident), same_as))
    return first, again


def refine_factory(
    config: Config, iteration: int, seed_model: Path, folder: Path, archive: Archive, train: Train
) -> None:
    """Pairs from the attempts so far, then training; without any pair the next factory is the same."""
    out = folder / f"iteration_{iteration + 1}"
    known = bool(archive.training(iteration))
    if known and out.is_dir():
        return
    attempts = archive.attempts("factory")
    if not archive.pairs(iteration):
        rng = random.Random(f"pairs {config.seed} {iteration}")
        archive.add_pairs(iteration, make_pairs(attempts, iteration, config.pairs, rng))
    lessons = lessons_of(config, iteration, attempts, archive.pairs(iteration))
    if not teaches(lessons, config.dpo.objective):
        return
    fresh = config.dpo.restart == "seed"
    start = seed_model if fresh else factory_of(iteration, seed_model, folder)
    trained = train(start, out, lessons, config.seed + iteration)
    if not known:  # else it was lost, and the same training has given it again
        archive.add_training(iteration, trained, of_weights(out))


def scored(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Attempts that reached a score."""
    return [a for a in attempts if a.outcome.state is State.SCORED]
