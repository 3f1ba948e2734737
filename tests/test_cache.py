"""A cache with room to grow holds what transformers' own cache holds, column for column."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from selfdev.engine.cache import ROOM, RoomyLayer, joined, new_cache


def states(draw: torch.Generator, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    keys, values = torch.randn(2, rows, 2, columns, 3, generator=draw)
    return keys, values


def both(layer: DynamicLayer) -> Tensor:
    return torch.stack([layer.keys, layer.values])


@pytest.mark.parametrize("columns", [[5], [1] * (2 * ROOM + 3), [ROOM, 1, 3 * ROOM, 2]])
def test_columns_are_kept_in_order(columns: list[int]) -> None:
    draw, plain, roomy = torch.Generator().manual_seed(0), DynamicLayer(), RoomyLayer()
    for new in columns:
        keys, values = states(draw, 4, new)
        plain.update(keys, values)
        assert all(map(torch.equal, roomy.update(keys, values), (plain.keys, plain.values)))
    assert roomy.get_seq_length() == sum(columns)


def test_rows_are_chosen_and_repeated_between_columns() -> None:
    draw, plain, roomy = torch.Generator().manual_seed(0), DynamicLayer(), RoomyLayer()
    for new in range(1, 9):
        keys, values = states(draw, len(plain.keys) if plain.is_initialized else 1, new)
        for layer in (plain, roomy):
            layer.update(keys, values)
            layer.batch_repeat_interleave(3)
            layer.batch_select_indices(torch.arange(0, len(layer.keys), 2))
        assert torch.equal(both(roomy), both(plain))


def test_joined_rows_end_in_the_same_column() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [states(draw, rows, columns) for rows, columns in ((2, 5), (1, 3), (3, 4))]
    caches = [Cache(layers=[RoomyLayer()]) for _ in parts]
    for cache, (keys, values) in zip(caches, parts, strict=True):
        cache.update(keys, values, 0)
    (layer,) = joined(caches, 5).layers
    padded = [torch.nn.functional.pad(keys, (0, 0, 5 - keys.shape[2], 0)) for keys, _ in parts]
    assert torch.equal(layer.keys, torch.cat(padded))
    more, _ = states(draw, 6, 1)
    assert torch.equal(layer.update(more, more)[0], torch.cat([*[torch.cat(padded)], more], 2))


def test_only_models_that_keep_every_token_get_one() -> None:
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=3))
    found = new_cache(llama)
    assert found is not None
    assert [type(layer) for layer in found.layers] == [RoomyLayer] * 3
    mistral = MistralConfig(**sizes, num_hidden_layers=1, num_key_value_heads=1, sliding_window=4)
    assert new_cache(MistralForCausalLM(mistral)) is None
