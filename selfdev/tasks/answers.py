"""Recorded model outputs, graded without a model, and the exact prompt that a model is given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from selfdev.errors import SelfdevError
from selfdev.tasks.grading import GRADERS, Grader, grade_all
from selfdev.tasks.rows import Row, read_rows
from selfdev.tasks.tasks import Task, load_task

GRADED_BY: dict[str, Grader] = {"lab": "number", "gsm8k": "number", "math": "math"}
SHOTS = {"lab": 0, "math": 4}  # every other task: 5


@dataclass(frozen=True, slots=True)
class Graded:
    """One answer: right under each reading, and what each reading found (None: nothing)."""

    strict: bool
    flexible: bool
    extracted: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Grades:
    """Answers of a file in its order; `strict` and `flexible` count the right ones."""

    n: int
    strict: int
    flexible: int
    results: tuple[Graded, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is given for one question, character by character, and where its reply is cut."""

    task: str
    split: str
    prompt: str
    stops: tuple[str, ...]
    answer: str


def grade_file(path: Path, task: str) -> Grades:
    """Grade a JSONL file of `response` and `answer` by a task's name or a grader's."""
    grader = GRADED_BY.get(task) or next((g for g in GRADERS if g == task), None)
    if grader is None:
        names = ", ".join([*GRADED_BY, *GRADERS])
        raise SelfdevError(f"task {task!r} cannot be graded from a file; choose from {names}.")
    rows = read_rows(path, ("answer",), texts=("response",), maybe=("choices",))
    replies = [row["response"] for row in rows]
    choices = [row.get("choices") or () for row in rows]
    graded = grade_all(replies, [_gold(row, grader) for row in rows], grader, choices, _processes())
    results = tuple(
        Graded(g.strict, g.flexible, dict(zip(("strict", "flexible"), g.extracted, strict=True)))
        for g in graded
    )
    return Grades(len(results), sum(g.strict for g in graded), sum(g.flexible for g in graded), results)


def questions(
    task: str, shots: int | None = None, path: str | None = None, grader: str | None = None
) -> Task:
    """A task with its usual number of examples unless told otherwise."""
    chosen = next((g for g in GRADERS if g == grader), None)
    if grader is not None and chosen is None:
        raise SelfdevError(f"grader {grader!r} does not exist; choose from {', '.join(GRADERS)}.")
    if chosen is not None and not task.endswith(".jsonl"):
        raise SelfdevError(f"grader is for .jsonl files and the task is {task}; leave it out.")
    return load_task(task, SHOTS.get(task, 5) if shots is None else shots, path=path, grader=chosen)


def first_prompt(model: Path, task: Task, split: str, chat: bool) -> Prompt:
    """The prompt of the first question; the model's tokenizer is read for a chat template only."""
    if task.source is not None:
        raise SelfdevError(
            f"task {task.name} is asked by lm-evaluation-harness, which puts its prompts together; see them"
            " with its own --write_out."
        )
    question = task.split(split)[0]
    text = question.prompt
    if chat:
        from transformers import AutoTokenizer

        from selfdev.engine.scorer import rendered

        text = rendered(AutoTokenizer.from_pretrained(model, local_files_only=True), question)
    return Prompt(task.name, split, text, task.stops, question.answer)


def _gold(row: Row, grader: Grader) -> str:
    """The answer, out of a whole reference solution where that is what the file has."""
    answer = str(row["answer"])
    return answer.rpartition("#### ")[2] if grader == "number" else answer


def _processes() -> int:
    return len(os.sched_getaffinity(0))
