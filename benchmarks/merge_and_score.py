"""How fast a merged model is scored, and what the sandbox costs a program: rivals side by side in one run.

    make bench                                   # on the lab's seed; writes benchmarks/merge_and_score.json
    python benchmarks/merge_and_score.py --seed DIR --expert DIR --questions 64 --rounds 3

Answering: the engine with drafts, the engine without, and `generate` of transformers, on the same dev
questions in batches of the same size, with the same weights, dtype and number of threads; tokenising is left
out for all three. Sandbox: one built-in program on the same models, isolated and as a plain call in this
process. Rivals take turns, in another order each round, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import Rival, machine, medians, take_turns

from selfdev.api import model_path
from selfdev.checkpoints import ModelView, open_checkpoint, tensor, views
from selfdev.config.config import load_config
from selfdev.engine.batches import Batch
from selfdev.engine.engine import Engine
from selfdev.lab import experts
from selfdev.library import load_program
from selfdev.records import Program
from selfdev.sandbox import Sandbox
from selfdev.tasks.tasks import STOPS, Question, grade, load_task

OUT = Path(__file__).parent / "merge_and_score.json"
PROGRAM = "task_arithmetic"
LAB = load_config(Path(__file__).parents[1] / "configs" / "lab.yaml").task
LONGEST = LAB.max_new_tokens


def generate(engine: Engine, batches: Sequence[Batch]) -> list[str]:
    """Greedy replies by transformers' own `generate`, each batch until its last row ends."""
    replies = [""] * sum(len(batch.places) for batch in batches)
    for batch in batches:
        out = engine.model.generate(
            input_ids=batch.ids, attention_mask=batch.mask, max_new_tokens=LONGEST, do_sample=False,
            pad_token_id=min(engine.ends),
        )  # fmt: skip
        for place, row in zip(batch.places, out[:, batch.ids.shape[1] :], strict=True):
            text = engine.tokenizer.decode(row, skip_special_tokens=True)
            replies[place] = text[: min((text.find(s) for s in STOPS if s in text), default=len(text))]
    return replies


def answering(seed: Path, questions: Sequence[Question], batch: int, rounds: int) -> dict[str, Any]:
    """Questions per second of the three ways to answer, and whether their replies agree."""
    engine = Engine(seed)
    prompts = [question.prompt for question in questions]
    quarter = -(-batch // 4)
    drafted = engine.prepare(prompts, [question.solution for question in questions], quarter)
    plain = engine.prepare(prompts, [None] * len(prompts), quarter)
    static = engine.prepare(prompts, [None] * len(prompts), batch)
    rivals: dict[str, Rival] = {
        "engine with drafts": lambda: engine.answer(drafted, LONGEST, STOPS, rows=batch),
        "engine without drafts": lambda: engine.answer(plain, LONGEST, STOPS, rows=batch),
        "transformers generate": lambda: generate(engine, static),
    }
    replies = {name: rival() for name, rival in rivals.items()}
    seconds = take_turns(rivals, rounds)
    runs = {name: [len(questions) / s for s in values] for name, values in seconds.items()}
    return {
        "unit": "questions per second, more is better",
        "questions": len(questions),
        "batch": batch,
        "median": medians(runs),
        "runs": runs,
        "accuracy": {name: share_right(given, questions) for name, given in replies.items()},
        "replies equal to generate's": {
            name: share_equal(given, replies["transformers generate"]) for name, given in replies.items()
        },
    }


def share_right(replies: Sequence[str], questions: Sequence[Question]) -> float:
    """Strict accuracy, 0..1."""
    return statistics.fmean(grade(r, q.answer)[0] for r, q in zip(replies, questions, strict=True))


def share_equal(a: Sequence[str], b: Sequence[str]) -> float:
    """Share of replies that are the same text, 0..1."""
    return statistics.fmean(x == y for x, y in zip(a, b, strict=True))


def isolation(shown: Sequence[ModelView], programs: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per program in the sandbox and as a plain call; the difference is what isolation costs."""
    program = load_program(PROGRAM)
    direct = in_process(program, shown)
    begin = time.perf_counter()
    with Sandbox({"models": shown}) as sandbox:
        start = time.perf_counter() - begin
        ended = sandbox.run(program, 0).outcome
        if ended.reason:
            raise RuntimeError(f"{PROGRAM} ends in {ended.state}: {ended.reason}")
        rivals: dict[str, Rival] = {
            "in the sandbox": lambda: [sandbox.run(program, 0) for _ in range(programs)],
            "plain call": lambda: [direct() for _ in range(programs)],
        }
        seconds = take_turns(rivals, rounds)
        layers = sorted(sandbox.layers)
    runs = {name: [1000 * s / programs for s in values] for name, values in seconds.items()}
    middle = medians(runs)
    return {
        "unit": "milliseconds per program, less is better",
        "program": PROGRAM,
        "models": len(shown),
        "values per model": sum(tensor(slot).numel() for slot in shown[0].slots),
        "programs per round": programs,
        "median": middle,
        "overhead": middle["in the sandbox"] - middle["plain call"],
        "start once, milliseconds": 1000 * start,
        "layers": layers,
        "runs": runs,
    }


def in_process(program: Program, shown: Sequence[ModelView]) -> Rival:
    """A call of the program in this process, with its result in the seed's stored dtypes."""
    names: dict[str, Any] = {}
    exec(compile(program.code, PROGRAM, "exec"), names)  # a file of this package, not a model's text
    models = {view.name: {slot.name: tensor(slot) for slot in view.slots} for view in shown}
    device = torch.device("cpu")

    def call() -> dict[str, torch.Tensor]:
        merged = names["merge_models"](models, device)
        return {name: merged[name].to(value.dtype) for name, value in models["seed"].items()}

    return call


def measure(
    seed: Path, relatives: Mapping[str, Path], questions: int, batch: int, programs: int, rounds: int
) -> dict[str, Any]:
    """Both measurements on a seed and its experts."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    where = machine() | {"threads": torch.get_num_threads()}
    opened = [open_checkpoint(path, name) for name, path in relatives.items()]
    shown = views(open_checkpoint(seed, "seed"), opened)
    return {
        "machine": where,
        "rounds": rounds,
        "answering": answering(seed, load_task("lab").dev[:questions], batch, rounds),
        "sandbox": isolation(shown, programs, rounds),
    }


def show(results: Mapping[str, Any]) -> None:
    """The medians as lines of text."""
    for part in ("answering", "sandbox"):
        print(f"{part}: {results[part]['unit']}, median of {results['rounds']}")
        for name, value in results[part]["median"].items():
            print(f"  {name:24}{value:10.1f}")
    print(f"  {'overhead':24}{results['sandbox']['overhead']:10.1f}")


def main() -> None:
    """Measure, print, and write benchmarks/merge_and_score.json."""
    parser = argparse.ArgumentParser(description="Speed of scoring and of the sandbox, rivals side by side.")
    parser.add_argument("--seed", default="lab:a/seed", help="the model that answers")
    parser.add_argument("--expert", action="append", help="a relative of it; by default the lab's experts")
    parser.add_argument("--questions", type=int, default=LAB.dev)
    parser.add_argument("--batch", type=int, default=LAB.batch)
    parser.add_argument("--programs", type=int, default=20, help="programs per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    relatives = given.expert or [f"lab:a/{name}" for name in experts("a")]
    named = {f"expert_{i}": model_path(path) for i, path in enumerate(relatives, 1)}
    results = measure(
        model_path(given.seed), named, given.questions, given.batch, given.programs, given.rounds
    )
    show(results)
    given.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
