r"""Answers in LaTeX: what is found in a reply, what equals what, and that no answer takes for ever."""

from __future__ import annotations

import os
import time

import pytest
from public_data import folder, read

from selfdev.tasks import maths


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{2}", "2"),
        (r"\boxed{1} and then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{3} and \boxed{4", "3"),  # the second was cut off
        (r"\boxed{3", None),
        ("no box", None),
        (r"\boxed{1} } \boxed{ {2}", "1"),
        (r"{ \boxed{3}", "3"),
        (r"\boxed{a} \boxed $", None),  # the last box has nothing in it
    ],
)
def test_the_last_complete_box(text: str, found: str | None) -> None:
    assert maths.boxed(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$1$ and $2$", "2"),
        ("$$x$$", "x"),
        ("$$x$", "$x"),  # not closed as it was opened
        (r"\(a\) and \[b", "a"),
        ("$$$", "$"),
        ("so $1", None),
    ],
)
def test_the_last_mathematics(text: str, found: str | None) -> None:
    assert maths._last_math(text) == found


@pytest.mark.parametrize(
    "mark", [r"\boxed{", r"\(", r"\[", "$$", "answer is ", "{", "answer is x" + " " * 60]
)
def test_marks_without_an_end_take_no_time(mark: str) -> None:
    before = time.process_time()
    maths.last_expression(mark * 20_000)
    maths.last_expression("answer is x" + " " * 40_000 + mark)
    assert time.process_time() - before < 1


EQUAL = [
    (r"\frac{1}{2}", r"\boxed{\dfrac12}"),
    (r"\frac{1}{2}", r"\boxed{0.5}"),
    ("2", r"\boxed{2.0}"),
    (r"\text{Evelyn}", r"\boxed{Evelyn}"),
    (r"(3, \frac{\pi}{2})", r"\boxed{\left( 3, \frac{\pi}{2} \right)}"),
    (r"10\sqrt{2}", r"\boxed{\sqrt{200}}"),
    ("1,234", r"\boxed{1234}"),
    (r"\$5.00", r"\boxed{5}"),
    (r"x^2+2x+1", r"\boxed{(x+1)^2}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}"),
]
DIFFERENT = [
    (r"\frac{1}{2}", r"\boxed{\frac{1}{3}}"),
    ("2", r"\boxed{-2}"),
    ("12", r"\boxed{1}"),
    ("(1,2)", r"\boxed{(2,1)}"),
    ("(1,2)", r"\boxed{[1,2]}"),
    (r"\text{Evelyn}", r"\boxed{Evan}"),
    ("x+1", r"\boxed{x-1}"),
    ("1234", r"\boxed{1,23,4}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\boxed{\begin{pmatrix}2\\1\end{pmatrix}}"),
]
UNBOXED = [
    ("24", "Final Answer: The final answer is $24$. I hope it is correct."),
    (r"\frac{3}{4}", "The answer is 3/4."),
    ("(3,4)", "So the answer is (3, 4)."),
    ("5", "The answer is 5 apples"),
    ("2", "We get $x = 2$"),
    ("A", r"Therefore $\text{A}$."),
]


def test_equal_in_a_box_is_right_under_both_readings() -> None:
    golds, replies = zip(*EQUAL, strict=True)
    assert maths.grades(replies, golds) == [(True, True)] * len(EQUAL)


def test_different_in_a_box_is_wrong() -> None:
    golds, replies = zip(*DIFFERENT, strict=True)
    assert maths.grades(replies, golds) == [(False, False)] * len(DIFFERENT)


def test_without_a_box_only_the_flexible_reading_finds_it() -> None:
    golds, replies = zip(*UNBOXED, strict=True)
    assert maths.grades(replies, golds) == [(False, True)] * len(UNBOXED)


@pytest.mark.parametrize("reply", ["", "   ", "I do not know.", r"\boxed{}", r"\frac{", "$$$$", "\x00"])
def test_replies_without_an_answer_are_wrong(reply: str) -> None:
    assert maths.grades([reply], ["7"]) == [(False, False)]


def test_the_gold_answer_may_be_a_whole_solution() -> None:
    assert maths.grades([r"\boxed{4}"], [r"As $2+2=4$ it is $\boxed{4}$."]) == [(True, True)]
    assert maths.gold("$\\frac12$") == r"\frac12"


def test_an_answer_without_end_is_stopped_and_those_around_it_are_graded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maths, "SECONDS", 0.5)
    replies = [r"\boxed{\sqrt{16}}", r"\boxed{9^{9^{9^{9^{9^9}}}}}", r"\boxed{\frac{8}{2}}"]
    before = time.process_time()
    assert maths.grades(replies, ["4", "4", "4"], processes=1) == [(True, True), (False, False), (True, True)]
    assert time.process_time() - before < 1  # the waiting is done by the kernel


def test_no_process_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    begin = maths._Child.__init__

    def counted(child: maths._Child) -> None:
        begin(child)
        started.append(child._process.pid)

    monkeypatch.setattr(maths._Child, "__init__", counted)
    maths.grades([r"\boxed{1+1}", r"\boxed{2+1}"], ["2", "3"], processes=2)
    assert 1 <= len(started) <= 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_number_of_processes_changes_no_grade() -> None:
    golds, replies = zip(*UNBOXED, *DIFFERENT[:3], strict=True)
    assert maths.grades(replies, golds, 1) == maths.grades(replies, golds, 3)


def test_every_solution_of_math_is_right_and_right_for_no_other_answer() -> None:
    solutions = [row["solution"] for row in read(folder("math") / "test.jsonl")]
    golds = [maths.gold(solution) for solution in solutions]
    assert len(solutions) == 5000
    own = maths.grades(solutions, golds)
    assert (sum(s for s, _ in own), sum(f for _, f in own)) == (5000, 5000)
    some = slice(0, None, 5)  # a fifth, as each takes some hundredths of a second
    others = golds[1:] + golds[:1]
    shifted = maths.grades(solutions[some], others[some], processes=2)
    same = {(a, b) for a, b, (s, f) in zip(golds[some], others[some], shifted, strict=True) if s or f}
    assert all(s == f for s, f in shifted)
    assert {(a, b) for a, b in same if maths.normal(a) != maths.normal(b)} <= {(r"\frac{3}{4}", r"\frac34")}
