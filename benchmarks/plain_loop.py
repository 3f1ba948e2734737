"""Greedy decoding of a Llama in bare torch: no library between the weights and the loop.

Keys and values have their places from the start, rows stay in the batch, nothing is decoded to text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu


class PlainLlama:
    """Weights by transformers' names, float32, and the few numbers of a config."""

    def __init__(self, weights: Mapping[str, Tensor], config: Any) -> None:
        self.w, self.c = weights, config
        size = config.head_dim
        base = config.rope_parameters["rope_theta"]
        self.frequencies = base ** -(torch.arange(0, size, 2) / size)

    @torch.inference_mode()
    def generate(self, ids: Tensor, mask: Tensor, count: int) -> Tensor:
        """The next `count` tokens of each row; ids and mask [rows, columns], padded on the left."""
        rows, width = ids.shape
        cache = ids.new_empty(
            self.c.num_hidden_layers, 2, rows, self.c.num_key_value_heads, width + count, self.c.head_dim,
            dtype=torch.float32,
        )  # fmt: skip
        seen = torch.cat([mask.bool(), mask.new_ones(rows, count).bool()], 1)
        causal = torch.ones(width, width).tril().bool()
        position = (mask.cumsum(1) - 1).clamp(min=0)
        allowed = (seen[:, None, None, :width] & causal).logical_or(torch.eye(width).bool())
        new = self._pass(ids, position, 0, allowed, cache)
        found = [new]
        last = position[:, -1:]
        for step in range(1, count):
            at = width + step - 1
            new = self._pass(new, last + step, at, seen[:, None, None, : at + 1], cache)
            found.append(new)
        return torch.cat(found, 1)

    def _pass(self, ids: Tensor, position: Tensor, at: int, allowed: Tensor, cache: Tensor) -> Tensor:
        table = self.w["model.embed_tokens.weight"]
        hidden = embedding(ids, table)
        angles = position[..., None] * self.frequencies
        turn = torch.cat([angles, angles], -1)[:, None]
        for layer in range(self.c.num_hidden_layers):
            name = f"model.layers.{layer}."
            normed = self._norm(hidden, name + "input_layernorm.weight")
            hidden = hidden + self._attend(normed, name + "self_attn.", turn, at, allowed, cache[layer])
            normed = self._norm(hidden, name + "post_attention_layernorm.weight")
            gate = silu(linear(normed, self.w[name + "mlp.gate_proj.weight"]))
            up = linear(normed, self.w[name + "mlp.up_proj.weight"])
            hidden = hidden + linear(gate * up, self.w[name + "mlp.down_proj.weight"])
        last = self._norm(hidden[:, -1:], "model.norm.weight")
        return linear(last, self.w.get("lm_head.weight", table)).argmax(-1)

    def _attend(self, x: Tensor, name: str, turn: Tensor, at: int, allowed: Tensor, cache: Tensor) -> Tensor:
        q, k, v = (
            linear(x, self.w[f"{name}{part}_proj.weight"])
            .view(*x.shape[:2], -1, self.c.head_dim)
            .transpose(1, 2)
            for part in "qkv"
        )
        end = at + x.shape[1]
        cache[0, :, :, at:end] = _turned(k, turn)
        cache[1, :, :, at:end] = v
        found = scaled_dot_product_attention(
            _turned(q, turn), cache[0, :, :, :end], cache[1, :, :, :end], allowed, enable_gqa=True
        )
        return linear(found.transpose(1, 2).flatten(2), self.w[name + "o_proj.weight"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.c.rms_norm_eps) * self.w[name]


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions."""
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
