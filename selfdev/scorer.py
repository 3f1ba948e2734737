"""From merged weights to a score: swap into the living engine, answer, grade."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfdev.records import Score
from selfdev.tasks import STOPS, Question, grade

if TYPE_CHECKING:
    from torch import Tensor

    from selfdev.engine import Batch, Engine


@dataclass(frozen=True, slots=True)
class Exam:
    """Questions made ready for one engine: tokenised and batched once, used for every model."""

    questions: tuple[Question, ...]
    batches: tuple[Batch, ...]
    limit: int  # longest answer in tokens


def prepare(engine: Engine, questions: Sequence[Question], limit: int, batch: int) -> Exam:
    """An exam of these questions, answered `batch` at a time with at most `limit` tokens each."""
    drafts = [question.solution for question in questions]
    batches = engine.prepare([question.prompt for question in questions], drafts, batch)
    return Exam(tuple(questions), tuple(batches), limit)


def score(
    engine: Engine, exam: Exam, tensors: Mapping[str, Tensor], done: Callable[[int], None] | None = None
) -> Score:
    """Score of the seed with these weights swapped in (empty: the seed itself)."""
    engine.swap(tensors)
    replies = engine.answer(exam.batches, exam.limit, STOPS, done)
    graded = [grade(reply, q.answer) for reply, q in zip(replies, exam.questions, strict=True)]
    return Score(tuple(strict for strict, _ in graded), tuple(flexible for _, flexible in graded))
