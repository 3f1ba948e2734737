"""Scoring: gold answers score everything, wrong ones nothing, swapped weights are what answers."""

from __future__ import annotations

import pytest
import torch
from conftest import Family
from tokenizers.processors import TemplateProcessing

from selfdev.engine.engine import Engine
from selfdev.engine.scorer import examine, prepare, rendered, score
from selfdev.errors import SelfdevError
from selfdev.tasks.questions import Question, pose
from selfdev.tasks.replies import MARKS, marked

PROMPTS = [f"{a} plus {b} is" for a in range(4) for b in range(5)]


class Parrot(Engine):
    """An engine that answers each question with its draft, and keeps what was swapped in."""

    def __init__(self, family: Family) -> None:
        super().__init__(family.seed)
        self.drafts_pay = True
        self.swapped: list[dict[str, torch.Tensor]] = []

    def swap(self, tensors):  # type: ignore[no-untyped-def]
        self.swapped.append(tensors)

    def answer(self, batches, limit, stops=(), done=None, rows=1):  # type: ignore[no-untyped-def]  # noqa: ARG002
        replies = {}
        self.rows = rows
        for batch in batches:
            for place, draft in zip(batch.places, batch.drafts, strict=True):
                replies[place] = self.tokenizer.decode(draft, skip_special_tokens=True)
            if done:
                done(len(batch.places))
        return [replies[place] for place in sorted(replies)]


@pytest.fixture(scope="module")
def parrot(family: Family) -> Parrot:
    return Parrot(family)


def questions(answers: list[str]) -> list[Question]:
    return [Question(p, a, f"#### {i % 10}") for i, (p, a) in enumerate(zip(PROMPTS, answers, strict=True))]


def test_gold_answers_score_everything(parrot: Parrot) -> None:
    gold = [str(i % 10) for i in range(20)]
    result = score(parrot, prepare(parrot, questions(gold), 4, 7), {})
    assert (result.accuracy, result.flexible_accuracy, result.n) == (1.0, 1.0, 20)


def test_solutions_are_drafts_where_that_pays(parrot: Parrot, family: Family) -> None:
    asked = questions(["1"] * 20)
    plain = Engine(family.seed)
    assert not plain.drafts_pay  # on a CPU
    for engine, expected in ((parrot, True), (plain, False)):
        batches = prepare(engine, asked, 4, 8).batches
        assert {bool(draft) for batch in batches for draft in batch.drafts} == {expected}


def test_results_are_in_question_order(parrot: Parrot) -> None:
    gold = [str(i % 10) if i in (3, 11) else "99" for i in range(20)]
    result = score(parrot, prepare(parrot, questions(gold), 4, 7), {})
    assert [i for i, right in enumerate(result.strict) if right] == [3, 11]


def test_strict_and_flexible_are_kept_apart(parrot: Parrot) -> None:
    asked = [
        Question("1", "3", "3 plus 3"),
        Question("2", "3", "#### 3 plus 4"),
        Question("3", "3", "#### 3"),
    ]
    result = score(parrot, prepare(parrot, asked, 8, 2), {})
    assert (result.strict, result.flexible) == ((False, True, True), (True, False, True))


def test_weights_are_swapped_in_and_questions_counted(parrot: Parrot) -> None:
    weights = {"name": torch.zeros(1)}
    counts: list[int] = []
    score(parrot, prepare(parrot, questions(["1"] * 20), 4, 8), weights, counts.append)
    assert parrot.swapped[-1] is weights
    assert counts == [2] * 10  # a quarter of a batch is read at once
    assert parrot.rows == 8  # and a whole one decoded together


def test_the_grader_of_the_exam_compares(parrot: Parrot) -> None:
    asked = [Question("1", r"\frac{6}{2}", r"\boxed{3}"), Question("2", "4", r"\boxed{3}")]
    exam = prepare(parrot, asked, 8, 2, grader="math")
    with pytest.MonkeyPatch.context() as patch:  # the tiny tokenizer cannot write LaTeX
        patch.setattr(parrot, "answer", lambda *_: [r"\boxed{3}", r"\boxed{3}"])
        result = score(parrot, exam, {})
    assert (result.strict, result.flexible) == ((True, False), (True, False))


def test_the_leading_reading_is_the_accuracy(parrot: Parrot) -> None:
    asked = [Question("1", "3", "3 plus 3"), Question("2", "3", "3 plus 4")]
    result = score(parrot, prepare(parrot, asked, 8, 2, lead="flexible"), {})
    assert (result.accuracy, result.strict_accuracy, result.flexible_accuracy) == (0.5, 0.0, 0.5)
    assert (result + result).lead == "flexible"


def test_a_conversation_has_the_examples_as_turns(family: Family) -> None:
    tokenizer = Engine(family.seed).tokenizer
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    question = pose([("1 plus 1", "#### 2")], "2 plus 2", "4")
    assert rendered(tokenizer, question) == "<s>[user]1 plus 1[assistant]#### 2[user]2 plus 2"
    assert rendered(tokenizer, Question("alone", "1")) == "<s>[user]alone"


def test_a_tokenizer_that_begins_by_itself_gets_no_second_beginning(family: Family) -> None:
    tokenizer = Engine(family.seed).tokenizer
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    begins = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.backend_tokenizer.post_processor = begins
    assert rendered(tokenizer, Question("1 plus 1", "2")) == "1 plus 1"


def test_without_a_template_there_is_no_conversation(family: Family) -> None:
    tokenizer = Engine(family.seed).tokenizer
    tokenizer.chat_template = None
    with pytest.raises(SelfdevError, match="has no chat template; set it to false"):
        rendered(tokenizer, Question("1", "1"))


def test_an_examination_notes_kinds_lengths_and_marks_in_question_order(parrot: Parrot) -> None:
    texts = ("#### 3", "3", "")
    asked = [Question(p, "3", text, skill=f"kind {text}") for p, text in zip(PROMPTS, texts, strict=False)]
    result, replies = examine(parrot, prepare(parrot, asked, 4, 7), {})
    assert result == score(parrot, prepare(parrot, asked, 4, 7), {})
    assert replies.kinds == ("kind #### 3", "kind 3", "kind ")
    assert replies.lengths == (6, 1, 0)
    has = {mark: marked(replies, mark) for mark in MARKS}
    assert has["without an answer in the task's form"] == (False, True, True)
    assert has["without any answer"] == has["empty"] == (False, False, True)
