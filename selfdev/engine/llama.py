"""The forward pass of a small Llama on CPU in plain torch, with transformers' numbers.

A step of a 1 M model takes transformers 7 ms, of which 5 are Python and small operations. Here projections
that share their input are one product each, and masks and rotations are made once for all layers. Parameters
stay those of the transformers model, whose weights are swapped in place: they become views of the joint ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

from selfdev.engine.cache import RoomyLayer


@dataclass(frozen=True, slots=True)
class _Block:
    """Weights of one layer: `heads` those of query, key and value below each other, `gates` gate and up."""

    before: Tensor
    heads: Tensor
    out: Tensor
    between: Tensor
    gates: Tensor
    down: Tensor


class Llama:
    """Computes what the model's own `forward` does, in the same cache of `RoomyLayer`s."""

    def __init__(self, model: Any) -> None:
        config, inner = model.config, model.model
        self._size: int = config.head_dim
        self._queries, self._keys = config.num_attention_heads, config.num_key_value_heads
        self._epsilon: float = config.rms_norm_eps
        self._words, self._norm, self._head = (
            inner.embed_tokens.weight,
            inner.norm.weight,
            model.lm_head.weight,
        )
        self._blocks = [_block(layer) for layer in inner.layers]
        self._frequencies: Tensor = inner.rotary_emb.inv_freq
        self._turns = self._rotations(256)

    def __call__(self, ids: Tensor, cache: Any, mask: Tensor | None, keep: int) -> Tensor:
        """Logits [rows, keep, vocabulary] of the last of the tokens `ids` [rows, new]; adds them to `cache`.

        `mask` [rows, cached + new] is 0 where a column is no token, None when all are.
        """
        rows, new = ids.shape
        before = cache.get_seq_length()
        seen = torch.ones(rows, before + new, dtype=torch.bool) if mask is None else mask.bool()
        places = (seen.cumsum(1) - 1).clamp_(min=0)[:, before:]
        if before + new > len(self._turns):
            self._turns = self._rotations(2 * (before + new))
        turns = self._turns[places][:, :, :, None]  # [rows, new, 2, 1, size]
        hidden = embedding(ids, self._words).reshape(rows * new, -1)
        bias = _bias(seen, new)
        for block, layer in zip(self._blocks, cache.layers, strict=True):
            read = self._attend(
                block, layer, rms_norm(hidden, hidden.shape[1:], block.before, self._epsilon), turns, bias
            )
            hidden = torch.addmm(hidden, read, block.out.t())
            normed = rms_norm(hidden, hidden.shape[1:], block.between, self._epsilon)
            gate, up = linear(normed, block.gates).chunk(2, 1)
            hidden = torch.addmm(hidden, silu(gate) * up, block.down.t())
        last = hidden.view(rows, new, -1)[:, new - keep :]
        return linear(rms_norm(last, last.shape[2:], self._norm, self._epsilon), self._head)

    def _attend(
        self, block: _Block, layer: RoomyLayer, normed: Tensor, turns: Tensor, bias: Tensor
    ) -> Tensor:
        """What each token reads from those before it, [rows * new, queries * size]."""
        rows, new = turns.shape[:2]
        heads = linear(normed, block.heads).view(rows, new, -1, self._size)
        turning, values = heads[:, :, : -self._keys], heads[:, :, -self._keys :]
        cosines, sines = turns.unbind(2)
        turned = torch.addcmul(turning * cosines, turning.roll(self._size // 2, 3), sines)
        queries, keys = turned[:, :, : self._queries], turned[:, :, self._queries :]
        keys, values = layer.update(keys.transpose(1, 2), values.transpose(1, 2))
        if new == 1:  # the fused kernel takes several times as long for a single query per row
            grouped = queries.reshape(rows, self._keys, -1, self._size) * self._size**-0.5
            weights = torch.softmax((grouped @ keys.transpose(2, 3)).add_(bias), -1)
            return (weights @ values).view(rows, -1)
        read = scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, bias, enable_gqa=self._queries != self._keys
        )
        return read.transpose(1, 2).reshape(rows * new, -1)

    def _rotations(self, length: int) -> Tensor:
        """Cosines, and sines with the sign that half-rotation gives them, by place: [length, 2, size]."""
        angles = torch.outer(torch.arange(length, dtype=torch.float32), self._frequencies)
        cosines, sines = angles.cos(), angles.sin()
        return torch.stack([torch.cat([cosines, cosines], 1), torch.cat([-sines, sines], 1)], 1)


def fits(model: Any) -> bool:
    """Whether `Llama` computes this model: a plain Llama in float32 on CPU, without biases or adapters."""
    config = model.config
    if config.model_type != "llama" or type(model).__name__ != "LlamaForCausalLM":
        return False
    plain = config.rope_parameters["rope_type"] == "default" and config.hidden_act == "silu"
    unbiased = not (config.attention_bias or config.mlp_bias)
    return plain and unbiased and model.device.type == "cpu" and model.dtype == torch.float32


def _bias(seen: Tensor, new: int) -> Tensor:
    """What is added to attention scores [rows, 1, new, all]: -inf at later and at absent tokens.

    Every token sees itself, also one of padding: nothing to read would give NaN.
    """
    rows, columns = seen.shape
    places = torch.arange(columns)
    own = places[columns - new :, None]
    allowed = (seen[:, None] & (places <= own)) | (places == own)
    return torch.zeros(rows, 1, new, columns).masked_fill_(~allowed[:, None], -torch.inf)


def _block(layer: Any) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp
    heads = _joint([attention.q_proj, attention.k_proj, attention.v_proj])
    gates = _joint([mlp.gate_proj, mlp.up_proj])
    return _Block(
        layer.input_layernorm.weight,
        heads,
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        gates,
        mlp.down_proj.weight,
    )


def _joint(layers: list[Any]) -> Tensor:
    """Weights below each other in one tensor, of which the layers' own become views."""
    joint = torch.cat([layer.weight.detach() for layer in layers])
    start = 0
    for layer in layers:
        end = start + len(layer.weight)
        layer.weight.data = joint[start:end]
        start = end
    return joint
