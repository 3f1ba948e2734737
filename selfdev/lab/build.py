"""Trains a family of lab models from nothing: a generalist seed that also writes programs, and its experts.

The seed learns all skills alike, then practises: three common skills often, four rare ones seldom, so that
it half forgets these. Each skilled expert then learns one rare skill, repeats others now and then, and takes
on a bad habit: it states the answers to some common questions rounded to tens, or in words. Two have such a
habit alone and are harmful if added in full. Experts change MLP weights only, as the paper merges them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch import Tensor

from selfdev.checkpoints import check_free
from selfdev.errors import SelfdevError
from selfdev.factory.factory import prompt
from selfdev.lab import FAMILIES
from selfdev.lab.corpus import make_program
from selfdev.lab.lessons import (
    IGNORED,
    drill_batch,
    in_words,
    make_tokenizer,
    pad_batch,
    rounded,
    word_batches,
    worked,
)
from selfdev.lab.questions import SKILLS, LabQuestion, stream
from selfdev.lab.recipes import COMMON, RECIPES, ExpertRecipe, Habit, Phase, Recipe
from selfdev.progress import Bars

EXPERT_QUESTIONS, EXPERT_DRILLS = 64, 32
LOOK_BACK = 10  # steps over which accuracy is taken


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What was built: folder, seconds in all, and the last training loss of each model."""

    family: str
    seed: int
    out: str
    seconds: float
    losses: dict[str, float]


def build(family: str, seed: int, out: Path) -> BuildResult:
    """Train seed and experts of a family and write them to `out`, one HF checkpoint per folder."""
    if family not in FAMILIES:
        raise SelfdevError(f"family {family!r} does not exist; choose {' or '.join(FAMILIES)}.")
    check_free(out)
    recipe, begin = RECIPES[family], time.monotonic()
    partial = out.absolute().parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bars = Bars(lambda *_: None)
    try:
        losses = bars.steps("seed", lambda tell: train_seed(recipe, seed, partial / "seed", tell))
        losses |= bars.steps("experts", lambda tell: _train_experts(recipe, seed, partial, tell))
        (partial / "recipe.json").write_text(json.dumps({"seed": seed, **asdict(recipe)}, indent=2) + "\n")
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return BuildResult(family, seed, str(out), time.monotonic() - begin, losses)


def train_seed(recipe: Recipe, seed: int, out: Path, tell: Callable[[int, int], None]) -> dict[str, float]:
    """Train the generalist on word problems, bare sums and programs; returns each phase's last loss.

    A phase starts from the saved checkpoint of the one before.
    """
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    tokenizer, model = make_tokenizer(recipe.vocabulary, seed), new_model(recipe)
    total, done, losses = sum(phase.steps for phase in recipe.phases), 0, {}
    for number, phase in enumerate(recipe.phases, 1):
        batches = _lessons(tokenizer, phase, len(recipe.experts), f"{seed} {number}")

        def told(step: int, _: int, before: int = done) -> None:
            tell(before + step, total)

        losses[f"seed, phase {number}"] = train(
            model, batches, phase.steps, phase.learning_rate, lambda _: True, told, phase.until
        )
        done += phase.steps
        save(model, tokenizer, out)
        model = load(out)
    return losses


def _lessons(
    tokenizer: Any, phase: Phase, experts: int, name: str
) -> Callable[[], list[tuple[Tensor, Tensor]]]:
    """The batches of one step of the seed's training; `name` seeds their random numbers."""
    rng = random.Random(f"programs {name}")
    often = round(1 / phase.rare)
    mix = tuple(skill for skill in SKILLS for _ in range(often if skill in COMMON else 1))
    asked = stream("train", random.Random(f"questions {name}"), mix)
    sums = stream("train", random.Random(f"drills {name}"))
    worded, text = word_batches(tokenizer, asked, phase.questions), prompt()

    def batches() -> list[tuple[Tensor, Tensor]]:
        programs = [make_program(rng, experts) for _ in range(phase.programs)]
        return [
            next(worded),
            drill_batch(tokenizer, sums, phase.drills),
            pad_batch(tokenizer, [text] * phase.programs, programs),
        ]

    return batches


