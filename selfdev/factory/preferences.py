"""From scores to preference pairs, by one of three rules.

All of them are pure functions of the archive and a random number generator, and hold to this: of programs
that behave alike the earlier one stands for all; a copy of a model is no algorithm; a chosen program was
scored on all questions, so that none that a race stopped is chosen; the chosen is better than the rejected,
as a tie teaches nothing; a failure of ours is in no pair. The best `carry_over` of every earlier iteration
join the chosen.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from itertools import cycle

from selfdev.config.settings import Pairs
from selfdev.records import Attempt, Pair, State, best_first, fully_scored

PROGRAM_FAULTS = (State.INVALID, State.CRASHED, State.TIMED_OUT, State.OUT_OF_MEMORY, State.BAD_WEIGHTS)

Rule = Callable[[Sequence[Attempt], int, Pairs, random.Random], list[Pair]]


def make_pairs(attempts: Sequence[Attempt], iteration: int, rule: Pairs, rng: random.Random) -> list[Pair]:
    """Pairs of one iteration, in random order, at most `rule.max_pairs`; `attempts` are all so far."""
    make: Rule = best_against_worst
    if rule.rule == "same-prompt-halves":
        make = better_against_worse_half
    elif rule.rule == "score-weighted":
        make = score_weighted
    return make(attempts, iteration, rule, rng)


def best_against_worst(
    attempts: Sequence[Attempt], iteration: int, rule: Pairs, rng: random.Random
) -> list[Pair]:
    """The paper's rule (section 3, PAPER.md "Preference pairs").

    Chosen are the best `top` share of an iteration's distinct scored programs, rejected the worst `bottom`
    share, each at least `min_each`. The paper does not say of what the shares are, nor how ties are broken;
    here they are of distinct behaviours with a score, and ties go to the earlier program among the best and
    to the later one among the worst. A program is never both.
    """
    ranked, full = _distinct(attempts, iteration), _full(attempts)
    chosen = [a for a in ranked if a.id in full][: _count(rule.top, rule.min_each, len(ranked))]
    rejected = ranked[len(ranked) - _count(rule.bottom, rule.min_each, len(ranked)) :]
    chosen += _carried(attempts, iteration, rule)
    if rule.failures_as_rejected:
        rejected = rejected + _failures(attempts, iteration)
    return _drawn(
        [Pair(good.id, bad.id) for good in chosen for bad in rejected if _better(good, bad)], rule, rng
    )


def better_against_worse_half(
    attempts: Sequence[Attempt], iteration: int, rule: Pairs, rng: random.Random
) -> list[Pair]:
    """EvoTune's rule (Surina et al. 2025, arXiv 2504.05108), on the one prompt that all programs share.

    The distinct scores are halved; each program of the better half meets one of the worse half, and each that
    failed is rejected once. A chosen program must at least equal the `floor` share of the iteration's.
    EvoTune has no carry-over (0 here) and tells programs apart by their text.
    """
    ranked, full = _distinct(attempts, iteration), _full(attempts)
    scores = sorted(_accuracy(a) for a in ranked)
    distinct = sorted(set(scores))
    middle = distinct[(len(distinct) + 1) // 2] if len(distinct) > 1 else -math.inf
    least = scores[min(math.ceil(rule.floor * len(scores)), len(scores) - 1)] if scores else 0.0
    able = [a for a in ranked if a.id in full and _accuracy(a) >= least]
    carried = [a for a in _carried(attempts, iteration, rule) if _accuracy(a) >= least]
    chosen = [a for a in able if _accuracy(a) >= middle] + carried
    worse = [a for a in ranked if _accuracy(a) < middle]
    rng.shuffle(worse)
    pairs = [Pair(good.id, bad.id) for good, bad in zip(chosen, cycle(worse)) if _better(good, bad)]
    failed = _failures(attempts, iteration)
    pairs += [Pair(good.id, bad.id) for bad, good in zip(failed, cycle(able + carried))]
    return _drawn(pairs, rule, rng)


def score_weighted(
    attempts: Sequence[Attempt], iteration: int, rule: Pairs, rng: random.Random
) -> list[Pair]:
    """Pairs of any two programs, drawn without replacement: the larger the difference, the likelier.

    A pair's weight is its difference in accuracy to the power of `sharpness`; a failure counts as accuracy 0.
    Ours; RS-DPO (Khaki et al. 2024, arXiv 2402.10038) keeps the pairs whose difference in reward passes a
    threshold instead. Drawn by exponential keys (Efraimidis and Spirakis 2006); where there are no more pairs
    than `max_pairs`, all are taken.
    """
    ranked, full = _distinct(attempts, iteration), _full(attempts)
    chosen = [a for a in ranked if a.id in full] + _carried(attempts, iteration, rule)
    rejected = ranked + (_failures(attempts, iteration) if rule.failures_as_rejected else [])

    def key(good: Attempt, bad: Attempt) -> float:
        return -rng.expovariate(1.0) / math.pow(_accuracy(good) - _accuracy(bad), rule.sharpness)

    keyed = (
        (key(good, bad), good.id, bad.id)
        for good in chosen
        for bad in rejected
        if _accuracy(good) > _accuracy(bad)
    )
    pairs = [Pair(good, bad) for _, good, bad in heapq.nlargest(rule.max_pairs, keyed)]
    return _drawn(pairs, rule, rng)


def _distinct(attempts: Sequence[Attempt], iteration: int) -> list[Attempt]:
    """Scored programs of an iteration, one per behaviour, best first; copies of a model are no algorithm."""
    own = [
        a for a in attempts if a.kind == "factory" and a.iteration == iteration and a.outcome.copy_of is None
    ]
    first: dict[str, Attempt] = {}
    for attempt in best_first(own):
        first.setdefault(attempt.fingerprint or str(attempt.id), attempt)
    return list(first.values())


def _full(attempts: Sequence[Attempt]) -> set[int]:
    """Ids of the attempts that may be chosen: scored on all questions."""
    return {a.id for a in fully_scored(attempts)}


def _carried(attempts: Sequence[Attempt], iteration: int, rule: Pairs) -> list[Attempt]:
    """The best of every earlier iteration that join the chosen."""
    full = _full(attempts)
    able = [[a for a in _distinct(attempts, earlier) if a.id in full] for earlier in range(1, iteration)]
    return [a for best in able for a in best[: rule.carry_over]]


def _count(share: float, least: int, n: int) -> int:
    """`share` of n, at least `least`, and never more than half of n, so that both ends fit."""
    return min(max(math.ceil(share * n), least), n // 2)


def _failures(attempts: Sequence[Attempt], iteration: int) -> list[Attempt]:
    """Programs of an iteration that failed by their own fault."""
    own = [a for a in attempts if a.kind == "factory" and a.iteration == iteration]
    return [a for a in own if a.outcome.state in PROGRAM_FAULTS]


def _accuracy(attempt: Attempt) -> float:
    return attempt.score.accuracy if attempt.score else 0.0


def _better(good: Attempt, bad: Attempt) -> bool:
    if good.score is None:
        return False
    return bad.score is None or good.score.accuracy > bad.score.accuracy


def _drawn(pairs: list[Pair], rule: Pairs, rng: random.Random) -> list[Pair]:
    """Pairs in random order, at most `max_pairs`."""
    rng.shuffle(pairs)
    return pairs[: rule.max_pairs]
