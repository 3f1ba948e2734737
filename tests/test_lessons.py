"""What a factory is taught: rewards, and pairs that it never sees."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fakes import small_config
from test_preferences import attempt, table

from selfdev.factory.lessons import hold_out, lessons_of, reward_of, teaches
from selfdev.records import Attempt, Lessons, Outcome, Pair, State, TextPair

PAIRS = [Pair(good, bad) for good in range(1, 11) for bad in range(11, 31)]


def programs(pairs: list[Pair]) -> set[int]:
    return {i for pair in pairs for i in (pair.chosen, pair.rejected)}


def worded(attempts: list[Attempt]) -> list[Attempt]:
    return [replace(a, text=f"text {a.id}", code=f"code {a.id}") for a in attempts]


def test_nothing_is_held_out_by_default() -> None:
    assert hold_out(PAIRS, programs(PAIRS), 0.0, random.Random(0)) == (PAIRS, [])


@pytest.mark.parametrize("seed", range(5))
def test_no_program_is_on_both_sides_or_in_two_held_out_pairs(seed: int) -> None:
    shown, held = hold_out(PAIRS, programs(PAIRS), 0.4, random.Random(seed))
    assert shown
    assert held
    assert set(shown) | set(held) < set(PAIRS)
    assert not programs(shown) & programs(held)
    assert len(programs(held)) == 2 * len(held)
    assert len(programs(shown)) == 18  # six tenths of thirty


def test_only_able_programs_are_held_out() -> None:
    shown, held = hold_out(PAIRS, set(range(1, 31)) - {1, 2, 3}, 0.5, random.Random(0))
    assert not programs(held) & {1, 2, 3}
    assert {1, 2, 3} <= programs(shown)


def test_the_same_numbers_hold_out_the_same() -> None:
    made = [hold_out(PAIRS, programs(PAIRS), 0.4, random.Random(seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_lessons_carry_the_iterations_own_texts_with_their_rewards() -> None:
    attempts = worded(
        [
            *table(10, 20),
            *table(60, 30, iteration=2, first=3),
            attempt(5, None, 2),
            attempt(6, None, 2, outcome=Outcome(State.FORBIDDEN)),
            attempt(7, 90, 2, outcome=Outcome(State.SCORED, copy_of="one")),
        ]
    )
    made = lessons_of(small_config(factory={"max_new_tokens": 9}), 2, attempts, [Pair(3, 4), Pair(2, 4)])
    assert made.pairs == (TextPair("code 3", "code 4"), TextPair("code 2", "code 4"))
    assert made.rewarded == (("text 3", 0.6), ("text 4", 0.3), ("text 5", 0.0))
    assert made.temperature == pytest.approx(1.0)
    assert made.longest == 9


def test_held_out_programs_are_not_rewarded_either() -> None:
    attempts = worded(table(*range(40)))
    pairs = [Pair(good, bad) for good in range(30, 41) for bad in range(1, 11)]
    made = lessons_of(small_config(dpo={"held_out": 0.4}), 1, attempts, pairs)
    assert made.held_out
    unseen = {text.split()[1] for pair in made.held_out for text in (pair.chosen, pair.rejected)}
    assert {text.split()[1] for text, _ in made.rewarded} == {str(i) for i in range(1, 41)} - unseen


def test_a_text_that_is_taught_elsewhere_is_not_held_out() -> None:
    attempts = worded([*table(*range(50, 60)), *(attempt(i, None) for i in range(11, 31))])
    attempts = [replace(a, text="x", code="") if a.id > 10 else a for a in attempts]  # all failed alike
    config = small_config(dpo={"held_out": 0.4})
    assert lessons_of(config, 1, attempts, PAIRS).held_out == ()


def test_carried_over_programs_are_never_held_out() -> None:
    attempts = worded([*table(*range(60, 70)), *table(*range(20), iteration=2, first=11)])
    made = lessons_of(small_config(dpo={"held_out": 0.5}), 2, attempts, PAIRS)
    assert made.held_out == ()  # every pair has a chosen program of iteration 1
    assert len({pair.rejected for pair in made.pairs}) == 10


def test_failures_of_ours_have_no_reward() -> None:
    assert reward_of(attempt(1, None, outcome=Outcome(State.FORBIDDEN))) is None
    assert reward_of(attempt(1, None, outcome=Outcome(State.MERGED))) is None
    assert reward_of(attempt(1, None, outcome=Outcome(State.INVALID))) == 0.0


def test_grpo_needs_two_programs_to_compare() -> None:
    pairs = (TextPair("a", "b"),)
    assert teaches(Lessons(pairs), "dpo")
    assert not teaches(Lessons(()), "dpo")
    assert not teaches(Lessons(pairs, (), (("b", 0.0),)), "grpo")
    assert teaches(Lessons(pairs, (), (("a", 0.5), ("b", 0.0))), "grpo")
