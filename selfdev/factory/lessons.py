"""From an iteration's attempts and pairs to what its factory is taught, and what is kept from it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from selfdev.config.settings import Config
from selfdev.factory import factory
from selfdev.factory.preferences import PROGRAM_FAULTS
from selfdev.records import Attempt, Lessons, Pair, TextPair


def lessons_of(config: Config, iteration: int, attempts: Sequence[Attempt], pairs: Sequence[Pair]) -> Lessons:
    """Pairs in words, those held out, and the iteration's own texts with their rewards.

    Programs carried over from earlier iterations were trained on before, so that none of them is held out;
    nor is one whose very text is taught under another number.
    """
    texts = {a.id: a.code or a.text for a in attempts}
    own = [a for a in attempts if a.iteration == iteration]
    rng = random.Random(f"held out {config.seed} {iteration}")
    shown, apart = hold_out(pairs, {a.id for a in own}, config.dpo.held_out, rng)
    pairs_shown, pairs_apart = (
        [TextPair(texts[p.chosen], texts[p.rejected]) for p in part] for part in (shown, apart)
    )
    known = _texts(pairs_shown)
    held = [pair for pair in pairs_apart if not {pair.chosen, pair.rejected} & known]
    unseen = _texts(held)
    rewards = [(a.text, reward_of(a)) for a in own if texts[a.id] not in unseen]
    return Lessons(
        tuple(pairs_shown),
        tuple(held),
        tuple((text, reward) for text, reward in rewards if reward is not None),
        factory.temperature(iteration, config.factory.temperature, config.factory.decay),
        config.factory.max_new_tokens,
    )


def teaches(lessons: Lessons, objective: str) -> bool:
    """Whether there is anything to learn; grpo compares at least two programs."""
    return bool(lessons.pairs) and (objective != "grpo" or len(lessons.rewarded) > 1)


def hold_out(
    pairs: Sequence[Pair], able: set[int], share: float, rng: random.Random
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and pairs of programs that are in none of them, each in one pair only.

    A `share` of the paired programs among `able` is kept apart. Pairs of one program of each part are in
    neither list: with them, the held-out pairs would be half known. As none of those shares a program with
    another, they are independent given the factory, as their interval takes them to be.
    """
    paired = sorted({i for pair in pairs for i in (pair.chosen, pair.rejected)} & able)
    apart = set(rng.sample(paired, round(share * len(paired))))
    shown = [pair for pair in pairs if not {pair.chosen, pair.rejected} & apart]
    held: list[Pair] = []
    for pair in pairs:
        if {pair.chosen, pair.rejected} <= apart:
            held.append(pair)
            apart -= {pair.chosen, pair.rejected}
    return shown, held


def reward_of(attempt: Attempt) -> float | None:
    """Dev accuracy, 0 for a failure of the program's own, None for any other and for a copy of a model."""
    if attempt.outcome.copy_of is not None:
        return None
    if attempt.score is not None:
        return attempt.score.accuracy
    return 0.0 if attempt.outcome.state in PROGRAM_FAULTS else None


def _texts(pairs: Sequence[TextPair]) -> set[str]:
    return {text for pair in pairs for text in (pair.chosen, pair.rejected)}
