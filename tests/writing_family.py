"""A tiny family whose seed writes valid merge programs, for real runs of the whole loop.

Every program is one token of the vocabulary, and so is every answer `#### N`: a random model then writes
programs and answers with one token each, at any temperature.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from selfdev.engine.engine import Engine

HEAD = """def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
"""
ARITHMETIC = (
    "    return {n: seed[n] + sum(w * (e[n] - seed[n]) for w, e in zip(%s, experts)) for n in seed}\n"
)
WEIGHTS = [(0.9, 0.0), (0.8, 0.1), (0.5, 0.5), (0.3, 0.3), (0.1, 0.1), (0.0, 0.9), (-0.5, 0.0), (0.6, 0.2)]
PROGRAMS = [
    *(HEAD + ARITHMETIC % (list(weights),) for weights in WEIGHTS),
    HEAD + "    return dict(experts[0])\n",  # a copy of an expert
    HEAD + "    return {n: seed[n] / 0 for n in seed}\n",  # BAD_WEIGHTS
    HEAD + "    return seed.nothing\n",  # CRASHED
    HEAD + "    return open('/etc/passwd')\n",  # INVALID
]
ANSWERS = [f"#### {i}" for i in range(10)]
WORDS = ["<unk>", "<s>", "</s>", *"0123456789", "plus", "times"]
QUESTIONS = 60


def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_tokens([AddedToken(text, normalized=False) for text in (*ANSWERS, *PROGRAMS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    )


def build(root: Path) -> Path:
    """Write seed, experts `good` and `bad`, and questions whose gold answers are what `good` says."""
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[len(WORDS) :] *= 3  # answers and programs are written more often than words
    for place, name in enumerate(("seed", "good", "bad")):
        rng = torch.Generator().manual_seed(place)
        with torch.no_grad():
            for key, value in model.named_parameters():
                if place and ".mlp." in key:
                    value += 0.3 * torch.randn(value.shape, generator=rng)
        model.float().save_pretrained(root / name)
        words.save_pretrained(root / name)
    write_questions(root / "good", root / "questions.jsonl")
    return root


def write_questions(expert: Path, out: Path) -> None:
    engine = Engine(expert)
    asked = [f"{a} {verb} {b}" for verb in ("plus", "times") for a in range(10) for b in range(10)]
    prompts = [f"Question: {text}\nAnswer:" for text in asked]
    replies = engine.answer(engine.prepare(prompts, [None] * len(prompts), 100), 1)
    rows = [
        {"question": text, "answer": reply.split()[1]}
        for text, reply in zip(asked, replies, strict=True)
        if reply in ANSWERS
    ]
    assert len(rows) >= QUESTIONS
    out.write_text("\n".join(json.dumps(row) for row in rows[:QUESTIONS]))
