"""What may be claimed: a gain only outside its interval, and every case without one said plainly."""

from __future__ import annotations

import pytest
from sample_result import nothing_scored, result, row

from selfdev import stats
from selfdev.report.findings import (
    Gain,
    best_baseline,
    duration,
    findings,
    gain,
    p_value,
    p_words,
    percent,
    points,
    scored,
)
from selfdev.results import RunResult, TestRow

SEED = row("seed", "seed", 0.48)
BASELINE = row("ties", "baseline", 0.55)


def found(accuracy: float, p_baseline: float, p_seed: float) -> RunResult:
    best = row("found", "discovered", accuracy, p_vs_best_baseline=p_baseline, p_vs_seed=p_seed)
    return result(test=(SEED, BASELINE, best), best_name="found")


def test_gain_over_both() -> None:
    said = findings(found(0.60, 1e-6, 1e-12))
    assert said.verdict == "gain"
    beats = "The best discovered program beats the best tuned baseline by 5.0 points"
    assert said.headline == f"{beats} (95 % interval +3.1 to +6.9)."
    assert "a gain over the seed (+12.0 points, +10.1 to +13.9, p < 0.001)" in said.detail
    assert "found answers 60.0 % of 5,000 test questions (95 % interval 58.6 % to 61.3 %)" in said.detail


def test_gain_over_the_seed_only_is_no_gain_over_the_baseline() -> None:
    said = findings(found(0.555, 0.5, 1e-9))
    assert said.verdict == "partial"
    assert said.headline == (
        "No gain over the best tuned baseline (+0.5 points, 95 % interval −1.4 to +2.4);"
        " over the seed it gains 7.5 points."
    )


def test_equal_models_make_no_claim() -> None:
    same = (row("seed", "seed", 0.5), row("ties", "baseline", 0.5))
    best = row("found", "discovered", 0.5, p_vs_best_baseline=1.0, p_vs_seed=1.0)
    said = findings(result(test=(*same, best), best_name="found"))
    assert said.verdict == "no gain"
    assert "beats" not in said.headline
    assert said.detail.count("no gain over") == 2


def test_a_small_p_inside_the_interval_is_no_gain() -> None:
    said = findings(found(0.56, 0.01, 1e-9))
    assert said.over_baseline is not None
    assert said.over_baseline.low < 0 < said.over_baseline.high
    assert said.over_baseline.verdict == "no gain"


def test_a_wide_gap_without_a_small_p_is_no_gain() -> None:
    said = findings(found(0.60, 0.2, 0.2))
    assert said.verdict == "no gain"


def test_worse_than_the_baseline_is_said() -> None:
    said = findings(found(0.50, 1e-5, 0.04))
    assert said.verdict == "worse"
    assert said.headline.startswith(
        "The best discovered program stays 5.0 points below the best tuned baseline"
    )


def test_beating_a_baseline_below_the_seed_is_no_gain_over_the_seed() -> None:
    low = row("ties", "baseline", 0.40)
    best = row("found", "discovered", 0.48, p_vs_best_baseline=1e-9, p_vs_seed=1.0)
    said = findings(result(test=(SEED, low, best), best_name="found"))
    assert said.verdict == "partial"
    assert said.headline.startswith("No gain over the seed (+0.0 points")


def test_without_baselines_the_seed_is_the_measure() -> None:
    best = row("found", "discovered", 0.6, p_vs_seed=1e-9)
    said = findings(result(test=(SEED, best), best_name="found"))
    assert said.verdict == "gain"
    assert "beats the seed by 12.0 points" in said.headline
    assert said.over_baseline is None


def test_best_equals_seed_is_said_loudly() -> None:
    said = findings(result(best_name="seed"))
    assert said.verdict == "empty"
    assert said.headline == "No gain: the best model is the seed itself."
    assert "573 of 768 programs were scored" in said.detail


def test_nothing_scored() -> None:
    said = findings(nothing_scored())
    assert said.headline == "No program could be scored."
    assert "256 were written" in said.detail


def test_scored_but_not_tested() -> None:
    assert findings(result(test=())).headline == "The test set was not opened."


def test_tested_without_a_discovered_program() -> None:
    said = findings(result(test=(SEED, BASELINE), best_name="gone"))
    assert said.headline == "No discovered program was tested beside the seed."


def test_best_baseline_is_the_hardest_to_beat() -> None:
    rows: tuple[TestRow, ...] = (SEED, row("low", "baseline", 0.4), BASELINE)
    assert best_baseline(rows) is BASELINE
    assert best_baseline((SEED,)) is None


def test_interval_of_a_difference_equals_newcombes() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10, contrast (a): 56/70 - 48/80.
    def counted(correct: int, n: int) -> TestRow:
        low, high = stats.wilson(correct, n)
        return TestRow("m", "seed", n, correct, correct / n, low, high, 0.0, None, None, None, None)

    difference = gain("the seed", counted(56, 70), counted(48, 80), 0.5)
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_gain_without_a_p_value_rests_on_its_interval() -> None:
    assert Gain("x", 0.1, 0.05, 0.15, None).verdict == "gain"
    assert Gain("x", 0.1, -0.05, 0.15, None).verdict == "no gain"


def test_scored_counts_all_iterations() -> None:
    assert scored(result()) == 164 + 192 + 217


def test_numbers_in_words() -> None:
    assert (percent(0.6314), percent(None), percent(0.5, 0)) == ("63.1 %", "–", "50 %")
    assert (points(0.042), points(-0.042)) == ("+4.2", "−4.2")
    assert (p_value(0.0312), p_value(1e-9), p_value(None)) == ("0.031", "< 0.001", "–")
    assert (p_words(0.0312), p_words(1e-9), p_words(None)) == ("p = 0.031", "p < 0.001", "not paired")
    assert (duration(3.14), duration(75), duration(7500)) == ("3.1 s", "1 min 15 s", "2 h 05 min")
