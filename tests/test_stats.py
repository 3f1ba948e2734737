"""Intervals and paired tests against published numbers and against counting by hand."""

from __future__ import annotations

import math
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
