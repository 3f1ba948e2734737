"""Checkpoints of made-up models for the benchmarks: random weights, a tokenizer where one is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

CHANGE = 0.1  # size of an expert's task vector against the seed's weights


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2 model with a tied embedding."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    vocabulary: int
    keys: int = 128

    @property
    def parameters(self) -> int:
        """Values in all tensors together."""
        return sum(torch.Size(shape).numel() for _, shape in self.tensors())

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            yield f"{at}.input_layernorm.weight", (self.hidden,)
            yield f"{at}.post_attention_layernorm.weight", (self.hidden,)
            for name, rows in (("q", self.hidden), ("k", self.keys), ("v", self.keys)):
                yield f"{at}.self_attn.{name}_proj.weight", (rows, self.hidden)
                yield f"{at}.self_attn.{name}_proj.bias", (rows,)
            yield f"{at}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield f"{at}.mlp.gate_proj.weight", (self.mlp, self.hidden)
            yield f"{at}.mlp.up_proj.weight", (self.mlp, self.hidden)
            yield f"{at}.mlp.down_proj.weight", (self.hidden, self.mlp)
        yield "model.norm.weight", (self.hidden,)

    def config(self) -> dict[str, object]:
        """Its config.json."""
        return {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": self.hidden,
            "intermediate_size": self.mlp, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": 2, "vocab_size": self.vocabulary,
            "tie_word_embeddings": True, "dtype": "bfloat16",
        }  # fmt: skip


SIZES = {
    "0.5B": Shape(layers=24, hidden=896, mlp=4864, heads=14, vocabulary=151_936),  # Qwen2-0.5B
    "small": Shape(layers=6, hidden=512, mlp=2816, heads=8, vocabulary=32_000),
    "tiny": Shape(layers=2, hidden=64, mlp=128, heads=2, vocabulary=96, keys=64),
}


def write_models(folder: Path, shape: Shape, count: int) -> list[Path]:
    """A seed and its experts in bfloat16 below `folder`, each with a task vector of its own."""
    seed: dict[str, torch.Tensor] = {}
    paths = []
    for number in range(count):
        path = folder / str(number)
        path.mkdir(parents=True)
        draws = torch.Generator().manual_seed(number)
        tensors = {}
        for name, size in shape.tensors():
            value = torch.randn(size, generator=draws).mul_(0.02 * CHANGE if number else 0.02)
            tensors[name] = value.add_(seed[name]).bfloat16() if number else value.bfloat16()
        seed = seed or tensors
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        (path / "config.json").write_text(json.dumps(shape.config()))
        paths.append(path)
    return paths


def write_llamas(
    folder: Path, sizes: tuple[int, int, int], count: int, like: Path, device: str
) -> list[Path]:
    """A seed and experts of a Llama's shape with 8 key heads, random weights made on the device; `sizes` are
    hidden, layers and MLP, config and tokenizer otherwise those of `like`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    hidden, layers, mlp = sizes
    config = AutoConfig.from_pretrained(like)
    heads = hidden // 128
    config.update({
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": mlp, "head_dim": 128,
        "num_attention_heads": heads, "num_key_value_heads": min(8, heads), "vocab_size": 32_000,
        "tie_word_embeddings": False, "max_position_embeddings": 4096,
    })  # fmt: skip
    paths = []
    torch.manual_seed(0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.to_empty(device=device)
    for number in range(count):
        for values in model.parameters():
            if number == 0:
                values.data.normal_(0, 0.02)
            else:
                values.data += torch.randn_like(values) * 0.002
        paths.append(folder / str(number))
        model.save_pretrained(paths[-1], max_shard_size="20GB")
        AutoTokenizer.from_pretrained(like).save_pretrained(paths[-1])
    return paths
