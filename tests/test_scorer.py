"""Scoring: gold answers score everything, wrong ones nothing, swapped weights are what answers."""

from __future__ import annotations

import pytest
import torch
from conftest import Family

from selfdev.engine import Engine
from selfdev.scorer import prepare, score
from selfdev.tasks import Question

PROMPTS = [f"{a} plus {b} is" for a in range(4) for b in range(5)]


class Parrot(Engine):
    """An engine that answers each question with its draft, and keeps what was swapped in."""

    def __init__(self, family: Family) -> None:
        super().__init__(family.seed)
        self.swapped: list[dict[str, torch.Tensor]] = []

    def swap(self, tensors):  # type: ignore[no-untyped-def]
        self.swapped.append(tensors)

    def answer(self, batches, limit, stops=(), done=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        replies = {}
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
    assert sorted(counts) == [4, 8, 8]
