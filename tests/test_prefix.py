"""What all prompts begin with is read once for each model, and the answers are those without that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import LIMIT, WORDS, lively_model, prompts
from transformers import MistralConfig, MistralForCausalLM

from selfdev.engine import engine as module
from selfdev.engine.batches import padded, shared_prefix
from selfdev.engine.engine import Engine
from selfdev.engine.scorer import ask, prepare
from selfdev.errors import SelfdevError
from selfdev.tasks.questions import Question

EXAMPLES = " ".join(WORDS[i % len(WORDS)] for i in range(45)) + " "  # more tokens than are read apart


@pytest.fixture(params=[False, True], ids=["llama", "transformers"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    made = Engine(lively_model(tmp_path, 0))
    if request.param:
        made._llama = None
    return made


def asked() -> list[str]:
    return [EXAMPLES + prompt for prompt in prompts()]


def whole(engine: Engine, monkeypatch: pytest.MonkeyPatch, drafts: list[str | None]) -> list[str]:
    """Answers with every prompt read from its beginning."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "SHARED", 10**6)
        batches = engine.prepare(asked(), drafts, 4)
    assert not any(batch.prefix for batch in batches)
    return engine.answer(batches, LIMIT, rows=8)


@pytest.mark.parametrize("drafted", [False, True])
def test_answers_do_not_depend_on_how_the_beginning_is_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, drafted: bool
) -> None:
    drafts: list[str | None] = [None] * len(asked())
    expected = whole(engine, monkeypatch, drafts)
    if drafted:  # right ones, wrong ones and none
        drafts = [(reply, "9 9 9", None)[i % 3] for i, reply in enumerate(expected)]
    batches = engine.prepare(asked(), drafts, 4)
    assert all(len(batch.prefix) >= 45 for batch in batches)
    assert engine.answer(batches, LIMIT, rows=8) == expected
    assert len({len(reply) for reply in expected}) > 3


def passes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and new tokens of every pass from now on."""
    seen: list[tuple[int, int]] = []
    run = engine._pass

    def watched(ids: torch.Tensor, *given: Any, **more: Any) -> Any:
        seen.append((ids.shape[0], ids.shape[1]))
        return run(ids, *given, **more)

    monkeypatch.setattr(engine, "_pass", watched)
    return seen


def test_the_beginning_is_read_once_for_each_model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = engine.prepare(asked(), [None] * len(asked()), 4)
    long = len(batches[0].prefix)
    seen = passes(engine, monkeypatch)
    for _ in range(2):
        engine.answer(batches, 1, rows=8)
    assert [one for one in seen if one[1] >= long] == [(1, long)]
    engine.swap({})
    engine.answer(batches, 1, rows=8)
    assert [one for one in seen if one[1] >= long] == [(1, long)] * 2


def test_blocks_of_questions_are_asked_of_one_model_behind_one_reading(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [Question(prompt, "1") for prompt in asked()]
    exams = [prepare(engine, block, 1, 4) for block in (questions[:4], questions[4:])]
    long = len(exams[0].batches[0].prefix)
    seen = passes(engine, monkeypatch)
    engine.swap({})
    results = [ask(engine, exam) for exam in exams]
    assert [one for one in seen if one[1] >= long] == [(1, long)]
    assert [result.n for result in results] == [4, len(questions) - 4]


def test_new_weights_read_it_anew(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = engine.prepare(asked(), [None] * len(asked()), 4)
    before = engine.answer(batches, LIMIT, rows=8)
    generator = torch.Generator().manual_seed(1)
    moved = {
        name: values + 0.3 * torch.randn(values.shape, generator=generator)
        for name, values in engine.model.named_parameters()
        if "v_proj" in name
    }
    engine.swap(moved)
    after = engine.answer(batches, LIMIT, rows=8)
    assert after != before
    assert after == whole(engine, monkeypatch, [None] * len(asked()))


def test_short_beginnings_and_single_questions_are_read_whole(engine: Engine) -> None:
    assert not any(batch.prefix for batch in engine.prepare(prompts(), [None] * len(prompts()), 4))
    (alone,) = engine.prepare([EXAMPLES + "1"], [None], 4)
    assert alone.prefix == ()


def test_equal_prompts_keep_a_token_to_be_read(engine: Engine) -> None:
    batches = engine.prepare([EXAMPLES + "1 plus"] * 3, [None] * 3, 2)
    assert {tuple(batch.ids.shape) for batch in batches} == {(2, 1), (1, 1)}
    first, second, third = engine.answer(batches, LIMIT)
    assert first == second == third


def test_a_model_that_forgets_old_tokens_reads_prompts_whole(tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=17, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    path = lively_model(tmp_path, 0)
    MistralForCausalLM(config).save_pretrained(path)
    engine = Engine(path)
    assert not any(batch.prefix for batch in engine.prepare(asked(), [None] * len(asked()), 4))


def test_the_beginning_counts_where_a_model_has_no_room(engine: Engine) -> None:
    questions = [Question(prompt, "1") for prompt in asked()]
    longest = max(len(engine.tokenizer(prompt).input_ids) for prompt in asked())
    room = engine.room
    assert room == 128
    prepare(engine, questions, room - longest, 4)
    with pytest.raises(SelfdevError, match=f"the longest question takes {longest} tokens"):
        prepare(engine, questions, room - longest + 1, 4)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, 2, 3), (1, 2, 4, 5)], 2),
        ([(1, 2), (1, 2, 3)], 1),
        ([(1, 2, 3), (1, 2, 3)], 2),
        ([(7,), (1, 2)], 0),
        ([(1,)], 0),
        ([], 0),
        ([(1, 9, 3), (1, 2, 3), (1, 5)], 1),
    ],
)
def test_the_common_beginning_leaves_a_token_of_each(rows: list[tuple[int, ...]], expected: int) -> None:
    assert shared_prefix(rows) == expected


def test_a_batch_leaves_its_beginning_out() -> None:
    batch = padded([1, 0], [(5, 6, 7), (5, 6, 8, 9)], [(), (3,)], shared=2)
    assert (batch.prefix, batch.length) == ((5, 6), 4)
    assert batch.ids.tolist() == [[8, 9], [0, 7]]
    assert batch.mask.tolist() == [[1, 1], [0, 1]]
    assert batch.drafts == ((3,), ())
