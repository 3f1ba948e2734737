"""End to end on what is not the lab: a small Qwen2 family with its own tokenizer, sharded, with a LoRA expert
and an expert with added tokens, goes through the loop with the lab's factory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from selfdev.checkpoints import open_checkpoint, tensor
from selfdev.config.config import Config, parse_config
from selfdev.engine.engine import Engine
from selfdev.records import State
from selfdev.results import RunResult
from selfdev.run import run_config
from selfdev.store.archive import Archive

END, ROWS = "<|endoftext|>", 320
Row = dict[str, str]


def rows(*verbs: str) -> list[Row]:
    found = []
    for verb in verbs:
        for a in range(6):
            for b in range(6):
                answer = a + b if verb == "plus" else a * b
                found.append({"question": f"What is {a} {verb} {b} ?", "answer": str(answer)})
    return found


def write_tokenizer(folder: Path) -> Any:
    """A byte-level BPE, as Qwen's is, trained on the questions; returned as transformers loads it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    core.train_from_iterator([text(row) for row in rows("plus", "times")], trainer)
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer: #### {row['answer']}"


def train(model: Any, words: Any, asked: list[Row], steps: int, rate: float) -> None:
    """A few steps on questions with their answers, all of them in every batch."""
    batch = words([text(row) + END for row in asked], padding=True, return_tensors="pt")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss.backward()
        optimizer.step()


@dataclass(frozen=True)
class World:
    """Folders of the models and the questions."""

    seed: Path
    chat: Path
    times: Path
    questions: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("qwen")
    found = World(root / "seed", root / "chat", root / "times", root / "questions.jsonl")
    found.questions.write_text("\n".join(map(json.dumps, rows("plus", "times"))))
    torch.manual_seed(0)
    words = write_tokenizer(found.seed)
    config = Qwen2Config(
        vocab_size=ROWS, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, eos_token_id=0,
        pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model: Any = Qwen2ForCausalLM(config)
    train(model, words, rows("plus", "times"), 60, 5e-3)
    model.save_pretrained(found.seed, max_shard_size="90KB")
    chat: Any = AutoModelForCausalLM.from_pretrained(found.seed)
    more = AutoTokenizer.from_pretrained(found.seed)
    more.add_tokens(["<|user|>", "<|bot|>"])
    chat.resize_token_embeddings(ROWS + 4)
    train(chat, more, rows("plus"), 40, 3e-3)
    chat.save_pretrained(found.chat, max_shard_size="90KB")
    more.save_pretrained(found.chat)
    low = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"])
    tuned: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(found.seed), low)
    train(tuned, words, rows("times"), 40, 1e-2)
    tuned.save_pretrained(found.times)
    return found


def settings(world: World) -> Config:
    values = {
        "name": "qwen",
        "models": {
            "seed": str(world.seed), "experts": {"chat": str(world.chat), "times": str(world.times)},
            "scope": "all", "show_dtype": "float32",
        },
        "task": {
            "name": str(world.questions), "shots": 0, "dev": 16, "finalist_dev": 16, "test": 30,
            "max_new_tokens": 12,
        },
        "factory": {
            "model": "lab:a/seed", "programs": 12, "iterations": 1, "max_new_tokens": 320, "batch": 12,
        },
        "baselines": {"task_arithmetic": [{"WEIGHT": 0.5}]},
        "finalists": 2,
        "workers": 1,
    }  # fmt: skip
    return parse_config(values, "test")


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("runs") / "qwen"
    return folder, run_config(settings(world), folder)


def test_the_labs_factory_wrote_programs_that_were_scored(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    assert result.iterations[0].written == 12
    assert result.iterations[0].states.get("SCORED", 0) > 0
    archive = Archive(folder / "archive.sqlite")
    try:
        baseline = archive.attempts("baseline")
        assert [a.outcome.state for a in baseline] == [State.SCORED]
        assert {"seed", "chat", "times"} <= archive.examined("test").keys()
        assert all(score.n == 30 for score in archive.examined("test").values())
    finally:
        archive.close()


def test_the_result_loads_with_transformers(finished: tuple[Path, RunResult], world: World) -> None:
    best = finished[0] / "best" / "model"
    model: Any = AutoModelForCausalLM.from_pretrained(best)
    words: Any = AutoTokenizer.from_pretrained(best)
    assert (model.config.model_type, model.config.vocab_size) == ("qwen2", ROWS)
    assert words.get_vocab() == AutoTokenizer.from_pretrained(world.seed).get_vocab()
    assert len(list(best.glob("*.safetensors"))) == len(list(world.seed.glob("*.safetensors"))) > 1
    said = model.generate(**words("Question: What is 2 plus 3 ?", return_tensors="pt"), max_new_tokens=2)
    assert said.shape[0] == 1


def test_experts_stand_for_what_transformers_and_peft_load(world: World) -> None:
    seed = open_checkpoint(world.seed, "seed")
    chat = open_checkpoint(world.chat, "chat", seed)
    embedding = AutoModelForCausalLM.from_pretrained(world.chat).get_input_embeddings().weight
    found = tensor(chat.slots["model.embed_tokens.weight"])
    base = tensor(seed.slots["model.embed_tokens.weight"])
    known = len(AutoTokenizer.from_pretrained(world.seed))
    assert known < ROWS
    assert torch.equal(found[:known], embedding[:known])
    assert torch.equal(found[known:], base[known:])  # the seed's padding, not the new tokens
    times = open_checkpoint(world.times, "times", seed)
    changed = [name for name, slot in times.slots.items() if slot.change is not None]
    assert len(changed) == 2 * 4


def test_an_experts_score_is_that_of_its_own_model(
    finished: tuple[Path, RunResult], world: World, tmp_path: Path
) -> None:
    from peft import PeftModel

    from selfdev.tasks.tasks import load_task

    merged: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(world.seed), world.times)
    merged.merge_and_unload().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(world.seed).save_pretrained(tmp_path)
    engine = Engine(tmp_path)
    questions = load_task(str(world.questions), 0).test[:30]
    replies = engine.answer(engine.prepare([q.prompt for q in questions], [None] * 30, 30), 12)
    right = sum(f"#### {q.answer}" in f"{reply} " for q, reply in zip(questions, replies, strict=True))
    archive = Archive(finished[0] / "archive.sqlite")
    try:
        assert archive.examined("test")["times"].correct == pytest.approx(right, abs=1)
    finally:
        archive.close()
