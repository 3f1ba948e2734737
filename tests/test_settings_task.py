"""The task section of a config: what a task brings along, and keys that do not fit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import small_config
from test_public_tasks import gsm8k, write

from selfdev import collect, run
from selfdev.errors import SelfdevError
from selfdev.lab.questions import SKILLS
from selfdev.records import Score
from selfdev.store.archive import Archive
from selfdev.tasks.tasks import load_besides, load_task


def test_math_brings_its_grader_and_its_four_examples() -> None:
    task = small_config(task={"name": "math"}).task
    assert (task.shots, task.grader) == (4, "math")
    assert small_config(task={"name": "math", "shots": 2}).task.shots == 2
    assert small_config(task={"name": "gsm8k"}).task.shots == 5


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"name": "math", "shots": 5}, "shots is 5 and math has 4 examples; lower it"),
        (
            {"name": "gsm8k", "grader": "math"},
            "grader is math and gsm8k is graded by number; leave the key out",
        ),
        (
            {"name": "lab", "path": "data"},
            "path is for gsm8k, math and lm-eval and the task is lab; leave it out",
        ),
        (
            {"name": "q.jsonl", "i_know_dev_is_test": True},
            "i_know_dev_is_test is for gsm8k, math and lm-eval",
        ),
        ({"grading": "loose"}, "task.grading"),
        (
            {"skills": ["sum", "tims"]},
            "skills has 'tims', which is no skill of the lab; the nearest is times",
        ),
        (
            {"name": "q.jsonl", "skills": ["sum"]},
            "skills is for lab and the task is q.jsonl; leave it out",
        ),
    ],
)
def test_keys_that_do_not_fit_the_task_are_refused(task: dict[str, Any], words: str) -> None:
    with pytest.raises(SelfdevError, match=words):
        small_config(task=task)


@pytest.fixture
def school(tmp_path: Path) -> Path:
    write(tmp_path / "test.jsonl", gsm8k("Test", 60))
    return tmp_path


def of_test_alone(school: Path, **more: Any) -> Any:
    task = {"name": "gsm8k", "path": str(school), "dev": 10, "finalist_dev": 20, "test": 0, **more}
    return small_config(task=task)


def test_dev_is_not_taken_from_test_without_being_told(school: Path) -> None:
    with pytest.raises(SelfdevError, match=r"no dev questions, .* task\.i_know_dev_is_test: true"):
        run.check_questions(of_test_alone(school))


def test_who_knows_gets_dev_from_test_and_the_report_says_it(school: Path, tmp_path: Path) -> None:
    config = of_test_alone(school, i_know_dev_is_test=True)
    run.check_questions(config)
    assert run.dev_from_test(config) == 30
    archive = Archive(tmp_path / "archive.sqlite", create=True)
    run.settle_config(config, tmp_path, archive)
    archive.add_examined("seed", "seed", "test", None, Score((True,), (True,)))
    assert collect.DEV_IS_TEST in collect.collect(tmp_path, archive).notes
    archive.close()


def test_the_reading_that_leads_ranks_models_and_both_are_reported(tmp_path: Path) -> None:
    config = small_config(task={"grading": "flexible"})
    archive = Archive(tmp_path / "archive.sqlite", create=True)
    run.settle_config(config, tmp_path, archive)
    archive.add_examined("seed", "seed", "test", None, Score((True, False, False), (True, True, False)))
    kept = archive.examined("test")["seed"]
    assert (kept.correct, kept.lead, kept.interval[0] < 2 / 3 < kept.interval[1]) == (2, "flexible", True)
    archive.put("best", "seed")
    (row,) = collect.collect(tmp_path, archive).test
    assert (row.accuracy, row.strict_accuracy, row.flexible_accuracy) == (2 / 3, 1 / 3, 2 / 3)
    assert row.other == ("strict", 1 / 3)
    archive.close()


def test_a_task_besides_may_be_its_name_alone() -> None:
    config = small_config(besides=["math", {"name": "q.jsonl", "grader": "exact", "test": 3}])
    math, own = config.besides
    assert (math.name, math.shots, math.grader, math.test) == ("math", 4, "math", 0)
    assert (own.name, own.grader, own.test, own.max_new_tokens) == ("q.jsonl", "exact", 3, 256)


@pytest.mark.parametrize(
    ("besides", "words"),
    [
        (["lab"], r"besides\.0 is lab, which is asked already; name a task that the search never sees"),
        (["gsm8k", "gsm8k"], r"besides\.1 is gsm8k, which is asked already"),
        (["gsm"], "the nearest is gsm8k"),
        ([{"name": "gsm8k", "dev": 3}], r"unknown key besides\.0\.dev"),
        ([{"name": "gsm8k", "shot": 3}], r"unknown key besides\.0\.shot, .* is besides\.shots"),
        ([{"name": "gsm8k", "zzz": 3}], r"unknown key besides\.0\.zzz, .* is besides\."),
        ([{"name": "gsm8k", "grader": "math"}], "gsm8k is graded by number"),
    ],
)
def test_wrong_tasks_besides_are_refused(besides: list[Any], words: str) -> None:
    with pytest.raises(SelfdevError, match=words):
        small_config(besides=besides)


def test_a_file_besides_is_asked_whole_and_only_where_it_is_new(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"question": f"{i} and {i}?", "answer": 2 * i}) for i in range(9)))
    config = small_config(besides=[{"name": str(other), "shots": 1}])
    task, asked = load_besides(config.besides[0])
    assert (len(asked), len(task.test)) == (8, 4)
    run.check_questions(config)
    few = small_config(besides=[{"name": str(other), "shots": 0, "test": 10}])
    with pytest.raises(SelfdevError, match=r"besides\.0\.test asks for 10 questions and .* has 9; lower it"):
        run.check_questions(few)


def test_a_task_besides_with_a_question_of_the_search_is_refused(tmp_path: Path) -> None:
    rows = [{"question": f"{i} and {i}?", "answer": 2 * i} for i in range(90)]
    mine, other = tmp_path / "mine.jsonl", tmp_path / "other.jsonl"
    mine.write_text("\n".join(map(json.dumps, rows)))
    dev = load_task(str(mine)).dev[0]
    old = next(row for row in rows if f"Question: {row['question']}\n" in dev.prompt)
    other.write_text("\n".join(map(json.dumps, [old, {"question": "new?", "answer": 1}])))
    task = {"name": str(mine), "shots": 0, "grader": "number", "dev": 20, "finalist_dev": 20, "test": 20}
    config = small_config(task=task, besides=[{"name": str(other), "shots": 0}])
    with pytest.raises(SelfdevError, match=r"1 of the questions of .* are dev questions of the search"):
        run.check_questions(config)


def test_skills_that_a_search_leaves_out_may_be_asked_besides() -> None:
    config = small_config(task={"skills": ["times", "sum"]}, besides=[{"name": "lab", "skills": ["share"]}])
    assert (config.task.skills, config.task.title) == (("sum", "times"), "lab (sum, times)")
    assert config.besides[0].title == "lab (share)"
    assert small_config(task={"skills": list(SKILLS)}).task.title == small_config().task.title == "lab"
    with pytest.raises(SelfdevError, match="is lab, which is asked already"):
        small_config(task={"skills": list(SKILLS)}, besides=["lab"])
