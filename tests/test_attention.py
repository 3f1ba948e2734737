"""Attention of one new token against torch's own, with grouped heads and masks with holes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from selfdev.engine import attention


def tensors(groups: int, new: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(groups)
    query = torch.randn(5, 2 * groups, new, 8, generator=draw)
    key, value = torch.randn(2, 5, 2, 11, 8, generator=draw)
    mask = torch.rand(5, 1, new, 11, generator=draw) > 0.3
    mask[..., -1] = True  # a token always sees itself
    return query, key, value, mask


@pytest.mark.parametrize("groups", [1, 3])
def test_one_query_is_softmax_of_scaled_products_times_values(groups: int) -> None:
    query, key, value, mask = tensors(groups)
    module = SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    found, _ = attention.attend(module, query, key, value, mask, scaling=0.5)
    for row in range(5):
        for head in range(2 * groups):
            seen = mask[row, 0, 0]
            products = [0.5 * math.fsum((query[row, head, 0] * k).tolist()) for k in key[row, head // groups]]
            powers = [math.exp(p) if s else 0.0 for p, s in zip(products, seen.tolist(), strict=True)]
            shares = torch.tensor(powers) / math.fsum(powers)
            torch.testing.assert_close(found[row, 0, head], shares @ value[row, head // groups])


@pytest.mark.parametrize("new", [1, 3])
def test_any_number_of_queries_is_what_torch_gives(new: int) -> None:
    query, key, value, mask = tensors(2, new)
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    found, _ = attention.attend(module, query, key, value, mask, scaling=0.5)
    wide = (key.repeat_interleave(2, 1), value.repeat_interleave(2, 1))
    expected = torch.nn.functional.scaled_dot_product_attention(query, *wide, attn_mask=mask, scale=0.5)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def model(how: str) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        attn_implementation=how,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize(("how", "used"), [("sdpa", attention.NAME), ("eager", "eager")])
def test_only_sdpa_is_replaced(how: str, used: str) -> None:
    changed = model(how)
    attention.use_for(changed)
    assert changed.config._attn_implementation == used


def test_without_a_mask_one_query_sees_everything() -> None:
    query, key, value, _ = tensors(2)
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    found, _ = attention.attend(module, query, key, value, None, scaling=0.5)
    seen = torch.ones(5, 1, 1, 11, dtype=torch.bool)
    assert torch.equal(found, attention.attend(module, query, key, value, seen, scaling=0.5)[0])
