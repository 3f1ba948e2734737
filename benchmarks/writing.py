"""The factory's two costs on the lab: writing programs, and a step of DPO, beside the plain way to do each.

    python benchmarks/writing.py                  # 256 programs; writes benchmarks/writing.json
    python benchmarks/writing.py --programs 64 --rounds 2

Writing: the engine and transformers' `generate` sample as many programs at temperature 1.0, in batches of one
size; tokens per second, ends included. Step: TRL's trainer as a run sets it up, from the end of one step to
the end of the next, and the same loss written down here (DPO's sigmoid and the likelihood of the chosen
programs, reference known beforehand, AdamW, clipping) on the same pairs in batches of the same size.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools

import torch
from common import machine, medians, save, take_turns
from torch import Tensor

from selfdev.api import model_path
from selfdev.config.config import load_config
from selfdev.engine.engine import Engine
from selfdev.factory import dpo, factory, objectives
from selfdev.lab.corpus import make_program
from selfdev.records import Lessons, TextPair

OUT = Path(__file__).parent / "writing.json"
CONFIG = load_config(Path(__file__).parents[1] / "configs" / "lab.yaml")
GOALS = {"writing": 1.5, "step": 1.3}  # ours divided by generate's; TRL's seconds divided by the bare ones
PAIRS = 64


def writing(seed: Path, programs: int, rounds: int) -> dict[str, Any]:
    """Tokens per second of the engine and of `generate`."""
    engine = Engine(seed, dtype="float32")
    f, batch = CONFIG.factory, min(CONFIG.factory.batch, programs)
    ids = torch.tensor([engine.tokenizer(factory.prompt()).input_ids])
    written = {"engine": [0.0], "transformers generate": [0.0]}
    numbers = torch.from_numpy(factory.uniforms(0, 1, 0, programs, f.max_new_tokens))

    def ours() -> None:
        before = engine.tokens
        for start in range(0, programs, batch):
            engine.sample(factory.prompt(), 1.0, numbers[start : start + batch])
        written["engine"].append(engine.tokens - before)

    def theirs() -> None:
        count = 0
        for _ in range(0, programs, batch):
            out = engine.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                num_return_sequences=batch, max_new_tokens=f.max_new_tokens, pad_token_id=min(engine.ends),
            )  # fmt: skip
            new = out[:, ids.shape[1] :]
            count += int(sum((new != end).sum() for end in engine.ends) / max(1, len(engine.ends)))
        written["transformers generate"].append(count)

    seconds = take_turns({"engine": ours, "transformers generate": theirs}, rounds)
    rates = {
        name: [count / s for count, s in zip(written[name][-rounds:], runs, strict=True)]
        for name, runs in seconds.items()
    }
    middle = medians(rates)
    return {
        "unit": "tokens per second",
        "ours": "engine",
        "theirs": "transformers generate",
        "programs": programs,
        "median": {name: round(value) for name, value in middle.items()},
        "ratio": round(middle["engine"] / middle["transformers generate"], 2),
        "goal": GOALS["writing"],
        "runs": {name: [round(value) for value in values] for name, values in rates.items()},
    }


def step(seed: Path, rounds: int) -> dict[str, Any]:
    """Seconds of a training step by TRL and bare."""
    rng = random.Random(0)
    experts = len(CONFIG.models.experts)
    texts = [make_program(rng, experts) for _ in range(2 * PAIRS)]
    pairs = tuple(TextPair(*two) for two in zip(texts[::2], texts[1::2], strict=True))
    torch.set_num_threads(CONFIG.dpo.threads)
    runs: dict[str, list[float]] = {"TRL": [], "bare": []}
    rivals: dict[str, Callable[[Path, Sequence[TextPair]], float]] = {"TRL": by_trl, "bare": bare}
    for turn in range(rounds):
        for name in list(rivals)[:: -1 if turn % 2 else 1]:
            runs[name].append(rivals[name](seed, pairs))
    torch.set_num_threads(1)
    middle = medians(runs)
    return {
        "unit": "seconds per step",
        "ours": "TRL",
        "theirs": "bare",
        "pairs per step": CONFIG.dpo.batch,
        "median": {name: round(value, 4) for name, value in middle.items()},
        "ratio": round(middle["TRL"] / middle["bare"], 2),
        "goal": GOALS["step"],
        "runs": {name: [round(value, 4) for value in values] for name, values in runs.items()},
    }


def by_trl(seed: Path, pairs: Sequence[TextPair]) -> float:
    """The median step of TRL's trainer, in the middle of an epoch."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Notes when steps end."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    model, tokenizer = dpo._load(seed)
    with tempfile.TemporaryDirectory() as work:
        lessons = Lessons(tuple(pairs))
        given = (model, tokenizer, factory.prompt(), lessons, CONFIG.dpo, 0, "cpu", Path(work))
        trainer = objectives.make_trainer(*given)
        dpo._attend(trainer, None)
        trainer.add_callback(Watch())
        trainer.train()
    return statistics.median(b - a for a, b in itertools.pairwise(ends))


