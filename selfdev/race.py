"""Stopping hopeless programs early, so that questions go where they decide.

Dev questions are asked in blocks, in one random order that is the same for all. After a block a program is
stopped when it can hardly end at a bar: were its accuracy on all dev questions the bar, so few right answers
among the questions asked so far would have at most the chance `ERROR` divided by the number of looks, by the
exact hypergeometric law of a sample without replacement. That is a group-sequential test with Bonferroni's
bound over its looks (Jennison and Turnbull 1999, chapter 2), so a program that would end at the bar or above
is stopped with a chance of at most `ERROR`. The bar is the seed's accuracy or, from the second iteration on,
that of the last program that earlier iterations would keep; it is fixed before a turn begins, so the order in
which programs end changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

from selfdev.records import Attempt, Score

ERROR = 0.01


def is_hopeless(results: Score, bar: float, n: int, looks: int) -> bool:
    """Whether a program with these first results of n will surely end below the bar; `looks` in all."""
    at_bar = min(n, math.ceil(bar * n))
    return _chance(results.correct, n, at_bar, results.n) < ERROR / looks


@cache
def _chance(correct: int, n: int, right: int, asked: int) -> float:
    """That at most `correct` of `asked` questions, drawn from n of which `right` are answered, are right."""
    from scipy.stats import hypergeom  # 65 MB; the process that only hands out jobs does without

    return float(hypergeom.cdf(correct, n, right, asked))


def blocks(size: int, n: int) -> list[tuple[int, int]]:
    """The parts in which n questions are asked, as (start, stop): `size`, then as many again as before; none
    is smaller than those before it together."""
    stops = [0]
    while 0 < 2 * size <= n:
        stops.append(size)
        size *= 2
    return list(zip(stops, [*stops[1:], n], strict=True))


def bar_of(attempts: Iterable[Attempt], kept: int) -> float:
    """Accuracy of the `kept`-th best behaviour among programs scored in full; 0 with fewer."""
    # One attempt at a time: a hundred thousand with their answers would take 35 MB.
    ends = [(a.score.n, a.score.accuracy, _own(a)) for a in attempts if a.score is not None]
    most = max((n for n, *_ in ends), default=0)
    ranked = sorted((accuracy for n, accuracy, own in ends if own and n == most), reverse=True)
    return ranked[kept - 1] if len(ranked) >= kept else 0.0


def _own(attempt: Attempt) -> bool:
    return attempt.same_as is None and attempt.outcome.copy_of is None
