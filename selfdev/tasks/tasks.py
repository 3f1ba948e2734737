"""Tasks by name: the lab, GSM8K, MATH, and JSONL files."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from selfdev.config.task import TaskBesides
from selfdev.errors import SelfdevError
from selfdev.lab import questions as lab
from selfdev.tasks.grading import Grader, extract, grade, letter_of, letters
from selfdev.tasks.public import load_gsm8k, load_math
from selfdev.tasks.questions import (
    SPLITS,
    STOPS,
    Question,
    Task,
    asked,
    held_out,
    last_turn,
    normalised,
    pose,
)
from selfdev.tasks.rows import Row, read_rows

__all__ = ["SPLITS", "STOPS", "Question", "Task", "extract", "grade", "load_task"]

HARNESS = "lm-eval:"  # in front of the name of a task of lm-evaluation-harness
MOST_SHOTS = 100  # solved examples before each question; more fit no model's context
LAB_SIZES = {"dev": 4000, "test": 10000}


def load_task(
    name: str,
    shots: int = 0,
    *,
    path: str | None = None,
    grader: Grader | None = None,
    dev_from_test: int = 0,
    skills: Sequence[str] = (),
) -> Task:
    """The task `lab`, `gsm8k`, `math`, `lm-eval:NAME`, or a JSONL file with `question` and `answer`.

    `path` is where gsm8k and math are read instead of the hub, for lm-eval a folder of tasks of your own;
    `grader` (default number) is for files, `skills` (default all) for the lab; `dev_from_test` takes so many
    questions of a public task's test split for dev.
    """
    if not 0 <= shots <= MOST_SHOTS:
        raise SelfdevError(f"shots is {shots} and must be from 0 to {MOST_SHOTS}; choose such a number.")
    if path is not None and (name == "lab" or name.endswith(".jsonl")):
        raise SelfdevError(f"path is for gsm8k, math and lm-eval and the task is {name}; leave it out.")
    if skills and name != "lab":
        raise SelfdevError(f"skills is for lab and the task is {name}; leave it out.")
    if name == "lab":
        return _lab(shots, tuple(skills) or lab.SKILLS)
    if name in ("gsm8k", "math"):
        return (load_gsm8k if name == "gsm8k" else load_math)(shots, path, dev_from_test)
    if name.endswith(".jsonl"):
        return _jsonl(Path(name), shots, grader or "number")
    if name.startswith(HARNESS):
        loaded: Task = harness().load(name.removeprefix(HARNESS), shots, path, dev_from_test)
        return loaded
    raise SelfdevError(
        f"task {name!r} is not known here; give lab, gsm8k, math, lm-eval:NAME or the path of a .jsonl file."
    )


def load_besides(asked: TaskBesides) -> tuple[Task, tuple[Question, ...]]:
    """A task that the search never sees, and which of its questions are asked."""
    task = load_task(asked.name, asked.shots, path=asked.path, grader=asked.grader, skills=asked.skills)
    return task, held_out(task, asked.test)


def besides_problems(besides: Sequence[TaskBesides], searched: Sequence[Question]) -> list[str]:
    """A sentence for each task besides that has too few questions, or one of those the search asks."""
    problems = []
    seen = {last_turn(question) for question in searched}
    for place, wanted in enumerate(besides):
        _, asked = load_besides(wanted)
        shared = sum(last_turn(question) in seen for question in asked)
        if len(asked) < wanted.test or not asked:
            problems.append(
                f"besides.{place}.test asks for {wanted.test} questions and {wanted.title} has {len(asked)};"
                " lower it."
            )
        if shared:
            problems.append(
                f"besides.{place}: {shared} of the questions of {wanted.title} are dev questions of the"
                " search; remove them or name another task."
            )
    return problems


def harness() -> ModuleType:
    """The bridge to lm-evaluation-harness; SelfdevError without the extra."""
    try:
        return importlib.import_module("selfdev.tasks.harness")
    except ModuleNotFoundError:
        raise SelfdevError(
            "tasks of lm-evaluation-harness need the extra lm-eval; pip install 'selfdev[lm-eval]'."
        ) from None


def _lab(shots: int, skills: tuple[str, ...]) -> Task:
    examples = [(asked(q.text), q.solution) for q in lab.questions("train", shots, skills=skills)]
    dev, test = (
        tuple(
            pose(examples, asked(q.text), q.answer, q.solution, q.skill)
            for q in lab.questions(split, LAB_SIZES[split], skills=skills)
        )
        for split in SPLITS
    )
    return Task("lab", dev, test)


def _jsonl(path: Path, shots: int, grader: Grader) -> Task:
    """Rows in a fixed random order: examples, then one half dev and one half test."""
    first: dict[str, Row] = {}  # a repeated question would leak from dev into test
    for row in read_rows(path, ("question", "answer"), maybe=("solution", "choices", "subject")):
        first.setdefault(normalised(str(row["question"])), row)
    rows = list(first.values())
    random.Random(0).shuffle(rows)
    if len(rows) < shots + 2:
        raise SelfdevError(f"{path} has {len(rows)} questions, fewer than the {shots + 2} needed; add some.")
    questions = [_question(path, row, grader) for row in rows]
    examples = [(q.prompt, q.solution or f"#### {q.answer}") for q in questions[:shots]]
    posed = [pose(examples, q.prompt, q.answer, q.solution, q.skill, q.choices) for q in questions[shots:]]
    half = len(posed) // 2
    return Task(str(path), tuple(posed[:half]), tuple(posed[half:]), grader)


def _question(path: Path, row: Row, grader: Grader) -> Question:
    """A row as a question without examples; a choice is known by its letter."""
    text, answer, choices = str(row["question"]), str(row["answer"]), row.get("choices") or ()
    if grader == "choice" and letter_of(answer, choices) is None:
        raise SelfdevError(
            f"{path}: {text[:60]!r} has the answer {answer!r} and the choices {choices!r}; the grader choice"
            " needs a list of choices, and one of them, or its letter, as the answer."
        )
    listed = "".join(f"\n{a}. {c}" for a, c in zip(letters(choices), choices, strict=True))
    gold = letter_of(answer, choices) if grader == "choice" else None
    return pose(
        (), asked(text + listed), gold or answer, row.get("solution"), row.get("subject") or "", choices
    )
