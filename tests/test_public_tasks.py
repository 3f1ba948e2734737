"""GSM8K and MATH: the prompts of lm-evaluation-harness, dev and test apart, from folder and hub."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from public_data import folder

from selfdev.errors import SelfdevError
from selfdev.tasks.grading import grade
from selfdev.tasks.public import GSM8K_STOPS, MATH_STOPS, minerva
from selfdev.tasks.tasks import load_task


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def gsm8k(name: str, count: int) -> list[dict[str, Any]]:
    return [
        {"question": f"{name} {i} and {i}?", "answer": f"It is <<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i}"}
        for i in range(count)
    ]


def math(name: str, count: int) -> list[dict[str, Any]]:
    return [
        {"problem": f"{name} ${i}^2$?", "solution": rf"It is $\boxed{{{i * i}}}$.", "type": "Algebra"}
        for i in range(count)
    ]


@pytest.fixture
def school(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", gsm8k("Train", 12))
    write(tmp_path / "test.jsonl", gsm8k("Test", 7))
    return tmp_path


@pytest.fixture
def contest(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", math("Train", 12))
    write(tmp_path / "test.jsonl", math("Test", 7))
    return tmp_path


def test_gsm8k_prompt_is_the_golden_text(school: Path) -> None:
    # The harness draws the examples of question i with the i-th sample of Random(1234).
    rng = random.Random(1234)
    drawn = [rng.sample(range(12), 2) for _ in range(7)][1]
    golden = "".join(
        f"Question: Train {i} and {i}?\nAnswer: It is <<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i}\n\n"
        for i in drawn
    )
    task = load_task("gsm8k", 2, path=str(school))
    assert task.test[1].prompt == golden + "Question: Test 1 and 1?\nAnswer:"
    assert (task.test[1].answer, task.grader, task.stops) == ("2", "number", GSM8K_STOPS)


def test_math_prompt_is_the_golden_text(contest: Path) -> None:
    task = load_task("math", 1, path=str(contest))
    question = next(q for q in task.test if q.answer == "9")
    assert question.prompt == (
        "Problem:\nFind the domain of the expression  $\\frac{\\sqrt{x-2}}{\\sqrt{5-x}}$.\n\n"
        "Solution: The expressions inside each square root must be non-negative. Therefore, $x-2 \\ge 0$, so"
        " $x\\ge2$, and $5 - x \\ge 0$, so $x \\le 5$. Also, the denominator cannot be equal to zero, so"
        " $5-x>0$, which gives $x<5$. Therefore, the domain of the expression is $\\boxed{[2,5)}$.\n"
        "Final Answer: The final answer is $[2,5)$. I hope it is correct.\n\n"
        "Problem:\nTest $3^2$?\n\nSolution:"
    )
    assert (task.grader, task.stops, question.skill) == ("math", MATH_STOPS, "Algebra")


def test_minervas_examples_are_those_of_the_paper() -> None:
    assert [maths_answer(solution) for _, solution in minerva()] == ["[2,5)", "24", "16", r"-\frac{2}{3}"]
    # Of the samples in lm-evaluation-harness 0.4.13, minerva_math version 3.1.
    digest = hashlib.sha256(json.dumps(minerva()).encode()).hexdigest()
    assert digest == "fd92c7e5c11c8ff7131328a0ce678c2071dbd8c22a61566c5ea06796ef1a01ae"


def maths_answer(solution: str) -> str:
    (found,) = [line for line in solution.splitlines() if line.startswith("Final Answer")]
    return found.removeprefix("Final Answer: The final answer is $").removesuffix("$. I hope it is correct.")


def test_no_shots_is_the_bare_question(school: Path) -> None:
    assert load_task("gsm8k", 0, path=str(school)).test[0].prompt == "Question: Test 0 and 0?\nAnswer:"


def test_dev_comes_from_train_and_test_from_test(school: Path) -> None:
    task = load_task("gsm8k", 2, path=str(school))
    assert {q.messages[-1].split()[1] for q in task.dev} == {"Train"}
    assert [q.answer for q in task.test] == [str(2 * i) for i in range(7)]
    assert sorted(int(q.answer) for q in task.dev) == [2 * i for i in range(12)]
    assert [q.answer for q in task.dev] != sorted((q.answer for q in task.dev), key=int)
    assert load_task("gsm8k", 2, path=str(school)) == task


def test_no_dev_question_is_its_own_example(school: Path) -> None:
    for question in load_task("gsm8k", 5, path=str(school)).dev:
        assert len(question.messages) == 11
        assert question.messages[-1] not in question.messages[:-1]


def test_examples_shown_in_every_prompt_are_no_dev_questions(contest: Path) -> None:
    problem, solution = minerva()[1]
    write(contest / "train.jsonl", [*math("Train", 3), {"problem": problem, "solution": solution}])
    assert sorted(q.answer for q in load_task("math", 4, path=str(contest)).dev) == ["0", "1", "4"]


def test_the_order_of_math_is_mixed_and_that_of_gsm8k_is_kept(contest: Path) -> None:
    answers = [int(q.answer) for q in load_task("math", 4, path=str(contest)).test]
    assert sorted(answers) == [i * i for i in range(7)] != answers


def test_dev_out_of_test_when_asked_for(school: Path) -> None:
    task = load_task("gsm8k", 2, path=str(school), dev_from_test=3)
    assert (len(task.dev), len(task.test)) == (3, 4)
    assert {q.messages[-1].split()[1] for q in (*task.dev, *task.test)} == {"Test"}
    assert len({q.messages[-1] for q in (*task.dev, *task.test)}) == 7


def test_without_train_there_is_no_dev(school: Path) -> None:
    for path in (school / "test.jsonl", school):
        (school / "train.jsonl").unlink(missing_ok=True)
        task = load_task("gsm8k", 2, path=str(path))
        assert len(task.test) == 7
        assert all(q.messages[-1] not in q.messages[:-1] for q in task.test)
        with pytest.raises(SelfdevError, match=r"has no train\.jsonl; add one, or take dev from test with"):
            task.split("dev")


def test_overlap_of_dev_and_test_is_refused(school: Path) -> None:
    rows = gsm8k("Train", 12)
    rows[4]["question"] = "test  3 AND 3?"
    write(school / "train.jsonl", rows)
    with pytest.raises(
        SelfdevError, match=r"1 dev question\(s\) stand in test too, the first is 'test  3 AND 3\?'"
    ):
        load_task("gsm8k", 2, path=str(school))


def test_more_examples_than_minerva_has_are_refused(contest: Path) -> None:
    with pytest.raises(SelfdevError, match="task math has 4 examples and shots is 5; lower it"):
        load_task("math", 5, path=str(contest))


@pytest.mark.parametrize("shots", [12, 100])
def test_more_examples_than_train_has_are_refused(school: Path, shots: int) -> None:
    with pytest.raises(SelfdevError, match=f"gsm8k has 12 questions in .* and shots is {shots}; lower it"):
        load_task("gsm8k", shots, path=str(school))


@pytest.mark.parametrize(("name", "key"), [("gsm8k", "answer"), ("math", "solution"), ("math", "problem")])
def test_a_number_where_a_text_belongs_is_named(tmp_path: Path, name: str, key: str) -> None:
    (row,) = (gsm8k if name == "gsm8k" else math)("Test", 1)
    write(tmp_path / "test.jsonl", [row, row | {key: 5}])
    with pytest.raises(SelfdevError, match=f"line 2 has no text {key}"):
        load_task(name, 0, path=str(tmp_path))


def test_a_bad_line_is_named(school: Path) -> None:
    with (school / "test.jsonl").open("a") as file:
        file.write('{"question": "What?"}\n')
    with pytest.raises(SelfdevError, match=r"test\.jsonl line 8 has no answer"):
        load_task("gsm8k", 2, path=str(school))


@pytest.mark.parametrize(
    ("name", "dataset"), [("gsm8k", "openai/gsm8k"), ("math", "EleutherAI/hendrycks_math")]
)
def test_a_dataset_that_cannot_be_fetched_is_named(
    name: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(tmp_path, monkeypatch)
    with pytest.raises(
        SelfdevError, match=f"task {name} needs the dataset {dataset}, .*go online once, or give"
    ):
        load_task(name, 4)


def test_a_fetched_dataset_is_read_offline(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    cache = hub(tmp_path, monkeypatch) / "datasets--openai--gsm8k"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    for split, rows in (("train", gsm8k("Train", 12)), ("test", gsm8k("Test", 7))):
        place = cache / "snapshots" / ("0" * 40) / "main"
        place.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows).to_parquet(str(place / f"{split}-00000-of-00001.parquet"))
    fetched = load_task("gsm8k", 2)
    local = load_task("gsm8k", 2, path=str(school))
    assert (fetched.dev, fetched.test) == (local.dev, local.test)


def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no way to the hub itself."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_gsm8k_whole_has_the_harness_prompts() -> None:
    task = load_task("gsm8k", 5, path=str(folder("gsm8k")))
    assert (len(task.dev), len(task.test)) == (7473, 1319)
    # Of all 1,319 prompts that lm-evaluation-harness 0.4.13 builds for gsm8k with its default seed.
    digest = hashlib.sha256("\0".join(q.prompt for q in task.test).encode()).hexdigest()
    assert digest == "84119a05b6c77e92415182c7963444e153dd2df04e05e238744f26b105c0a8b6"
    sample = task.dev[::100]
    assert {grade(q.solution or "", q.answer) for q in sample} == {(True, True)}
