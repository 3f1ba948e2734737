"""Searches without the factory's learning, at a given budget: what the loop must beat to have shown anything.

Each control is one kind of attempt in an archive, and takes the road that all programs take: gate, probes,
sandbox, score. The budget is in full-score equivalents: dev questions asked, divided by the size of dev.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import numpy as np

from selfdev.config.settings import Config
from selfdev.evidence.search import Space, Strategy, points
from selfdev.factory import factory
from selfdev.loop import Progress, try_attempts
from selfdev.race import bar_of
from selfdev.records import Attempt, State, best_first, fully_scored
from selfdev.store.archive import Archive
from selfdev.workers.workers import Workers

T = TypeVar("T")
Texts = Callable[[int, int], list[str]]  # round, part of the budget -> what was written
APART = 1_000_000  # added to a round's number: its random numbers are used by no iteration of a run
SHOWN_PROGRAMS, SHOWN_ERRORS = 2, 2  # in the prompt of `prompted`
MOST_WRITTEN = 20  # programs per full score: so a search ends whose programs fail or repeat each other


@dataclass(frozen=True, slots=True)
class Searcher:
    """What every control needs; `writer` is the untrained factory, `seed` the control's own random seed."""

    config: Config
    writer: Path
    archive: Archive
    workers: Workers
    progress: Progress
    seed: int


def spending(attempts: Sequence[Attempt], dev: int) -> Iterator[tuple[Attempt, float]]:
    """Each attempt with the full-score equivalents that were spent when it had ended.

    A behaviour that an earlier one of them had is free.
    """
    seen: set[str] = set()
    asked = 0
    for attempt in attempts:
        if attempt.score is not None and attempt.fingerprint not in seen:
            asked += attempt.score.n
        seen.add(attempt.fingerprint or "")
        yield attempt, asked / dev


def cost(attempts: Sequence[Attempt], dev: int) -> float:
    """Full-score equivalents that these attempts took together."""
    return max((spent for _, spent in spending(attempts, dev)), default=0.0)


def search_coefficients(s: Searcher, kind: str, space: Space, strategy: Strategy, budget: float) -> None:
    """Try points of a coefficient space until the budget is spent; each generation is a round."""

    def texts(number: int, _: int) -> list[str]:
        generations = points(strategy, space, s.seed)
        asked = next(generations)
        for earlier in range(
            1, number
        ):  # gone through again from the archive, which is all the state there is
            found = s.archive.attempts(kind, earlier)
            asked = generations.send([a.score.accuracy if a.score else 0.0 for a in found])
        left = budget - cost(s.archive.attempts(kind), s.config.task.dev)
        return [space.program(point).code for point in asked[: math.ceil(left)]]

    _spend(s, kind, budget, 1, texts)


def write_programs(s: Searcher, kind: str, budget: float, prompted: bool = False) -> None:
    """Programs of the untrained factory, an equal part of the budget at each iteration's temperature.

    `prompted`: its prompt shows the best programs so far and the latest errors, the strategy of OpenEvolve
    and of the search half of EvoTune (arXiv 2504.05108).
    """
    f = s.config.factory

    def texts(number: int, iteration: int) -> list[str]:
        numbers = factory.uniforms(s.seed, APART + number, 0, f.batch, f.max_new_tokens)
        prompt = _prompt_with(s.archive.attempts(kind)) if prompted else factory.prompt()
        temperature = factory.temperature(iteration, f.temperature, f.decay)
        shares = np.array_split(numbers, s.config.workers)
        written = dict(s.workers.write(s.writer, prompt, temperature, shares))
        return [text for share in sorted(written) for text in written[share].texts]

    _spend(s, kind, budget, f.iterations, texts)


def random_programs(s: Searcher, kind: str, budget: float, experts: int) -> None:
    """Random programs of the lab's generator, which the lab's seed has learned to write."""
    from selfdev.lab.corpus import make_program

    def texts(number: int, _: int) -> list[str]:
        rng = random.Random(f"{kind} {s.seed} {number}")
        return [make_program(rng, experts) for _ in range(s.config.factory.batch)]

    _spend(s, kind, budget, 1, texts)


def _spend(s: Searcher, kind: str, budget: float, parts: int, texts: Texts) -> None:
    """Rounds of programs until each part of the budget is spent, the last of them to its end."""
    dev, kept = s.config.task.dev, max(s.config.pairs.min_each, s.config.finalists)

    def rounds() -> Iterator[None]:
        earlier: list[Attempt] = []
        number, told = 1, 0
        for part in range(1, parts + 1):
            share = part / parts
            while cost(earlier, dev) < budget * share and len(earlier) < MOST_WRITTEN * budget * share:
                written = [] if s.archive.attempts(kind, number) else texts(number, part)
                _try(s, kind, number, written, bar_of(earlier, kept))
                earlier += s.archive.attempts(kind, number)
                spent = min(int(cost(earlier, dev)), round(budget))
                yield from repeat(None, spent - told)
                number, told = number + 1, spent

    for _ in s.progress(rounds(), kind, round(budget)):
        pass


def _try(s: Searcher, kind: str, number: int, texts: Sequence[str], bar: float) -> None:
    """Write a round into the archive, unless it is there, and end every attempt of it."""
    if not s.archive.attempts(kind, number):
        seeds = [factory.program_seed(s.seed, APART + number, place) for place in range(len(texts))]
        s.archive.add_written(kind, number, [""] * len(texts), texts, seeds)
    try_attempts(kind, number, s.archive, s.workers, _silent, bar)


def _silent(results: Iterable[T], stage: str, total: int) -> Iterator[T]:  # noqa: ARG001
    """A progress that shows nothing: rounds are short, the control has a bar of its own."""
    return iter(results)


def _prompt_with(attempts: Sequence[Attempt]) -> str:
    """The factory's prompt, with the best programs so far and the latest errors before its last line."""
    *head, last = factory.prompt().rstrip("\n").split("\n")
    distinct = {a.fingerprint: a for a in reversed(best_first(fully_scored(attempts))) if a.fingerprint}
    best = best_first(list(distinct.values()))[:SHOWN_PROGRAMS]
    fine = (State.SCORED, State.MERGED, State.UNSCORED)
    failed = [a for a in attempts if a.outcome.state not in fine][-SHOWN_ERRORS:]
    shown = [f"# This one reached {a.score.accuracy:.3f}:\n{a.code.rstrip()}" for a in best if a.score]
    errors = [f"# Another failed: {' '.join(a.outcome.reason.split())[:120]}" for a in failed]
    return "\n".join([*head, *shown, *errors, last]) + "\n"
