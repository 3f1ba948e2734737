"""The living engine against transformers' own greedy decoding, token for token, on a tiny random Llama."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Family, tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from selfdev.checkpoints import tensor, views
from selfdev.engine.engine import Engine
from selfdev.factory import factory

WORDS = [*"0123456789", "plus", "times", "is", "####"]
LIMIT = 24


def lively_model(folder: Path, seed: int) -> Path:
    """A Llama whose random weights are large enough for replies of many tokens and many lengths."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=17,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        initializer_range=0.6,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    path = folder / str(seed)
    LlamaForCausalLM(config).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = lively_model(tmp_path_factory.mktemp("lively"), request.param % 3)
    engine = Engine(path, fixed=request.param == 3)  # as on a GPU, but for the graphs
    if request.param == 2:
        engine._llama = None  # by transformers' own pass, as other architectures
    return engine


def prompts(n: int = 16) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(n)]


@pytest.fixture(scope="module")
def greedy(engine: Engine) -> list[list[int]]:
    """Greedy tokens for each prompt, ends included, by transformers: no padding, no batch, no draft."""
    model = AutoModelForCausalLM.from_pretrained(engine.tokenizer.name_or_path)
    found = []
    for prompt in prompts():
        ids = engine.tokenizer(prompt, return_tensors="pt").input_ids
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=LIMIT)
        found.append(out[0, ids.shape[1] :].tolist())
    return found


def texts(engine: Engine, rows: Sequence[list[int]], limit: int = LIMIT) -> list[str]:
    return [engine.tokenizer.decode(row[:limit], skip_special_tokens=True) for row in rows]


def answers(
    engine: Engine, asked: Sequence[str], drafts: Sequence[str | None] | None = None,
    size: int = 7, limit: int = LIMIT, stops: Sequence[str] = (), rows: int = 1,
) -> list[str]:  # fmt: skip
    batches = engine.prepare(asked, drafts or [None] * len(asked), size)
    return engine.answer(batches, limit, stops, rows=rows)


def lengths(replies: Sequence[str]) -> set[int]:
    return {len(reply.split()) for reply in replies}


def test_answers_are_those_of_transformers(engine: Engine, greedy: list[list[int]]) -> None:
    assert answers(engine, prompts()) == texts(engine, greedy)


def test_replies_of_the_tests_have_many_lengths(tmp_path: Path) -> None:
    # Without this the comparisons would say little: rows must end at different times.
    replies = [r for seed in (0, 1, 2) for r in answers(Engine(lively_model(tmp_path, seed)), prompts())]
    assert len(lengths(replies)) >= 5
    assert max(lengths(replies)) >= 20


def test_random_drafts_change_nothing(engine: Engine) -> None:
    rng = random.Random(1)
    drafts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in prompts()]
    assert answers(engine, prompts(), drafts) == answers(engine, prompts())