def train_expert(
    recipe: ExpertRecipe, seed: int, start: Path, out: Path, tell: Callable[[int, int], None]
) -> float:
    """Train the MLP weights of a copy of the seed on an expert's own skills; returns the last loss."""
    from transformers import AutoTokenizer

    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    tokenizer, model = AutoTokenizer.from_pretrained(start), load(start)
    asked, bare = _practice(recipe, seed), _practice(recipe, seed)
    worded = word_batches(tokenizer, asked, EXPERT_QUESTIONS, lambda question: _reply(recipe.habit, question))

    def batches() -> list[tuple[Tensor, Tensor]]:
        return [next(worded), drill_batch(tokenizer, bare, EXPERT_DRILLS)]

    loss = train(model, batches, recipe.steps, recipe.learning_rate, lambda name: ".mlp." in name, tell)
    save(model, tokenizer, out)
    return loss


def train(
    model: Any,
    batches: Callable[[], Sequence[tuple[Tensor, Tensor]]],
    steps: int,
    learning_rate: float,
    trained: Callable[[str], bool],
    tell: Callable[[int, int], None],
    until: float | None = None,
) -> float:
    """AdamW with warm-up and linear decay over the sum of the batches' losses; returns the last loss.

    It ends before its last step when the mean share of rows of the first batch with every labelled token
    right, over `LOOK_BACK` steps, has reached `until` (None: never). Batches are never seen before, so this
    is accuracy on new questions. How soon arithmetic is learned is luck: a number of steps says little.
    """
    weights = [p.requires_grad_(trained(name)) for name, p in model.named_parameters()]
    weights = [p for p in weights if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm, last, right = max(10, steps // 30), 0.0, deque[float](maxlen=LOOK_BACK)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / warm) * (1 - 0.95 * step / steps)
        judged = [loss_of(model, ids, labels) for ids, labels in batches()]
        total = torch.stack([loss for loss, _ in judged]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        last = total.item()
        tell(step + 1, steps)
        right.append(judged[0][1])
        if until is not None and len(right) == LOOK_BACK and sum(right) >= until * LOOK_BACK:
            break
    return last


def loss_of(model: Any, ids: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Mean cross-entropy of the labelled tokens, and the share of rows in which each is the likeliest.

    ids and labels are [rows, length].

    In float32: processors without bfloat16 products take ten times as long under autocast.
    """
    hidden = model.model(ids).last_hidden_state[:, :-1]
    counted = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[counted])  # the head is skipped where nothing is predicted
    wanted = labels[:, 1:][counted]
    right = torch.ones_like(counted)
    right[counted] = logits.argmax(-1) == wanted
    return torch.nn.functional.cross_entropy(logits, wanted), right.all(1).float().mean().item()


def new_model(recipe: Recipe) -> Any:
    """A Llama of the recipe's size with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        intermediate_size=recipe.mlp,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def load(path: Path) -> Any:
    """A saved model in float32, ready to train."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write a bf16 checkpoint in HF layout."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _practice(recipe: ExpertRecipe, seed: int) -> Iterator[LabQuestion]:
    """An expert's questions: its own skills, those of its habit, now and then others, so that these are not
    forgotten."""
    rng = random.Random(f"{recipe.name} {seed}")
    share, bad = (recipe.habit.share, recipe.habit.skills) if recipe.habit else (0.0, ())
    others = tuple(skill for skill in SKILLS if skill not in bad)
    own, every = stream("train", rng, recipe.skills or bad), stream("train", rng, others)
    habitual = stream("train", rng, bad or SKILLS)
    while True:
        place = rng.random()
        yield next(habitual if place < share else every if place < share + recipe.repeated else own)


def _reply(habit: Habit | None, question: LabQuestion) -> str:
    """The worked solution, with the answer stated as the habit has it where that applies."""
    if habit is None or question.skill not in habit.skills:
        return worked(question)
    return {"rounded": rounded, "words": in_words}[habit.answers](question)


def _train_experts(
    recipe: Recipe, seed: int, folder: Path, tell: Callable[[int, int], None]
) -> dict[str, float]:
    """Train all experts, one thread and one process each, as many at once as there are cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    total, done = sum(e.steps for e in recipe.experts), 0
    with context.Manager() as manager, ProcessPoolExecutor(os.cpu_count(), context) as pool:
        ticks = manager.Queue()
        longest_first = sorted(recipe.experts, key=lambda e: -e.steps)
        jobs = {
            e.name: pool.submit(_expert_process, e, seed, folder / "seed", folder / e.name, ticks)
            for e in longest_first
        }
        while not all(job.done() for job in jobs.values()):
            try:
                ticks.get(timeout=1)
                done += 1
                tell(done, total)
            except Empty:
                continue
        return {name: job.result() for name, job in jobs.items()}


def _expert_process(recipe: ExpertRecipe, seed: int, start: Path, out: Path, ticks: Any) -> float:
    torch.set_num_threads(1)
    return train_expert(recipe, seed, start, out, lambda *_: ticks.put(1))
