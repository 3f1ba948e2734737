"""From merged weights to a score: swap into the living engine, answer, grade."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfdev.errors import SelfdevError
from selfdev.records import Replies, Score
from selfdev.tasks.grading import Graded, Grader, Lead, grade_all
from selfdev.tasks.questions import STOPS, Question, Source
from selfdev.tasks.replies import note

if TYPE_CHECKING:
    from torch import Tensor

    from selfdev.engine.batches import Answering, Batch


@dataclass(frozen=True, slots=True)
class Exam:
    """Questions made ready for one engine: tokenised and batched once, used for every model."""

    questions: tuple[Question, ...]
    batches: tuple[Batch, ...]
    limit: int  # longest answer in tokens
    stops: tuple[str, ...] = STOPS
    grader: Grader = "number"
    lead: Lead = "strict"
    rows: int = 1  # answers that are decoded together
    source: Source | None = None  # poses and grades the questions itself, in `split`, as a chat or not
    split: str = "dev"
    chat: bool = False


def prepare(
    engine: Answering,
    questions: Sequence[Question],
    limit: int,
    batch: int,
    *,
    stops: Sequence[str] = STOPS,
    grader: Grader = "number",
    lead: Lead = "strict",
    chat: bool = False,
    source: Source | None = None,
    split: str = "dev",
) -> Exam:
    """An exam of these questions, `batch` of them decoded together with at most `limit` tokens each.

    Prompts are read in quarters of a batch: rows of like length waste less, and many end with their draft.
    """
    if source is not None:
        return Exam(tuple(questions), (), limit, tuple(stops), grader, lead, batch, source, split, chat)
    prompts = [rendered(engine.tokenizer, q) if chat else q.prompt for q in questions]
    drafts = [question.solution if engine.drafts_pay else None for question in questions]
    batches = engine.prepare(prompts, drafts, -(-batch // 4))
    _check_room(engine, batches, limit)
    return Exam(tuple(questions), tuple(batches), limit, tuple(stops), grader, lead, batch)


def _check_room(engine: Answering, batches: Sequence[Batch], limit: int) -> None:
    """SelfdevError where the longest question and its answer are more than the model can look back."""
    longest = max((batch.length for batch in batches), default=0)
    if engine.room is not None and longest + limit > engine.room:
        raise SelfdevError(
            f"the longest question takes {longest:,} tokens and, with an answer of {limit:,}, does not fit"
            f" the {engine.room:,} positions of the model; lower shots or max_new_tokens."
        )


def no_template(tokenizer: Any) -> SelfdevError:
    """What to say where a chat is asked of a tokenizer without a template."""
    return SelfdevError(
        f"task.chat is true and the tokenizer of {tokenizer.name_or_path} has no chat template; set it to"
        " false."
    )


def rendered(tokenizer: Any, question: Question) -> str:
    """A question and its examples as a conversation, by the tokenizer's chat template."""
    if not tokenizer.chat_template:
        raise no_template(tokenizer)
    messages = question.messages or (question.prompt,)
    turns = [{"role": ("user", "assistant")[i % 2], "content": m} for i, m in enumerate(messages)]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    begins = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if begins else text  # the engine's tokenizer adds its own


def score(
    engine: Answering, exam: Exam, tensors: Mapping[str, Tensor], done: Callable[[int], None] | None = None
) -> Score:
    """Score of the seed with these weights swapped in (empty: the seed itself)."""
    engine.swap(tensors)
    return ask(engine, exam, done)


def ask(engine: Answering, exam: Exam, done: Callable[[int], None] | None = None) -> Score:
    """Score of the weights that are in the engine now."""
    if exam.source is not None:
        return _asked(exam.source, engine, exam)
    return _answered(engine, exam, done)[0]


def examine(engine: Answering, exam: Exam, tensors: Mapping[str, Tensor]) -> tuple[Score, Replies]:
    """The score and what is to be noted of the replies beside it."""
    engine.swap(tensors)
    kinds = tuple(question.skill for question in exam.questions)
    if exam.source is not None:
        return _asked(exam.source, engine, exam), Replies(kinds)
    result, replies, graded = _answered(engine, exam, None)
    return result, note(kinds, replies, [g.extracted for g in graded])


def _asked(source: Source, engine: Any, exam: Exam) -> Score:
    places = [int(question.answer) for question in exam.questions]
    strict, flexible = source.ask(
        engine, exam.split, places, batch=exam.rows, limit=exam.limit, chat=exam.chat
    )
    return Score(strict, flexible, exam.lead)


def _answered(
    engine: Answering, exam: Exam, done: Callable[[int], None] | None
) -> tuple[Score, list[str], list[Graded]]:
    before = engine.tokens
    replies = engine.answer(exam.batches, exam.limit, exam.stops, done, exam.rows)
    answers = [question.answer for question in exam.questions]
    graded = grade_all(replies, answers, exam.grader, [question.choices for question in exam.questions])
    strict, flexible = tuple(g.strict for g in graded), tuple(g.flexible for g in graded)
    return Score(strict, flexible, exam.lead, engine.tokens - before), replies, graded
