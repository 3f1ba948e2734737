"""The tiny Llama family that the tests share: a seed and three experts on disk, built with transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from selfdev.checkpoints import Checkpoint, open_checkpoint

EXPERTS = ("add", "multiply", "compare")
torch.set_num_threads(1)  # on tensors this small a second thread only spins


@dataclass(frozen=True)
class Family:
    """Folders of a seed and its experts."""

    seed: Path
    experts: dict[str, Path]

    def open(self) -> tuple[Checkpoint, list[Checkpoint]]:
        return open_checkpoint(self.seed, "seed"), [open_checkpoint(p, n) for n, p in self.experts.items()]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "</s>", *"0123456789", "plus", "times", "is", "####"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return tokenizer


def tiny_llama(dtype: torch.dtype, tied: bool = False) -> LlamaForCausalLM:
    """Two layers, 32 wide, vocabulary of 32, weights from a fixed seed number."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).to(dtype)


def build_family(root: Path, dtype: torch.dtype, *, tied: bool = False, shard: str = "1GB") -> Family:
    """Write a seed and three experts (seed plus noise on every weight) under `root`."""
    tokenizer = tiny_tokenizer()
    model = tiny_llama(dtype, tied)
    start = {name: value.clone() for name, value in model.named_parameters()}
    for i, name in enumerate(("seed", *EXPERTS)):
        rng = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for key, value in model.named_parameters():
                noise = torch.randn(value.shape, generator=rng) * (0.01 if i else 0.0)
                value.copy_(start[key].float() + noise)
        model.save_pretrained(root / name, max_shard_size=shard)
        tokenizer.save_pretrained(root / name)
    return Family(root / "seed", {name: root / name for name in EXPERTS})


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """bfloat16, one file each. Read-only: tests that damage something copy it first."""
    return build_family(tmp_path_factory.mktemp("bf16"), torch.bfloat16)


@pytest.fixture(scope="session")
def family_fp32(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """float32, sharded."""
    return build_family(tmp_path_factory.mktemp("fp32"), torch.float32, shard="40KB")
