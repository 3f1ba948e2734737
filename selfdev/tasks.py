"""Questions and grading: every task is a list of prompts with gold answers and two ways to read a reply.

`strict` reads the task's own form (`#### N`, as in GSM8K); `flexible` takes the last number. Both are stored
for every answer, so that a gain in format is never sold as a gain in skill. The two patterns
are those of lm-evaluation-harness's gsm8k task (strict-match and flexible-extract).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfdev.errors import SelfdevError
from selfdev.lab import questions as lab

SPLITS = ("dev", "test")
STOPS = ("\nQuestion:", "\n\n")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
LAB_SIZES = {"dev": 4000, "test": 10000}


@dataclass(frozen=True, slots=True)
class Question:
    """One question: `prompt` is what the model continues; `solution` a worked answer where there is one."""

    prompt: str
    answer: str
    solution: str | None = None
    skill: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A named set of dev and test questions, each in one fixed random order."""

    name: str
    dev: tuple[Question, ...]
    test: tuple[Question, ...]

    def split(self, name: str) -> tuple[Question, ...]:
        """The questions of a split; SelfdevError for a name that is not one."""
        if name not in SPLITS:
            raise SelfdevError(f"split {name!r} does not exist; choose dev or test.")
        return self.dev if name == "dev" else self.test


def load_task(name: str, shots: int = 0) -> Task:
    """The task `lab` or a JSONL file with `question` and `answer` (and optionally `solution`)."""
    if name == "lab":
        return _lab(shots)
    if name.endswith(".jsonl"):
        return _jsonl(Path(name), shots)
    raise SelfdevError(f"task {name!r} is not known here; give lab or the path of a .jsonl file.")


def extract(reply: str) -> tuple[str | None, str | None]:
    """The strict and the flexible reading of a reply, as plain numbers; None where there is none."""
    strict = _STRICT.search(reply)
    numbers = _NUMBER.findall(reply)
    return (_plain(strict[1]) if strict else None), (_plain(numbers[-1]) if numbers else None)


def grade(reply: str, answer: str) -> tuple[bool, bool]:
    """Whether the reply is right under the strict and under the flexible reading."""
    gold = _plain(answer)
    strict, flexible = extract(reply)
    return strict == gold, flexible == gold


def _plain(number: str) -> str:
    return number.replace(",", "").replace("$", "").rstrip(".")


def _lab(shots: int) -> Task:
    examples = [(q.text, q.solution) for q in lab.questions("train", shots)]
    prefix = _prefix(examples)
    dev, test = (
        tuple(
            Question(_prompt(prefix, q.text), q.answer, q.solution, q.skill)
            for q in lab.questions(split, LAB_SIZES[split])
        )
        for split in SPLITS
    )
    return Task("lab", dev, test)


def _jsonl(path: Path, shots: int) -> Task:
    """Rows in a fixed random order: examples, then one half dev and one half test."""
    rows = _read(path)
    random.Random(0).shuffle(rows)
    if len(rows) < shots + 2:
        raise SelfdevError(f"{path} has {len(rows)} questions, fewer than the {shots + 2} needed; add some.")
    prefix = _prefix([(r["question"], r.get("solution") or f"#### {r['answer']}") for r in rows[:shots]])
    asked = [
        Question(_prompt(prefix, r["question"]), str(r["answer"]), r.get("solution")) for r in rows[shots:]
    ]
    half = len(asked) // 2
    return Task(str(path), tuple(asked[:half]), tuple(asked[half:]))


def _read(path: Path) -> list[dict[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SelfdevError(f"questions {path} cannot be read ({error}); give a JSONL file.") from None
    rows: dict[str, dict[str, str]] = {}  # by normalised question: a repeated one would leak dev into test
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise SelfdevError(f"{path} line {number} is not JSON; correct or remove it.") from None
        for key in ("question", "answer"):
            if not isinstance(row, dict) or row.get(key) is None or not str(row[key]).strip():
                raise SelfdevError(f"{path} line {number} has no {key}; every row needs one.")
        rows.setdefault(" ".join(str(row["question"]).lower().split()), row)
    if not rows:
        raise SelfdevError(f"{path} has no questions; give a JSONL file with question and answer.")
    return list(rows.values())


def _prefix(examples: Sequence[tuple[str, str]]) -> str:
    return "".join(f"Question: {question}\nAnswer: {solution}\n\n" for question, solution in examples)


def _prompt(prefix: str, question: str) -> str:
    return f"{prefix}Question: {question}\nAnswer:"
