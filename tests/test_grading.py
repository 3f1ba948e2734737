"""Grading of numbers, words and choices: truth made by hand, and all of GSM8K where it is at hand."""

from __future__ import annotations

import pytest
from public_data import folder, read

from selfdev.tasks.grading import Grader, extract, grade, grade_all

CHOICES = ("a red car", "a blue car", "no car")


@pytest.mark.parametrize(
    ("reply", "answer", "graded"),
    [
        ("He has $<<3*6=18>>18.\n#### 18", "18", (True, True)),
        ("He has $18 left.", "18", (False, True)),
        ("#### 1,200", "1200", (True, True)),
        ("#### 18\n\nThat is 18 of 20", "18", (True, False)),
        ("#### 18..", "18", (False, False)),  # lm-evaluation-harness takes off one dot, no more
        ("#### 81", "18", (False, False)),
    ],
)
def test_numbers(reply: str, answer: str, graded: tuple[bool, bool]) -> None:
    assert grade(reply, answer) == graded


@pytest.mark.parametrize(
    ("reply", "graded"),
    [
        ("It is red.\n#### New York", (True, True)),
        ("It is red.\n#### new york", (False, True)),
        ("I think:\n New  York.", (False, True)),
        ("New York is big\nso is London", (False, False)),
        ("", (False, False)),
    ],
)
def test_exact_words(reply: str, graded: tuple[bool, bool]) -> None:
    assert grade(reply, "New York", "exact") == graded


@pytest.mark.parametrize(
    ("reply", "graded"),
    [
        ("#### B", (True, True)),
        ("(B)", (False, True)),
        ("Not A, so the answer is B.", (False, True)),
        ("First B, but then A", (False, False)),
        ("it must be a blue car", (False, True)),
        ("a red car, or no car", (False, False)),
        ("Bananas", (False, False)),
        ("#### a blue car", (False, True)),
    ],
)
@pytest.mark.parametrize("answer", ["B", "a blue car"])
def test_choices(reply: str, answer: str, graded: tuple[bool, bool]) -> None:
    assert grade(reply, answer, "choice", CHOICES) == graded


@pytest.mark.parametrize(
    ("grader", "reply", "read_"),
    [
        ("number", "a 3\n#### 1,000", ("1000", "1000")),
        ("number", "none", (None, None)),
        ("math", r"so $x=2$, \boxed{x = 2}", ("x = 2", "x = 2")),
        ("math", "so $x=2$", (None, "x=2")),
        ("exact", "one\ntwo", (None, "two")),
        ("choice", "#### C", ("C", "C")),
    ],
)
def test_what_was_read_is_told(grader: Grader, reply: str, read_: tuple[str | None, str | None]) -> None:
    assert extract(reply, grader, CHOICES) == read_
    assert grade_all([reply], ["1"], grader, [CHOICES])[0].extracted == read_


def test_grades_are_in_order() -> None:
    graded = grade_all(["#### 1", "2", ""], ["1", "2", "3"])
    assert [(g.strict, g.flexible) for g in graded] == [(True, True), (False, True), (False, False)]


def test_every_solution_of_gsm8k_is_right_and_right_for_no_other_answer() -> None:
    place = folder("gsm8k")
    solutions = [row["answer"] for name in ("train", "test") for row in read(place / f"{name}.jsonl")]
    answers = [solution.split("#### ")[1] for solution in solutions]
    assert len(solutions) == 8792
    assert {(g.strict, g.flexible) for g in grade_all(solutions, answers)} == {(True, True)}
    plain = [answer.replace(",", "") for answer in answers]
    shifted = grade_all(solutions, answers[1:] + answers[:1])
    equal = [a == b for a, b in zip(plain, plain[1:] + plain[:1], strict=True)]
    assert [g.strict for g in shifted] == [g.flexible for g in shifted] == equal
