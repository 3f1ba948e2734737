"""Recorded outputs graded from a file, and the prompt that is shown."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from conftest import Family
from public_data import folder, read
from test_public_tasks import gsm8k, write
from typer.testing import CliRunner

from selfdev import api
from selfdev.cli.cli import app
from selfdev.errors import SelfdevError


def command(*words: str) -> Any:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_numbers_of_a_file(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"response": "16-3-4=9\n#### 9", "answer": "Some work.\n#### 9"},
        {"response": "so it is 9", "answer": "9"},
        {"response": "", "answer": 9},
    ]
    write(tmp_path / "a.jsonl", rows)
    assert command("answers", "grade", str(tmp_path / "a.jsonl"), "--task", "gsm8k") == {
        "n": 3,
        "strict": 1,
        "flexible": 2,
        "results": [
            {"strict": True, "flexible": True, "extracted": {"strict": "9", "flexible": "9"}},
            {"strict": False, "flexible": True, "extracted": {"strict": None, "flexible": "9"}},
            {"strict": False, "flexible": False, "extracted": {"strict": None, "flexible": None}},
        ],
    }


def test_latex_of_a_file(tmp_path: Path) -> None:
    rows = [
        {"response": r"So \boxed{\dfrac{1}{2}}", "answer": r"\frac12"},
        {"response": "The answer is 0.5", "answer": r"It is $\boxed{\frac12}$."},
        {"response": r"\boxed{2}", "answer": r"\frac12"},
    ]
    write(tmp_path / "a.jsonl", rows)
    graded = command("answers", "grade", str(tmp_path / "a.jsonl"), "--task", "math")
    assert (graded["n"], graded["strict"], graded["flexible"]) == (3, 1, 2)
    assert graded["results"][0]["extracted"]["strict"] == r"\dfrac{1}{2}"


def test_choices_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"response": "It is B.", "answer": "B", "choices": ["no", "yes"]}])
    graded = command("answers", "grade", str(tmp_path / "a.jsonl"), "--task", "choice")
    assert (graded["strict"], graded["flexible"]) == (0, 1)


@pytest.mark.parametrize("task", ["gsm8k", "math", "exact"])
def test_answers_that_are_no_unicode_are_graded(tmp_path: Path, task: str) -> None:
    write(tmp_path / "a.jsonl", [{"response": "#### \\boxed{7\ud800}", "answer": "7"}])
    assert command("answers", "grade", str(tmp_path / "a.jsonl"), "--task", task)["n"] == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"response": "1"}, "line 2 has no answer"),
        ({"answer": "1"}, "line 2 has no text response"),
        ({"answer": "1", "response": 1}, "line 2 has no text response"),
        ({"answer": "A", "response": "A", "choices": 5}, "line 2 has 5 for choices; give a list"),
        ({"answer": "A", "response": "A", "choices": [1, 2]}, r"line 2 has \[1, 2\] for choices"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    write(tmp_path / "a.jsonl", [{"response": "1", "answer": "1"}, row])
    with pytest.raises(SelfdevError, match=words):
        api.answers_grade(tmp_path / "a.jsonl", "gsm8k")


def test_a_task_without_a_grader_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match=r"task 'q\.jsonl' cannot be graded from a file; choose from lab"):
        api.answers_grade(tmp_path / "a.jsonl", "q.jsonl")


def test_a_thousand_answers_of_math_take_half_a_minute_of_two_cores(tmp_path: Path) -> None:
    rows = read(folder("math") / "test.jsonl")[:1000]
    shifted = zip(rows, rows[1:] + rows[:1], strict=True)
    write(tmp_path / "a.jsonl", [{"response": r["solution"], "answer": s["solution"]} for r, s in shifted])
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    graded = api.answers_grade(tmp_path / "a.jsonl", "math")
    assert (graded.n, graded.strict) == (1000, graded.flexible)
    assert graded.flexible < 20
    # Processor time, as other work on the machine must not fail a test.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2 * 30


def test_show_prompt_prints_the_golden_text(tmp_path: Path, family: Family) -> None:
    write(tmp_path / "train.jsonl", gsm8k("Train", 2))
    write(tmp_path / "test.jsonl", gsm8k("Test", 2))
    words = ["score", str(family.seed), "--task", "gsm8k", "--path", str(tmp_path), "--shots", "1"]
    done = CliRunner().invoke(app, [*words, "--show-prompt"])
    # Random(1234).sample(range(2), 1) is [1].
    golden = "Question: Train 1 and 1?\nAnswer: It is <<1+1=2>>2.\n#### 2\n\nQuestion: Test 0 and 0?\nAnswer:"
    assert (done.exit_code, done.stdout) == (0, golden)
    shown = command(*words, "--show-prompt", "--split", "dev")
    assert shown["stops"] == ["Question:", "</s>", "<|im_end|>"]
    assert (shown["split"], shown["task"]) == ("dev", "gsm8k")


def test_show_prompt_of_the_lab_is_golden(family: Family) -> None:
    shown = api.show_prompt(family.seed)
    assert shown.prompt.startswith("Question: ")
    assert shown.prompt.endswith("\nAnswer:")
    assert shown.stops == ("\nQuestion:", "\n\n")


def test_show_prompt_with_the_chat_template(tmp_path: Path, family: Family) -> None:
    write(tmp_path / "q.jsonl", [{"question": f"q{i}", "answer": i} for i in range(4)])
    plain = api.show_prompt(family.seed, str(tmp_path / "q.jsonl"), shots=1)
    chat = api.show_prompt(family.seed, str(tmp_path / "q.jsonl"), shots=1, chat=True)
    # The family's template writes one message behind the other, without what stands between them.
    assert chat.prompt == plain.prompt.replace("\n\n", "").replace("Answer: #", "Answer:#")


def test_outputs_with_a_byte_order_mark_are_graded(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"response": "#### 1", "answer": "1"}')
    assert api.answers_grade(tmp_path / "a.jsonl", "gsm8k").strict == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "gsm8k", "grader": "exact"}, r"grader is for \.jsonl files and the task is gsm8k"),
        ({"task": "lab", "path": "nope"}, "path is for gsm8k, math and lm-eval and the task is lab"),
    ],
)
def test_an_option_that_a_task_does_not_use_is_refused(
    options: dict[str, Any], words: str, family: Family
) -> None:
    for verb in (api.score, api.show_prompt):
        with pytest.raises(SelfdevError, match=words):
            verb(family.seed, **options)


def test_an_unknown_grader_is_refused(tmp_path: Path, family: Family) -> None:
    with pytest.raises(SelfdevError, match="grader 'words' does not exist; choose from number, math, exact"):
        api.show_prompt(family.seed, str(tmp_path / "q.jsonl"), grader="words")
