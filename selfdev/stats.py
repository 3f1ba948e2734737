"""The statistics every published number rests on: Wilson intervals, paired exact tests, rank correlation."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of n pairs (-1..1); low and high are its bootstrap 95 % bounds."""

    rho: float
    low: float
    high: float
    n: int


def wilson(correct: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927): bounds in 0..1; raises ValueError for n < 1."""
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} is not a proportion")
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float]:
    """95 % interval of a's accuracy less b's on the same questions, from Wilson bounds and correlation.

    Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10.
    """
    n = len(a)
    both = sum(x and y for x, y in zip(a, b, strict=True))
    right_a, right_b = sum(a), sum(b)
    neither = n - right_a - right_b + both
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n), wilson(right_b, n)
    p, q = right_a / n, right_b / n
    spread = right_a * (n - right_a) * right_b * (n - right_b)
    agreement = both * neither - (right_a - both) * (right_b - both)
    corrected = max(agreement - n / 2, 0) if agreement > 0 else agreement  # for continuity, as in the paper
    phi = corrected / math.sqrt(spread) if spread else 0.0

    def apart(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    return p - q - apart(p - low_a, high_b - q), p - q + apart(high_a - p, q - low_b)


def paired_mean(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a's mean less b's on the same questions, by the normal law of the mean difference."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = statistics.fmean(differences)
    spread = statistics.stdev(differences) if len(differences) > 1 else math.inf
    half = Z_95 * spread / math.sqrt(len(differences))
    return mean - half, mean + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: for claims that are all to hold together."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided exact McNemar p-value for paired results (McNemar 1947; binomial form, Edwards 1948).

    a, b: results on the same questions in the same order; raises ValueError when lengths differ.
    """
    from scipy.stats import binomtest  # heavy; not needed by most commands

    if len(a) != len(b):
        raise ValueError(f"paired results of different lengths: {len(a)} and {len(b)}")
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def spearman(
    a: Sequence[float], b: Sequence[float], rng: random.Random, resamples: int = 2000
) -> Correlation | None:
    """Rank correlation (Spearman 1904) with a percentile bootstrap interval over the pairs (Efron 1979).

    None for fewer than three pairs and where all values of one side are equal; resamples in which they are
    have no correlation and are left out.
    """
    import numpy as np  # heavy; not needed by most commands

    n = len(a)
    if n < 3 or min(len(set(a)), len(set(b))) == 1:
        return None
    drawn = np.array([range(n), *(rng.choices(range(n), k=n) for _ in range(resamples))])
    rho, *others = _rank_correlations(np.asarray(a)[drawn], np.asarray(b)[drawn])
    low, high = np.nanquantile(others, (0.025, 0.975))
    return Correlation(float(rho), float(low), float(high), n)


def _rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rho of each row of two arrays [rows, n]; nan where a row has one value only."""
    import numpy as np
    from scipy.stats import rankdata

    a, b = (rankdata(side, axis=1) for side in (a, b))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    with np.errstate(invalid="ignore"):
        rho: np.ndarray = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return rho
