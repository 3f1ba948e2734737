"""Intervals and paired tests against published numbers and against counting by hand."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from selfdev import stats


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3: score without correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_newcombes_table(correct: int, n: int, low: float, high: float) -> None:
    assert stats.wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_spearman_equals_the_value_by_hand() -> None:
    # Ranks 1..5 against 2 1 4 3 5: differences -1 1 -1 1 0, so 1 - 6 * 4 / (5 * 24).
    found = stats.spearman([0.1, 0.2, 0.3, 0.4, 0.5], [7, 6, 9, 8, 10], random.Random(0))
    assert found is not None
    assert found.n == 5
    assert found.rho == pytest.approx(0.8)
    assert -1 <= found.low < found.rho < found.high <= 1


def test_spearman_gives_ties_their_mean_rank() -> None:
    # Ranks 1 2 3 4 and 2.5 2.5 4 1: covariance -1.5, variances 5 and 4.5.
    found = stats.spearman([1, 2, 3, 4], [2, 2, 3, 1], random.Random(0))
    assert found is not None
    assert found.rho == pytest.approx(-1.5 / math.sqrt(5 * 4.5))


def test_spearman_interval_repeats_with_its_random_numbers() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]
    first, again, other = (stats.spearman(a, b, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first is not None
    assert other is not None
    assert first.rho == other.rho


def test_spearman_interval_is_the_middle_of_the_resampled_values() -> None:
    # Of the 27 resamples of three pairs 3 have no correlation, 6 are the data (0.5), 18 hold two of the
    # pairs: (1,1)(2,3) and (1,1)(3,2) give +1, (2,3)(3,2) gives -1. So 6 of 24 are -1, 12 are +1.
    found = stats.spearman([1, 2, 3], [1, 3, 2], random.Random(0))
    assert found is not None
    assert found.rho == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((-1, 1))


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([1, 2], [1, 2]), ([1, 2, 3], [5, 5, 5]), ([4, 4, 4], [1, 2, 3])]
)
def test_spearman_is_none_without_three_different_pairs(a: list[float], b: list[float]) -> None:
    assert stats.spearman(a, b, random.Random(0)) is None


@pytest.mark.parametrize(("correct", "n"), [(0, 7), (3, 7), (7, 7), (431, 1319)])
def test_wilson_is_symmetric_and_holds_the_proportion(correct: int, n: int) -> None:
    low, high = stats.wilson(correct, n)
    mirrored = stats.wilson(n - correct, n)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= correct / n <= high + 1e-12


def test_wilson_bounds_solve_the_score_equation() -> None:
    # A bound p is where |observed - p| is exactly z standard errors *of p*.
    for bound in stats.wilson(37, 90):
        assert abs(37 / 90 - bound) == pytest.approx(stats.Z_95 * math.sqrt(bound * (1 - bound) / 90))


def test_wilson_with_another_z_is_wider() -> None:
    low, high = stats.wilson(10, 40)
    wide_low, wide_high = stats.wilson(10, 40, z=2.5758)
    assert wide_low < low < high < wide_high


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_what_is_no_proportion(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a proportion"):
        stats.wilson(correct, n)


def paired(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def by_counting(only_a: int, only_b: int) -> float:
    """Two-sided exact p as a fraction of coin-toss sequences at least as uneven as the one seen."""
    n, few = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(few + 1))
    return float(min(Fraction(1), 2 * Fraction(tail, 2**n)))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        # Fay, "Exact McNemar's test and matching confidence intervals", vignette of the R package exact2x2.
        (9, 2, 0.06543),
        # Raschka, mlxtend user guide, "McNemar's test", scenario A, exact p-value.
        (11, 1, 0.00634765625),
    ],
)
def test_mcnemar_equals_published_values(only_a: int, only_b: int, p: float) -> None:
    assert stats.mcnemar(*paired(21, only_a, only_b, 12)) == pytest.approx(p, rel=1e-4)


def test_mcnemar_of_a_large_table_equals_counting() -> None:
    # Agresti, Categorical Data Analysis (1990), p. 350: approval in two surveys, 150 against 86 changed.
    assert stats.mcnemar(*paired(794, 150, 86, 570)) == pytest.approx(by_counting(150, 86), rel=1e-9)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(0, 1, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024), (6, 6, 1.0)]
)
def test_mcnemar_on_small_tables_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert stats.mcnemar(*paired(3, only_a, only_b, 2)) == pytest.approx(p)
    assert by_counting(only_a, only_b) == pytest.approx(p)


def test_mcnemar_has_no_side() -> None:
    a, b = paired(10, 12, 3, 5)
    assert stats.mcnemar(a, b) == pytest.approx(stats.mcnemar(b, a))


def test_mcnemar_ignores_questions_on_which_both_agree() -> None:
    assert stats.mcnemar(*paired(0, 8, 2, 0)) == stats.mcnemar(*paired(500, 8, 2, 500))


def test_mcnemar_of_equal_results_is_one() -> None:
    assert stats.mcnemar([True, False], [True, False]) == 1.0


def test_mcnemar_refuses_results_that_are_not_paired() -> None:
    with pytest.raises(ValueError, match="different lengths: 1 and 2"):
        stats.mcnemar([True], [True, False])


def results(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Paired results with these counts."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_without_correlation_a_paired_difference_is_newcombes_unpaired_one() -> None:
    # 60 % and 50 %, independent: 30 both, 30 only a, 20 only b, 20 neither of 100.
    (low_a, high_a), (low_b, high_b) = stats.wilson(60, 100), stats.wilson(50, 100)
    low, high = stats.paired_difference(*results(30, 30, 20, 20))
    assert low == pytest.approx(0.1 - math.hypot(0.6 - low_a, high_b - 0.5))
    assert high == pytest.approx(0.1 + math.hypot(high_a - 0.6, 0.5 - low_b))


def test_a_paired_difference_by_hand() -> None:
    # 43 both, 7 only a, 2 only b, 48 neither: (43 48 - 7 2 - 50) / sqrt(50 50 45 55) = 2000 / 2487.47.
    # Wilson 50 of 100: 0.40383, 0.59617; 45 of 100: 0.35614, 0.54757.
    low, high = stats.paired_difference(*results(43, 7, 2, 48))
    down = 0.09617**2 - 2 * 0.80403 * 0.09617 * 0.09757 + 0.09757**2
    up = 0.09617**2 - 2 * 0.80403 * 0.09617 * 0.09386 + 0.09386**2
    assert low == pytest.approx(0.05 - math.sqrt(down), abs=5e-4)
    assert high == pytest.approx(0.05 + math.sqrt(up), abs=5e-4)


def test_the_truth_is_in_the_paired_interval_as_often_as_stated() -> None:
    rng = random.Random(4)
    held = 0
    for _ in range(2000):
        a = [rng.random() < 0.7 for _ in range(150)]
        b = [x if rng.random() < 0.6 else rng.random() < 0.6 for x in a]  # truth: 0.6 0.7 + 0.4 0.6 = 0.66
        low, high = stats.paired_difference(a, b)
        held += low <= 0.7 - 0.66 <= high
    assert 0.935 < held / 2000 < 0.975


def test_the_same_results_differ_by_nothing() -> None:
    low, high = stats.paired_difference(*results(30, 0, 0, 20))
    assert low <= 0 <= high
    assert high - low < 0.1


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, each at least the one before.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_paired_mean_is_the_mean_difference_and_its_standard_error() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1.
    low, high = stats.paired_mean([2, 4, 6], [1, 2, 3])
    assert (low, high) == pytest.approx((2 - 1.959964 / math.sqrt(3), 2 + 1.959964 / math.sqrt(3)))
    assert stats.paired_mean([5], [3]) == (-math.inf, math.inf)
