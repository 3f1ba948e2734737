"""Grading: every reply is read twice, in the task's own form (`strict`) and in any form (`flexible`).

Both results are stored for every answer, so that a gain in format is never sold as a gain in skill. The
readings of numbers are those of lm-evaluation-harness's gsm8k task (strict-match and flexible-extract).
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from selfdev.tasks import maths

Grader = Literal["number", "math", "exact", "choice"]
Lead = Literal["strict", "flexible"]
GRADERS: tuple[Grader, ...] = get_args(Grader)
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_FORM = re.compile(r"#### (.+)")
_OUTER = string.punctuation + string.whitespace


@dataclass(frozen=True, slots=True)
class Graded:
    """What was read in a reply (strict, flexible; None: nothing) and whether it is the right answer."""

    strict: bool
    flexible: bool
    extracted: tuple[str | None, str | None]


def grade_all(
    replies: Sequence[str],
    answers: Sequence[str],
    grader: Grader = "number",
    choices: Sequence[Sequence[str]] | None = None,
    processes: int = 1,
) -> list[Graded]:
    """Grades of replies in order; `processes` (for math only) is how many compare expressions at a time."""
    given = choices or [()] * len(replies)
    read = [extract(reply, grader, c) for reply, c in zip(replies, given, strict=True)]
    if grader == "math":
        right = maths.grades(replies, answers, processes)
        return [Graded(*r, read_) for r, read_ in zip(right, read, strict=True)]
    golds = [_gold(a, grader, c) for a, c in zip(answers, given, strict=True)]
    return [Graded(r[0] == g[0], r[1] == g[1], r) for r, g in zip(read, golds, strict=True)]


def grade(
    reply: str, answer: str, grader: Grader = "number", choices: Sequence[str] = ()
) -> tuple[bool, bool]:
    """Whether the reply is right under the strict and under the flexible reading."""
    (graded,) = grade_all([reply], [answer], grader, [choices])
    return graded.strict, graded.flexible


def extract(
    reply: str, grader: Grader = "number", choices: Sequence[str] = ()
) -> tuple[str | None, str | None]:
    """The strict and the flexible reading of a reply, in the form it is compared in; None where none is."""
    if grader == "math":
        return maths.boxed(reply), maths.last_expression(reply)
    if grader == "number":
        strict, numbers = _STRICT.search(reply), _NUMBER.findall(reply)
        return (_plain(strict[1]) if strict else None), (_plain(numbers[-1]) if numbers else None)
    form = _FORM.search(reply)
    return (form[1].strip() if form else None), _letter(reply, choices) if grader == "choice" else _last(
        reply
    )


def letters(choices: Sequence[str]) -> str:
    """The letters that stand for these choices: A, B, ..."""
    return string.ascii_uppercase[: len(choices)]


def letter_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of a choice given as its letter or as its text; None for anything else."""
    if len(answer) == 1 and answer in letters(choices):
        return answer
    return letters(choices)[list(choices).index(answer)] if answer in choices else None


def _gold(answer: str, grader: Grader, choices: Sequence[str]) -> tuple[str | None, str | None]:
    """What the strict and the flexible reading of a right reply are."""
    if grader == "number":
        return _plain(answer), _plain(answer)
    if grader == "choice":
        letter = letter_of(answer, choices)
        return letter or answer, letter or answer
    return answer.strip(), _last(answer)


def _plain(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".")


def _last(text: str) -> str | None:
    """The last line that says something, without the form's mark, case and outer punctuation."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].removeprefix("#### ").casefold().split()).strip(_OUTER) if lines else None


def _letter(reply: str, choices: Sequence[str]) -> str | None:
    """The last letter of a choice that stands alone, else of the choice whose text comes last."""
    alone = re.findall(rf"(?<![A-Za-z])[{letters(choices)}](?![A-Za-z])", reply) if choices else []
    if alone:
        return str(alone[-1])
    places = {reply.casefold().rfind(c.casefold()): letter_of(c, choices) for c in choices}
    found = max(places, default=-1)
    return places[found] if found >= 0 else None
