"""Attention of one new token per row: plain products instead of torch's fused kernels.

Those walk over blocks of queries: with a single query per row they take several times as long on a CPU, and
on a GPU a mask has them copy the keys that several heads share once for each head. Longer passes and masks
of another kind stay with transformers' own function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "selfdev_single_query"


def use_for(model: Any) -> bool:
    """Let a transformers model with SDPA attention use `attend`; whether it does: any other is left alone."""
    if model.config._attn_implementation != "sdpa":
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention in the signature of transformers: query [rows, heads, new, d], key and value [rows, kv heads,
    all, d], boolean mask [rows, 1, new, all]; gives [rows, new, heads, d].
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, new, size = query.shape
    shared = attention_mask is None or attention_mask.shape[1] == 1  # by all heads
    if new > 1 or not shared or options.get("position_bias") is not None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return result
    scaling = options.get("scaling") or size**-0.5
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size) * scaling
    weights = grouped @ key.transpose(2, 3)
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    weights = torch.softmax(weights, -1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).reshape(rows, 1, heads, value.shape[3]), None