def bare(seed: Path, pairs: Sequence[TextPair]) -> float:
    """The median step of a loop that does no more than it must."""
    model, tokenizer = dpo._load(seed)
    model.train()
    prompt = tokenizer(factory.prompt()).input_ids
    batches = [_rows(tokenizer, prompt, pairs[at : at + CONFIG.dpo.batch]) for at in _starts(pairs)]
    with torch.no_grad():
        known = [_log_probabilities(model, ids, labels)[0] for ids, labels in batches]
    optimiser = torch.optim.AdamW(model.parameters(), lr=CONFIG.dpo.learning_rate, weight_decay=0.0)
    ends = []
    for (ids, labels), reference in zip(batches, known, strict=True):
        sums, means = _log_probabilities(model, ids, labels)
        half = len(ids) // 2
        margin = (sums - reference)[:half] - (sums - reference)[half:]
        loss = -torch.nn.functional.logsigmoid(CONFIG.dpo.beta * margin).mean()
        loss = loss - CONFIG.dpo.sft_weight * means[:half].mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        ends.append(time.perf_counter())
    return statistics.median(b - a for a, b in itertools.pairwise(ends))


def _starts(pairs: Sequence[TextPair]) -> range:
    return range(0, len(pairs) - CONFIG.dpo.batch + 1, CONFIG.dpo.batch)


def _rows(tokenizer: Any, prompt: list[int], pairs: Sequence[TextPair]) -> tuple[Tensor, Tensor]:
    """Chosen programs, then rejected ones, behind the prompt; labels -100 where nothing is learned."""
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    tails = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in texts]
    longest = max(map(len, tails))
    ids = [prompt + tail + [0] * (longest - len(tail)) for tail in tails]
    labels = [[-100] * len(prompt) + tail + [-100] * (longest - len(tail)) for tail in tails]
    return torch.tensor(ids), torch.tensor(labels)


def _log_probabilities(model: Any, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row's labelled tokens: their sum, and their mean."""
    logits = model(ids).logits[:, :-1]
    wanted = labels[:, 1:]
    counted = wanted != -100
    each = -torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), wanted, reduction="none", ignore_index=-100
    )
    sums = (each * counted).sum(1)
    return sums, sums / counted.sum(1)


def main() -> None:
    """Measure, print, write benchmarks/writing.json."""
    parser = argparse.ArgumentParser(description="Speed of writing programs and of DPO beside the plain way.")
    parser.add_argument("--programs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    seed = model_path("lab:a/seed")
    results: dict[str, Any] = {"machine": machine("trl")}
    results["writing"] = writing(seed, given.programs, given.rounds)
    results["step"] = step(seed, given.rounds)
    for part in GOALS:
        print(f"{part}: {results[part]['ratio']} (goal {GOALS[part]}), {results[part]['median']}")
    save(given.out, results)


if __name__ == "__main__":
    main()
