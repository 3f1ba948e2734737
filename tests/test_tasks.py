"""Tasks: readings of replies by hand, questions from files and from the lab."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from selfdev.errors import SelfdevError
from selfdev.lab.questions import SKILLS
from selfdev.tasks.tasks import Question, Task, extract, grade, load_task


@pytest.fixture(scope="module")
def lab() -> Task:
    return load_task("lab")


@pytest.mark.parametrize(
    ("reply", "strict", "flexible"),
    [
        ("3+4=7\n#### 7", "7", "7"),
        ("#### 1,234", "1234", "1234"),
        ("#### 12.", "12", "12"),
        ("#### -5", "-5", "-5"),
        ("#### 3.5", "3.5", "3.5"),
        ("it costs $18 in all", None, "18"),
        ("first 3, then 9", None, "9"),
        ("#### 7 because 7 is 3+4", "7", "4"),
        ("#### 1\n#### 2", "1", "2"),
        ("####7", None, "7"),
        ("The answer is seven.", None, None),
        ("", None, None),
    ],
)
def test_readings(reply: str, strict: str | None, flexible: str | None) -> None:
    assert extract(reply) == (strict, flexible)


@pytest.mark.parametrize(
    ("reply", "answer", "graded"),
    [
        ("#### 42", "42", (True, True)),
        ("so it is 42", "42", (False, True)),
        ("#### 42 of 50", "42", (True, False)),
        ("#### 4", "42", (False, False)),
        ("#### 420", "42", (False, False)),
        ("#### 1,000", "1000", (True, True)),
        ("#### 1000", "1,000", (True, True)),
        ("no number", "42", (False, False)),
    ],
)
def test_grades(reply: str, answer: str, graded: tuple[bool, bool]) -> None:
    assert grade(reply, answer) == graded


def test_every_gold_solution_of_the_lab_is_graded_right(lab: Task) -> None:
    asked = [*lab.dev, *lab.test]
    assert {grade(f" {q.solution}", q.answer) for q in asked} == {(True, True)}


def test_lab_prompt_is_question_and_answer(lab: Task) -> None:
    first, *rest = lab.dev[0].prompt.split("\n")
    assert first.startswith("Question: ")
    assert rest == ["Answer:"]


@pytest.fixture(scope="module")
def lab_with_examples() -> Task:
    return load_task("lab", 2)


def test_lab_examples_stand_in_front(lab: Task, lab_with_examples: Task) -> None:
    plain, shown = lab.test[0], lab_with_examples.test[0]
    assert shown.prompt.endswith(f"\n\n{plain.prompt}")
    blocks = shown.prompt.split("\n\n")
    assert len(blocks) == 3
    for block in blocks[:2]:
        lines = block.split("\n")
        assert lines[0].startswith("Question: ")
        assert lines[1].startswith("Answer: ")
        assert lines[-1].startswith("#### ")


def test_lab_examples_are_no_dev_or_test_questions(lab_with_examples: Task) -> None:
    task = lab_with_examples
    asked = {q.prompt.split("\n\n")[-1].split("\n")[0] for q in (*task.dev, *task.test)}
    examples = {block.split("\n")[0] for block in task.dev[0].prompt.split("\n\n")[:2]}
    assert len(examples) == 2
    assert not examples & asked


def test_unknown_task_and_split() -> None:
    with pytest.raises(SelfdevError, match="task 'gsm9k' is not known"):
        load_task("gsm9k")
    with pytest.raises(SelfdevError, match="split 'train' does not exist; choose dev or test"):
        Task("t", (), ()).split("train")


def test_split_by_name() -> None:
    dev, test = Question("a", "1"), Question("b", "2")
    task = Task("t", (dev,), (test,))
    assert task.split("dev") == (dev,)
    assert task.split("test") == (test,)


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def rows(n: int) -> list[dict[str, object]]:
    return [{"question": f"What is {i} plus {i}?", "answer": 2 * i} for i in range(n)]


def test_jsonl_is_one_half_dev_and_one_half_test(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "q.jsonl", rows(10)))
    assert (len(task.dev), len(task.test)) == (5, 5)
    assert {q.answer for q in (*task.dev, *task.test)} == {str(2 * i) for i in range(10)}


def test_jsonl_has_one_fixed_random_order(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", rows(10))
    task, again = load_task(path), load_task(path)
    order = list(range(10))
    random.Random(0).shuffle(order)
    assert [q.answer for q in (*task.dev, *task.test)] == [str(2 * i) for i in order]
    assert task == again


def test_jsonl_prompt_is_the_golden_text(tmp_path: Path) -> None:
    made = [
        (f"{word} plus {word}?", f"{n}+{n}={2 * n}\n#### {2 * n}")
        for n, word in enumerate(("one", "two", "six"))
    ]
    asked: list[dict[str, object]] = [{"question": q, "answer": s[-1], "solution": s} for q, s in made]
    random.Random(0).shuffle(made)  # the order the file is known to get
    (first, worked), (second, solution), _ = made
    task = load_task(write(tmp_path / "q.jsonl", asked), shots=1)
    expected = f"Question: {first}\nAnswer: {worked}\n\nQuestion: {second}\nAnswer:"
    (question,) = task.dev
    assert (question.prompt, question.answer, question.solution) == (expected, solution[-1], solution)


def test_an_example_without_solution_shows_its_answer(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "q.jsonl", rows(4)), shots=2)
    blocks = task.dev[0].prompt.split("\n\n")
    assert len(blocks) == 3
    number = int(blocks[0].split()[3])
    assert blocks[0] == f"Question: What is {number} plus {number}?\nAnswer: #### {2 * number}"


def test_repeated_questions_do_not_leak_from_dev_to_test(tmp_path: Path) -> None:
    repeated = [{"question": "what is  0 PLUS 0?", "answer": 0}]
    task = load_task(write(tmp_path / "q.jsonl", [*rows(4), *repeated]))
    assert len(task.dev) + len(task.test) == 4


def test_empty_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n\n{"question": "b"}\n')
    with pytest.raises(SelfdevError, match="line 3 has no answer"):
        load_task(str(path))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "line 2 is not JSON"),
        ("[1, 2]", "line 2 has no question"),
        ('{"answer": "3"}', "line 2 has no question"),
        ('{"question": "  ", "answer": "3"}', "line 2 has no question"),
        ('{"question": "b", "answer": ""}', "line 2 has no answer"),
        ('{"question": "b", "answer": null}', "line 2 has no answer"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('{"question": "b", "answer": 5, "solution": 5}', "line 2 has 5 for solution; give a text"),
        ('{"question": "b", "answer": 5, "choices": 5}', "line 2 has 5 for choices; give a list"),
        ('{"question": "b", "answer": 5, "choices": [1, 2]}', r"line 2 has \[1, 2\] for choices"),
        (
            json.dumps({"question": "b", "answer": "1", "choices": [str(i) for i in range(27)]}),
            "for choices; give a list of at most 26 texts, or leave it out",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(f'{{"question": "a", "answer": "1"}}\n{line}\n')
    with pytest.raises(SelfdevError, match=words):
        load_task(str(path))


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(json.dumps(row) for row in rows(4)).encode())
    task = load_task(str(path))
    assert len(task.dev) + len(task.test) == 4


@pytest.mark.parametrize("name", ["lab", "q.jsonl"])
def test_a_path_that_a_task_does_not_read_is_refused(name: str) -> None:
    with pytest.raises(SelfdevError, match=f"path is for gsm8k, math and lm-eval and the task is {name}"):
        load_task(name, path="nope")


def test_files_that_hold_too_little(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("")
    with pytest.raises(SelfdevError, match="has no questions"):
        load_task(str(path))
    with pytest.raises(SelfdevError, match="has 3 questions, fewer than the 7 needed"):
        load_task(write(path, rows(3)), shots=5)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match=r"none.jsonl cannot be read"):
        load_task(str(tmp_path / "none.jsonl"))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(SelfdevError, match="cannot be read"):
        load_task(str(tmp_path / "bytes.jsonl"))


def test_numbers_and_texts_are_answers_alike(tmp_path: Path) -> None:
    task = load_task(
        write(tmp_path / "q.jsonl", [{"question": "a", "answer": 5}, {"question": "b", "answer": "5"}])
    )
    assert [q.answer for q in (*task.dev, *task.test)] == ["5", "5"]


def test_zero_is_an_answer(tmp_path: Path) -> None:
    task = load_task(
        write(tmp_path / "q.jsonl", [{"question": "a", "answer": 0}, {"question": "b", "answer": 0}])
    )
    assert [q.answer for q in (*task.dev, *task.test)] == ["0", "0"]


def test_the_subject_of_a_row_is_the_kind_of_its_question(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [{"question": f"{i} + 1", "answer": i + 1, "subject": f"kind {i}"} for i in range(8)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    task = load_task(str(path), 2)
    assert all(f"{q.skill[5:]} + 1" in q.prompt.rpartition("Question: ")[2] for q in (*task.dev, *task.test))
    path.write_text(json.dumps({"question": "1 + 1", "answer": 2}) + "\n" + json.dumps(rows[0]))
    assert {q.skill for q in (*load_task(str(path)).dev, *load_task(str(path)).test)} == {"", "kind 0"}
    path.write_text(json.dumps({**rows[0], "subject": 3}))
    with pytest.raises(SelfdevError, match=r"has 3 for subject; give a text, or leave it out"):
        load_task(str(path))


def test_a_lab_of_some_skills_asks_these_alone(lab: Task) -> None:
    some = load_task("lab", 3, skills=("times", "share"))
    assert {q.skill for q in (*some.dev, *some.test)} == {"times", "share"}
    assert (len(some.dev), len(some.test)) == (len(lab.dev), len(lab.test))
    assert {q.skill for q in lab.dev} == set(SKILLS)
    assert len(some.dev[0].messages) == 2 * 3 + 1
    with pytest.raises(SelfdevError, match="skills is for lab and the task is gsm8k; leave it out"):
        load_task("gsm8k", skills=("times",))
