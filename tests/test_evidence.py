"""The six claims: made where figures bear them, refused where models are equal, open where not measured."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import sample_result

from selfdev.evidence.comparison import Comparison, Examined, Searched
from selfdev.evidence.evidence import Evidence, Search, beats, controls, gap, headroom, learns, page
from selfdev.evidence.learning import Estimate, Fresh, Learned
from selfdev.records import Score

N = 2000


def answers(correct: int, seed: int) -> Score:
    """So many right of N, in a random order."""
    marks = [i < correct for i in range(N)]
    random.Random(seed).shuffle(marks)
    return Score(tuple(marks), tuple(marks))


def search(discovered: int, baseline: int, dev: float | None = None, seed: int = 0) -> Search:
    """A search whose discovered program and only baseline have so many right of N."""
    scores = {
        "seed": answers(1000, 1),
        "task_arithmetic WEIGHT=0.3": answers(baseline, 2),
        "program 3.1": answers(discovered, 3),
    }
    kinds: list[Any] = ["seed", "baseline", "discovered"]
    rows = tuple(
        replace(
            sample_result.row(name, kind, score.accuracy, N), dev_n=N,
            dev_accuracy=dev if kind == "discovered" else None,
        )
        for (name, score), kind in zip(scores.items(), kinds, strict=True)
    )  # fmt: skip
    result = sample_result.result(test=rows, best_name="program 3.1")
    return Search(seed, result, scores, None, None, None)


def evidence(*searches: Search, arena: dict[str, Any] | None = None) -> Evidence:
    return Evidence(arena, searches, "a machine")


def test_equal_models_make_no_claim() -> None:
    found = beats(evidence(*[search(1400, 1400, seed=i) for i in range(5)]))
    assert found.holds is False
    assert "In 0 of 5" in found.words


def test_four_of_five_clear_wins_are_enough_and_three_are_not() -> None:
    won, level = search(1600, 1400), search(1410, 1400)
    assert beats(evidence(won, won, won, won, level)).holds is True
    assert beats(evidence(won, won, won, level, level)).holds is False


def test_a_clear_loss_is_no_win() -> None:
    assert beats(evidence(search(1200, 1500))).holds is False


@pytest.mark.parametrize(("dev", "holds"), [(0.71, True), (0.73, False)])
def test_the_winner_may_be_two_points_better_on_dev(dev: float, holds: bool) -> None:
    """1,400 of 2,000 are 70 % on test."""
    assert gap(evidence(search(1400, 1300, dev))).holds is holds


def learned(low: float, high: float) -> tuple[tuple[Fresh, ...], tuple[Learned, ...]]:
    half = Estimate(0.5, 0.4, 0.6, 256)
    fresh = tuple(Fresh(3, who, 0.86, 256, 96, half, half, half, half) for who in ("trained", "untrained"))
    change = Estimate((low + high) / 2, low, high, 512)
    return fresh, (Learned(3, 0.86, Estimate(0.0, -0.1, 0.1, 512), change, change),)


@pytest.mark.parametrize(("low", "holds"), [(0.01, True), (-0.01, False)])
def test_learning_holds_outside_its_interval_only(low: float, holds: bool) -> None:
    one = replace(search(1400, 1300), learning=learned(low, 0.1))
    assert learns(evidence(one)).holds is holds


def compared(correct: int, p: float) -> Comparison:
    low, high = answers(correct, 4).interval
    chosen = Examined("untrained 1.1", 0.7, N, correct / N, low, high, correct / N)
    control = Searched("untrained", 0, 100.0, 300, 200, 90, (), (), chosen, p, p)
    return Comparison("run", 100.0, 96, replace(control, control="discovered"), (control,), ())


@pytest.mark.parametrize(
    ("correct", "p", "holds", "tally"),
    [(1300, 0.001, True, "1 / 0 / 0"), (1390, 0.6, False, "0 / 1 / 0"), (1550, 0.001, False, "0 / 0 / 1")],
)
def test_a_control_is_beaten_level_or_better(correct: int, p: float, holds: bool, tally: str) -> None:
    found = controls(evidence(replace(search(1400, 1300), comparison=compared(correct, p))))
    assert found.holds is holds
    assert tally in found.table


def test_what_was_not_measured_is_open() -> None:
    text = page(evidence(search(1400, 1300, 0.7)), "2026-01-01")
    assert headroom(evidence()).holds is None
    assert text.count("Open: not measured yet.") == 4
    assert "| 1. The arena has headroom | open |" in text