def test_right_and_half_right_drafts_change_nothing(engine: Engine) -> None:
    plain = answers(engine, prompts())
    assert answers(engine, prompts(), plain) == plain
    halves: list[str | None] = [" ".join([*r.split()[: len(r.split()) // 2], "7", "is"]) for r in plain]
    assert answers(engine, prompts(), halves) == plain


def test_rows_with_and_without_draft_share_a_batch(engine: Engine) -> None:
    plain = answers(engine, prompts())
    drafts = [reply if i % 2 else None for i, reply in enumerate(plain)]
    assert answers(engine, prompts(), drafts, size=16) == plain


def watched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each pass from now on."""
    rows: list[int] = []
    whole = engine._pass

    def noted(ids: torch.Tensor, *more: Any) -> Any:
        rows.append(len(ids))
        return whole(ids, *more)

    monkeypatch.setattr(engine, "_pass", noted)
    return rows


def test_right_drafts_need_one_pass(
    engine: Engine, greedy: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Replies that ended of their own accord and hold nothing but words: their text gives the same tokens.
    own = {p: row[:-1] for p, row in zip(prompts(), greedy, strict=True) if row[-1] == 2}
    own = {p: row for p, row in own.items() if row and min(row) > 2}
    assert len({len(row) for row in own.values()}) > 1
    passes = watched(engine, monkeypatch)
    drafts = texts(engine, list(own.values()))
    assert answers(engine, list(own), drafts, size=len(own)) == drafts
    assert len(passes) == 1


@pytest.mark.parametrize("size", [1, 5, 16])
def test_batch_size_changes_nothing(engine: Engine, size: int) -> None:
    assert answers(engine, prompts(), size=size) == answers(engine, prompts(), size=7)


@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize("rows", [4, 9, 16])
def test_batches_decoded_together_change_nothing(engine: Engine, rows: int, drafted: bool) -> None:
    plain = answers(engine, prompts())
    drafts = [r if i % 3 else " ".join(r.split()[: i % 5]) for i, r in enumerate(plain)] if drafted else None
    assert answers(engine, prompts(), drafts, size=3, rows=rows) == plain


def test_batches_are_decoded_together_as_far_as_asked(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = watched(engine, monkeypatch)
    batches = engine.prepare(prompts(12), [None] * 12, 3)
    together = engine.answer(batches, LIMIT, rows=12)
    assert shapes[:4] == [3, 3, 3, 3]
    assert 6 < max(shapes[4:]) <= 12
    assert together == answers(engine, prompts(12))


def test_a_model_that_forgets_old_tokens_gives_the_same_in_any_company(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=17, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=6, initializer_range=0.6,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    engine = Engine(tmp_path)
    alone = [answers(engine, [prompt])[0] for prompt in prompts()]
    assert len(lengths(alone)) > 2
    assert answers(engine, prompts(), size=3, rows=16) == alone
    drafts = [" ".join([*reply.split()[:5], *WORDS[:8]]) for reply in alone]
    assert answers(engine, prompts(), drafts, size=3, rows=16) == alone


@pytest.mark.parametrize("limit", [1, 2, 6])
@pytest.mark.parametrize("drafted", [False, True])
def test_limit_counts_tokens(engine: Engine, greedy: list[list[int]], limit: int, drafted: bool) -> None:
    expected = texts(engine, greedy, limit)
    drafts = answers(engine, prompts()) if drafted else None
    assert answers(engine, prompts(), drafts, limit=limit) == expected
    assert max(lengths(expected)) <= limit


@pytest.mark.parametrize("drafted", [False, True])
def test_answers_are_cut_at_the_first_stop(engine: Engine, drafted: bool) -> None:
    plain = answers(engine, prompts())
    stops = [" 3", " plus"]
    expected = [min((reply.split(stop)[0] for stop in stops), key=len) for reply in plain]
    assert expected != plain
    assert answers(engine, prompts(), plain if drafted else None, stops=stops) == expected


def test_done_counts_every_question(engine: Engine) -> None:
    counts: list[int] = []
    engine.answer(engine.prepare(prompts(10), [None] * 10, 4), 2, done=counts.append)
    assert sorted(counts) == [2, 4, 4]


def test_prepared_batches_hold_every_place_once_and_are_padded_left(engine: Engine) -> None:
    batches = engine.prepare(prompts(10), [None] * 10, 4)
    assert sorted(place for batch in batches for place in batch.places) == list(range(10))
    for batch in batches:
        for place, ids, mask in zip(batch.places, batch.ids, batch.mask, strict=True):
            own = engine.tokenizer(prompts(10)[place]).input_ids
            assert ids[-len(own) :].tolist() == own
            assert mask.tolist() == [0] * (len(ids) - len(own)) + [1] * len(own)


def test_similar_lengths_share_a_batch(engine: Engine) -> None:
    batches = engine.prepare(["1 2 3 4", "1", "1 2 3 5", "2"], [None] * 4, 2)
    assert [batch.places for batch in batches] == [(1, 3), (0, 2)]


def test_every_end_token_ends_an_answer(tmp_path: Path) -> None:
    path = lively_model(tmp_path, 1)
    plain = Engine(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    seven = plain.tokenizer("7").input_ids[0]
    model.generation_config.eos_token_id = [2, seven]
    model.save_pretrained(path)
    ending = Engine(path)
    assert ending.ends == {2, seven}
    expected = [(reply + " ").split("7")[0].strip() for reply in answers(plain, prompts())]
    assert answers(ending, prompts()) == expected
    assert answers(ending, prompts(), answers(plain, prompts())) == expected


@pytest.fixture
def tiny(family: Family) -> Engine:
    return Engine(family.seed)


def logits(engine: Engine) -> torch.Tensor:
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.inference_mode():
        out: Any = engine.model(ids)
    result: torch.Tensor = out.logits.clone()
    return result


def test_swapped_weights_are_the_experts(tiny: Engine, family: Family) -> None:
    _, (expert, *_) = family.open()
    tiny.swap({name: tensor(slot) for name, slot in expert.slots.items()})
    assert torch.equal(logits(tiny), logits(Engine(expert.path)))


def test_swapping_nothing_gives_the_seed_back(tiny: Engine, family: Family) -> None:
    before = logits(tiny)
    _, (expert, *_) = family.open()
    tiny.swap({name: tensor(slot) for name, slot in expert.slots.items()})
    assert not torch.equal(logits(tiny), before)
    tiny.swap({})
    assert torch.equal(logits(tiny), before)


def test_parameters_not_named_are_the_seeds_again(tiny: Engine, family: Family) -> None:
    seed, (first, second, _) = family.open()
    tiny.swap({name: tensor(slot) for name, slot in first.slots.items()})
    shown = views(seed, [second], "mlp")[1]
    tiny.swap({slot.name: tensor(slot) for slot in shown.slots})
    for name, value in tiny.model.named_parameters():
        source = second if ".mlp." in name else seed
        assert torch.equal(value, tensor(source.slots[name])), name


def test_swap_takes_copies(tiny: Engine, family: Family) -> None:
    # Merged weights lie in a buffer that the next program overwrites.
    seed, _ = family.open()
    name = "model.layers.0.mlp.up_proj.weight"
    value = tensor(seed.slots[name]).clone() + 1
    tiny.swap({name: value})
    before = logits(tiny)
    value.zero_()
    assert torch.equal(logits(tiny), before)


def test_a_cpu_computes_in_float32_or_the_dtype_asked_for(tiny: Engine, family: Family) -> None:
    assert {p.dtype for p in tiny.model.parameters()} == {torch.float32}
    stored = Engine(family.seed, dtype="bfloat16")
    assert {p.dtype for p in stored.model.parameters()} == {torch.bfloat16}


def uniforms(rows: int, longest: int = LIMIT) -> torch.Tensor:
    return torch.from_numpy(factory.uniforms(0, 1, 0, rows, longest))


def test_sampling_near_temperature_zero_is_greedy(engine: Engine, greedy: list[list[int]]) -> None:
    for prompt, expected in zip(prompts()[:4], texts(engine, greedy), strict=False):
        assert engine.sample(prompt, 1e-6, uniforms(3)) == [expected] * 3


def test_same_numbers_same_text_in_any_batch(engine: Engine) -> None:
    numbers = uniforms(12)
    together = engine.sample("1 plus 2", 1.2, numbers)
    assert len(set(together)) > 6
    assert [engine.sample("1 plus 2", 1.2, row[None])[0] for row in numbers] == together
    assert engine.sample("1 plus 2", 1.2, numbers[5:]) == together[5:]


def test_sampled_texts_have_at_most_as_many_tokens_as_numbers(engine: Engine) -> None:
    assert max(lengths(engine.sample("1", 3.0, uniforms(20, 5)))) == 5


def test_one_number_picks_the_token_of_its_part_of_the_distribution(engine: Engine) -> None:
    ids = engine.tokenizer("4 times 4", return_tensors="pt").input_ids
    with torch.inference_mode():
        p = torch.softmax(engine.model(ids).logits[0, -1].double() / 1.7, 0)
    edges = np.concatenate([[0], np.cumsum(p.numpy())])
    tokens = [t for t in range(3, 17) if edges[t + 1] - edges[t] > 1e-6]
    middles = torch.tensor([[(edges[t] + edges[t + 1]) / 2] for t in tokens])
    assert engine.sample("4 times 4", 1.7, middles) == [engine.tokenizer.decode([t]) for t in tokens]


def test_higher_temperature_writes_more_different_texts(engine: Engine) -> None:
    cold, hot = (len(set(engine.sample("7", t, uniforms(40, 3)))) for t in (0.3, 3.0))
    assert cold < hot
