"""The pair rule on tables by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from selfdev.config.settings import Pairs
from selfdev.factory.preferences import make_pairs
from selfdev.records import Attempt, Outcome, Pair, Score, State

QUESTIONS = 100
RULE = Pairs(top=0.1, bottom=0.2, min_each=1, carry_over=0, max_pairs=1000)


def attempt(ident: int, correct: int | None, iteration: int = 1, **changes: object) -> Attempt:
    """Attempt with so many right answers of 100, or without a score."""
    answers = None if correct is None else tuple(i < correct for i in range(QUESTIONS))
    score = None if answers is None else Score(answers, answers)
    outcome = Outcome(State.SCORED if score else State.CRASHED)
    plain = Attempt(
        ident, "factory", iteration, ident, "", "", "", 0, outcome, fingerprint=f"print {ident}", score=score
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def table(*correct: int, iteration: int = 1, first: int = 1) -> list[Attempt]:
    return [attempt(first + i, value, iteration) for i, value in enumerate(correct)]


def pairs(attempts: list[Attempt], rule: Pairs = RULE, iteration: int = 1) -> set[tuple[int, int]]:
    made = make_pairs(attempts, iteration, rule, random.Random(0))
    assert len(set(made)) == len(made)
    return {(pair.chosen, pair.rejected) for pair in made}


TEN = (50, 10, 70, 20, 60, 90, 30, 40, 80, 15)  # ids 1..10: best is 6, worst are 2 and 10


def test_best_against_worst() -> None:
    assert pairs(table(*TEN)) == {(6, 2), (6, 10)}


def test_shares_are_rounded_up() -> None:
    rule = RULE.model_copy(update={"top": 0.11})
    assert pairs(table(*TEN), rule) == {(6, 2), (6, 10), (9, 2), (9, 10)}


def test_the_papers_shares_on_a_hundred_programs() -> None:
    rule = Pairs(top=0.03, bottom=0.10, min_each=1, carry_over=0)
    made = pairs(table(*range(100)), rule)
    assert made == {(good, bad) for good in (98, 99, 100) for bad in range(1, 11)}


def test_at_least_min_each_on_both_sides() -> None:
    rule = RULE.model_copy(update={"min_each": 3})
    assert pairs(table(*TEN), rule) == {(good, bad) for good in (6, 9, 3) for bad in (2, 10, 4)}


def test_no_program_is_chosen_and_rejected() -> None:
    rule = RULE.model_copy(update={"min_each": 8})
    made = pairs(table(10, 20, 30, 40, 50), rule)
    assert made == {(good, bad) for good in (5, 4) for bad in (1, 2)}


@pytest.mark.parametrize("attempts", [[], table(50)], ids=["none", "one"])
def test_too_few_programs_give_no_pair(attempts: list[Attempt]) -> None:
    assert pairs(attempts) == set()


def test_a_single_program_is_no_rejected_example_for_earlier_ones() -> None:
    rule = RULE.model_copy(update={"carry_over": 3})
    attempts = table(50, 60) + table(10, iteration=2, first=3)
    assert pairs(attempts, rule, iteration=2) == set()


def test_equal_scores_teach_nothing() -> None:
    assert pairs(table(40, 40, 40, 40)) == set()


def test_only_real_differences_are_pairs() -> None:
    rule = RULE.model_copy(update={"min_each": 2})
    assert pairs(table(40, 40, 40, 30), rule) == {(1, 4), (2, 4)}


def test_ties_among_the_best_go_to_the_earlier() -> None:
    assert pairs(table(10, 90, 90, 90, 20)) == {(2, 1)}


def test_ties_among_the_worst_go_to_the_later() -> None:
    assert pairs(table(10, 10, 90, 10, 20)) == {(3, 4)}


def test_programs_that_behave_alike_count_once() -> None:
    attempts = table(90, 90, 50, 40, 10, 10)
    attempts[1] = replace(attempts[1], fingerprint="print 1")
    attempts[5] = replace(attempts[5], fingerprint="print 5")
    rule = RULE.model_copy(update={"min_each": 2})
    assert pairs(attempts, rule) == {(1, 4), (1, 5), (3, 4), (3, 5)}


def test_copies_of_a_model_are_no_algorithm() -> None:
    attempts = table(50, 95, 10)
    attempts[1] = replace(attempts[1], outcome=Outcome(State.SCORED, copy_of="expert"))
    assert pairs(attempts) == {(1, 3)}


def test_baselines_are_no_examples() -> None:
    attempts = [*table(50, 10), attempt(3, 99, kind="baseline")]
    assert pairs(attempts) == {(1, 2)}


def test_other_iterations_are_left_out() -> None:
    attempts = table(50, 10) + table(99, 1, iteration=2, first=3)
    assert pairs(attempts) == {(1, 2)}


def test_the_best_of_every_earlier_iteration_are_carried_over() -> None:
    first, second = table(30, 50, 40), table(70, 60, 10, iteration=2, first=4)
    third = table(20, 65, iteration=3, first=7)
    rule = RULE.model_copy(update={"carry_over": 2})
    made = pairs(first + second + third, rule, iteration=3)
    assert made == {(good, 7) for good in (8, 2, 3, 4, 5)}


def test_carried_over_programs_must_be_better_too() -> None:
    rule = RULE.model_copy(update={"carry_over": 1})
    attempts = table(20, 10) + table(90, 80, iteration=2, first=3)
    assert pairs(attempts, rule, iteration=2) == {(3, 4)}


def test_failures_are_filtered_out_by_default() -> None:
    assert pairs([*table(50, 10), attempt(3, None)]) == {(1, 2)}


def test_failures_may_be_rejected_examples() -> None:
    failed = [
        attempt(3, None),
        attempt(4, None, outcome=Outcome(State.INVALID), fingerprint=None),
        attempt(5, None, iteration=2),
    ]
    rule = RULE.model_copy(update={"failures_as_rejected": True})
    assert pairs([*table(50, 10), *failed], rule) == {(1, 2), (1, 3), (1, 4)}


@pytest.mark.parametrize("state", [State.FORBIDDEN, State.MERGED])
def test_these_states_are_no_programs_fault(state: State) -> None:
    rule = RULE.model_copy(update={"failures_as_rejected": True})
    assert pairs([*table(50, 10), attempt(3, None, outcome=Outcome(state))], rule) == {(1, 2)}


def test_at_most_max_pairs_of_all_possible() -> None:
    everything = pairs(table(*range(40)))
    rule = RULE.model_copy(update={"max_pairs": 5})
    few = pairs(table(*range(40)), rule)
    assert len(everything) == 4 * 8
    assert len(few) == 5
    assert few < everything


def test_order_is_random_and_repeatable() -> None:
    attempts = table(*range(40))
    made = [make_pairs(attempts, 1, RULE, random.Random(seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1]
    assert made[0] != made[2]
    assert sorted(made[0], key=key) == sorted(made[2], key=key)


def key(pair: Pair) -> tuple[int, int]:
    return pair.chosen, pair.rejected


HALVES = Pairs(rule="same-prompt-halves", carry_over=0, floor=0.0, max_pairs=1000)


def test_each_of_the_better_half_meets_one_of_the_worse_half() -> None:
    made = pairs(table(*TEN), HALVES)
    better, worse = {6, 9, 3, 5, 1}, {2, 10, 4, 7, 8}
    assert sorted(good for good, _ in made) == sorted(better)
    assert sorted(bad for _, bad in made) == sorted(worse)


def test_halves_are_of_distinct_scores() -> None:
    # 50, 40, 30: the better half of three scores is one score, which two programs have.
    made = pairs(table(50, 50, 40, 30), HALVES)
    assert {good for good, _ in made} == {1, 2}
    assert {bad for _, bad in made} == {3, 4}
    assert pairs(table(50, 50), HALVES) == set()


def test_chosen_programs_reach_the_floor() -> None:
    high = HALVES.model_copy(update={"floor": 0.7})
    assert {good for good, _ in pairs(table(*TEN), high)} == {6, 9, 3}  # the best three of ten


def test_every_failure_is_rejected_once_by_the_halves() -> None:
    failed = [attempt(i, None) for i in (11, 12, 13)]
    made = pairs([*table(*TEN), *failed], HALVES.model_copy(update={"floor": 0.85}))
    assert {(6, 11), (6, 13)} <= made  # in turn with the programs at the floor, best first
    assert {good for good, _ in made} <= {6, 9}
    assert sorted(bad for _, bad in made if bad > 10) == [11, 12, 13]
    assert pairs([*table(50), attempt(2, None)], HALVES) == {(1, 2)}
    assert pairs([attempt(2, None)], HALVES) == set()


WEIGHTED = Pairs(rule="score-weighted", carry_over=0, max_pairs=1)


def test_any_two_programs_of_different_scores_may_be_a_pair() -> None:
    everything = WEIGHTED.model_copy(update={"max_pairs": 100})
    assert pairs(table(50, 20, 20, 80), everything) == {(4, 1), (4, 2), (4, 3), (1, 2), (1, 3)}


@pytest.mark.parametrize(("sharpness", "share"), [(1.0, 0.5), (2.0, 0.9**2 / (0.9**2 + 0.6**2 + 0.3**2))])
def test_pairs_are_drawn_by_their_difference(sharpness: float, share: float) -> None:
    # Differences of 90, 60 and 30 questions of 100; the first pair drawn is the widest with this share.
    rule = WEIGHTED.model_copy(update={"sharpness": sharpness})
    attempts = table(95, 35, 5)
    drawn = [make_pairs(attempts, 1, rule, random.Random(seed)) for seed in range(2000)]
    widest = sum(made == [Pair(1, 3)] for made in drawn) / len(drawn)
    assert widest == pytest.approx(share, abs=0.04)


def test_a_failure_counts_as_nothing_right_in_the_draw() -> None:
    rule = WEIGHTED.model_copy(update={"max_pairs": 100, "failures_as_rejected": True})
    assert pairs([*table(50, 0), attempt(3, None)], rule) == {(1, 2), (1, 3)}
    without = rule.model_copy(update={"failures_as_rejected": False})
    assert pairs([*table(50, 0), attempt(3, None)], without) == {(1, 2)}


EVERY_RULE = pytest.mark.parametrize("name", ["paper", "same-prompt-halves", "score-weighted"])


@EVERY_RULE
def test_every_rule_keeps_what_all_must_keep(name: str) -> None:
    stopped = Score((True,) * 9, (True,) * 9)  # a race stopped it after nine right answers
    attempts = [
        *table(*range(0, 90, 3)),
        *table(*range(1, 60, 2), iteration=2, first=50),
        attempt(100, 0, 2, score=stopped),
        attempt(101, None, 2),
        attempt(102, None, 2, outcome=Outcome(State.FORBIDDEN)),
        attempt(103, None, 2, outcome=Outcome(State.MERGED)),
        attempt(104, 99, 2, outcome=Outcome(State.SCORED, copy_of="expert")),
        attempt(105, 99, 2, kind="baseline"),
    ]
    rule = Pairs.model_validate(
        {"rule": name, "failures_as_rejected": True, "min_each": 1, "carry_over": 2, "max_pairs": 40}
    )
    made = make_pairs(attempts, 2, rule, random.Random(1))
    by_id = {a.id: a for a in attempts}
    assert 0 < len(made) <= 40
    assert len(set(made)) == len(made)
    assert made == make_pairs(attempts, 2, rule, random.Random(1))
    assert made != make_pairs(attempts, 2, rule, random.Random(2))
    for pair in made:
        good, bad = by_id[pair.chosen], by_id[pair.rejected]
        assert good.score is not None
        assert good.score.accuracy > (bad.score.accuracy if bad.score else -1)
        assert bad.iteration == 2
        assert pair.chosen != 100
        assert not {pair.chosen, pair.rejected} & {102, 103, 104, 105}


@EVERY_RULE
def test_the_best_of_earlier_iterations_may_be_chosen_by_every_rule(name: str) -> None:
    attempts = table(20, 90, 80) + table(70, 60, 10, iteration=2, first=4)
    rule = Pairs.model_validate({"rule": name, "min_each": 1, "carry_over": 1, "floor": 0.0})
    chosen = {pair.chosen for pair in make_pairs(attempts, 2, rule, random.Random(0))}
    assert 2 in chosen
    assert not {1, 3} & chosen
