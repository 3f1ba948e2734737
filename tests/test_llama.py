"""The plain Llama pass against transformers' own: logits, cached steps, padding, swapped weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from selfdev.engine.cache import new_cache
from selfdev.engine.engine import Engine
from selfdev.engine.llama import Llama, fits

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip


def build(**changed: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES | changed)).requires_grad_(False).eval()


@pytest.mark.parametrize("keys", [4, 2, 1])
@pytest.mark.parametrize("tied", [True, False])
def test_a_pass_and_steps_behind_it_have_the_logits_of_transformers(keys: int, tied: bool) -> None:
    model = build(num_key_value_heads=keys, tie_word_embeddings=tied)
    ids = torch.randint(40, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[2, :1] = 0  # padded on the left
    mask[1, 6] = 0  # a refused guess inside
    places = (mask.cumsum(1) - 1).clamp(min=0)
    wanted = model(ids, attention_mask=mask, position_ids=places).logits
    cache, plain = new_cache(model), Llama(model)
    for start, end in ((0, 9), (9, 10), (10, 12)):
        found = plain(ids[:, start:end], cache, mask[:, :end], end - start)
        real = mask[:, start:end].bool()
        torch.testing.assert_close(found[real], wanted[:, start:end][real], atol=1e-5, rtol=1e-5)
        assert found.isfinite().all()


def test_only_the_last_logits_are_computed_and_no_mask_means_that_all_are_tokens() -> None:
    model = build()
    ids = torch.randint(40, (2, 7))
    whole = model(ids).logits
    torch.testing.assert_close(Llama(model)(ids, new_cache(model), None, 2), whole[:, -2:])


def test_places_beyond_the_first_table_are_rotated_too() -> None:
    model = build(max_position_embeddings=2048)
    ids = torch.randint(40, (1, 300))
    torch.testing.assert_close(
        Llama(model)(ids, new_cache(model), None, 1), model(ids).logits[:, -1:], atol=1e-5, rtol=1e-5
    )


def test_weights_swapped_in_place_count(family_fp32: Any) -> None:
    engine = Engine(family_fp32.seed)
    other = {name: p + 0.1 for name, p in engine.model.named_parameters()}
    before = engine.model(torch.tensor([[3, 4, 5]])).logits
    engine.swap(other)
    assert engine._llama is not None
    ids = torch.tensor([[3, 4, 5]])
    found = engine._llama(ids, new_cache(engine.model), None, 3)
    torch.testing.assert_close(found, engine.model(ids).logits)
    assert not torch.allclose(found, before)


def test_other_models_are_left_to_transformers() -> None:
    qwen = Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=4))
    assert fits(build())
    assert not fits(qwen)
    assert not fits(build().to(torch.bfloat16))
    assert not fits(build(attention_bias=True))
    assert not fits(build(mlp_bias=True))
    assert not fits(build(hidden_act="gelu"))
    assert not fits(build(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}))
