"""The look before the score: gibberish is told from a poor model, and both from a good one."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Family

from selfdev.engine.engine import Engine
from selfdev.engine.sanity import FACTOR, Look, complaint, look, prepare
from selfdev.tasks.questions import Question
from selfdev.tasks.replies import is_degenerate

QUESTIONS = [Question(f"{a} plus {a} is", str(2 * a), f"#### {2 * a}") for a in range(4)]
GOOD = Look(2.0, ("3+4=7\n#### 7", ""))


@pytest.mark.parametrize(
    ("reply", "degenerate"),
    [
        ("", True),
        (" \n ", True),
        ("the the the the the the the the the the the the the the", True),
        ("ab" * 40, True),
        ("3+4=7\n#### 7", False),
        ("7", False),
        ("aaaaaaaaaaaa", False),  # too short to say
        (
            "Janet sells 16 - 3 - 4 = 9 duck eggs a day.\nShe makes 9 * 2 = $18 every day at the market.",
            False,
        ),
    ],
)
def test_replies(reply: str, degenerate: bool) -> None:
    assert is_degenerate(reply) is degenerate


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Look(2.0 * FACTOR, ("7",)), None),
        (
            Look(2.1 * FACTOR, ()),
            "gibberish: perplexity 210 on dev solutions, more than 100 times the seed's 2",
        ),
        (Look(math.nan, ()), "perplexity nan"),
        (Look(math.inf, ()), "perplexity inf"),
        (Look(3.0, ("", "ab" * 40)), "every one of 2 replies is empty or goes round in circles"),
        (Look(3.0, ("", "7")), None),
        (Look(None, ("7",)), None),
        (Look(None, ("",)), "every one of 1 replies"),
    ],
)
def test_complaints(seen: Look, words: str | None) -> None:
    said = complaint(seen, GOOD)
    assert said == words if words is None else words in (said or "")


def test_a_seed_that_goes_round_in_circles_is_no_measure() -> None:
    assert complaint(Look(3.0, ("",)), Look(2.0, ("",))) is None


@pytest.fixture(scope="module")
def engine(family: Family) -> Engine:
    return Engine(family.seed, dtype="float32")


def test_perplexity_is_that_of_the_solution_tokens(engine: Engine) -> None:
    seen = look(engine, prepare(engine, QUESTIONS[:1], ()), {})
    head, tail = engine.tokenizer("0 plus 0 is").input_ids, engine.tokenizer(" #### 0").input_ids
    logits = engine.model(torch.tensor([head + tail])).logits[0]
    nats = [-torch.log_softmax(logits[len(head) - 1 + i], -1)[t] for i, t in enumerate(tail)]
    assert seen.perplexity == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)


def test_the_seed_beside_itself_is_sane(engine: Engine) -> None:
    probe = prepare(engine, QUESTIONS, ())
    seed = look(engine, probe, {})
    assert complaint(look(engine, probe, {}, seed), seed) is None
    assert len(seed.replies) == 4


def test_broken_weights_are_told_without_an_answer_being_written(engine: Engine) -> None:
    probe = prepare(engine, QUESTIONS, ())
    seed = look(engine, probe, {})
    name = "model.layers.1.mlp.down_proj.weight"
    shape = engine.model.get_parameter(name).shape
    broken = {name: torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e4}
    seen = look(engine, probe, {**broken, "model.norm.weight": torch.full((32,), 1e3)}, seed)
    assert seen.replies == ()
    assert "gibberish: perplexity" in (complaint(seen, seed) or "")
    assert look(engine, probe, {}) == seed  # nothing stays behind


def test_without_solutions_there_is_no_perplexity(engine: Engine) -> None:
    asked = [Question(q.prompt, q.answer) for q in QUESTIONS]
    assert look(engine, prepare(engine, asked, ()), {}).perplexity is None
