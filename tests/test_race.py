"""Stopping early: the bound by hand and by simulation, the blocks, and the bar of an iteration."""

from __future__ import annotations

import random

import pytest

from selfdev.race import ERROR, bar_of, blocks, is_hopeless
from selfdev.records import Attempt, Outcome, Score, State


def score(correct: int, n: int) -> Score:
    answers = tuple(i < correct for i in range(n))
    return Score(answers, answers)


def attempt(place: int, correct: int, n: int = 10, **more: object) -> Attempt:
    values: dict[str, object] = {"outcome": Outcome(State.SCORED), "score": score(correct, n), **more}
    return Attempt(place, "factory", 1, place, "", "text", "code", 0, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("correct", "bar", "hopeless"),
    [
        # Of 10 questions 6 must be right in the end, and 4 were asked: the chance that a random 4 of them
        # hold none of the 6 is 1/210 = 0.0048, at most one 25/210 = 0.119.
        (0, 0.60, True),
        (1, 0.60, False),
        (0, 0.58, True),  # 5.8 right answers are 6
        (0, 0.50, False),  # 5/210 = 0.024
        (1, 1.00, True),
    ],
)
def test_hopeless_can_hardly_reach_the_bar(correct: int, bar: float, hopeless: bool) -> None:
    assert is_hopeless(score(correct, 4), bar, 10, 1) is hopeless


def test_the_level_is_shared_between_the_looks() -> None:
    assert is_hopeless(score(0, 4), 0.6, 10, looks=2)  # 0.0048 < 0.01 / 2
    assert not is_hopeless(score(0, 4), 0.6, 10, looks=3)


def stopped(rng: random.Random, right: int, bar: float) -> bool:
    """Whether a program with `right` of 160 answers right is stopped when they are asked in random order."""
    answers = [i < right for i in range(160)]
    rng.shuffle(answers)
    parts = blocks(30, 160)
    firsts = [tuple(answers[:stop]) for _, stop in parts[:-1]]
    return any(is_hopeless(Score(first, first), bar, 160, len(parts) - 1) for first in firsts)


@pytest.mark.parametrize("right", [48, 80, 112, 144])
def test_as_good_as_the_bar_is_stopped_as_rarely_as_stated(right: int) -> None:
    rng = random.Random(1)
    count = sum(stopped(rng, right, right / 160) for _ in range(4000))
    assert 0 < count / 4000 <= ERROR


def test_far_below_the_bar_is_stopped() -> None:
    rng = random.Random(2)
    assert sum(stopped(rng, 32, 0.7) for _ in range(500)) / 500 > 0.99


@pytest.mark.parametrize(
    ("size", "n", "parts"),
    [
        (0, 160, [(0, 160)]),
        (48, 128, [(0, 48), (48, 128)]),
        (48, 192, [(0, 48), (48, 96), (96, 192)]),
        (10, 19, [(0, 19)]),
        (10, 20, [(0, 10), (10, 20)]),
        (10, 50, [(0, 10), (10, 20), (20, 50)]),
        (10, 10, [(0, 10)]),
    ],
)
def test_blocks_hold_every_question_once(size: int, n: int, parts: list[tuple[int, int]]) -> None:
    assert blocks(size, n) == parts


def test_the_bar_is_the_last_that_would_be_kept() -> None:
    tried = [attempt(place, correct) for place, correct in enumerate((9, 2, 7, 5))]
    assert [bar_of(tried, kept) for kept in (1, 3, 4, 5)] == [0.9, 0.5, 0.2, 0.0]


def test_what_was_stopped_repeated_or_copied_sets_no_bar() -> None:
    full = [attempt(0, 6), attempt(1, 5)]
    others = [
        attempt(2, 4, 5),  # stopped early with 0.8
        attempt(3, 9, same_as=0),
        attempt(4, 8, outcome=Outcome(State.SCORED, copy_of="times")),
    ]
    assert bar_of(full + others, 2) == 0.5
    assert bar_of([], 1) == 0.0
