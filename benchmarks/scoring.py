"""Questions per second on the lab: our engine beside lm-evaluation-harness, transformers and bare torch.

    python benchmarks/scoring.py                                       # 2,000 questions as whole commands
    python benchmarks/scoring.py --questions 256 --rounds 2         # quickly

Five comparisons, each with its rivals in turns and medians of the rounds:
- whole commands, from start to end: `selfdev score` and `lm_eval` on the same questions;
- answering in one process: the engine with and without drafts, `generate` of transformers in static batches;
- tokens per second without drafts, stops or ends: the engine and a loop in bare torch (plain_loop.py), which
  have to write the same texts;
- questions behind the same five worked examples, which are read once, or with every question;
- attempts, merged and scored, by two worker processes and by one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from attempts import attempts_per_minute
from common import machine, medians, save, take_turns, watched
from merge_and_score import LAB, LONGEST, answering
from peers import lm_eval, version, write_task
from plain_loop import PlainLlama

from selfdev.api import model_path
from selfdev.engine import engine as module
from selfdev.engine.batches import Batch
from selfdev.engine.engine import Engine
from selfdev.tasks.tasks import Question, load_task
from selfdev.workers.heap import keep_freed_memory

OUT = Path(__file__).parent / "scoring.json"
PARTS = ("harness", "answering", "tokens", "examples", "workers")
# Ours divided by the rival's.
GOALS = {"harness": 10.0, "answering": 1.5, "tokens": 1.0, "examples": 1.0, "workers": 1.8}
TOKENS = 40


def harness(seed: Path, questions: Sequence[Question], rounds: int) -> dict[str, Any]:
    """Whole commands on the same test questions."""
    with tempfile.TemporaryDirectory(prefix="selfdev-bench-") as folder:
        write_task(Path(folder), questions)
        words = [sys.executable, "-m", "selfdev", "score", str(seed), "--task", "lab", "--split", "test"]
        seconds = take_turns(
            {
                "selfdev score": lambda: watched([*words, "--limit", str(len(questions)), "--json"]),
                "lm_eval": lambda: lm_eval(seed, Path(folder)),
            },
            rounds,
            warm=False,
        )
    rates = {name: [len(questions) / s for s in runs] for name, runs in seconds.items()}
    return compared(rates, "selfdev score", "lm_eval", "harness", "questions per second, whole commands")


def compared(rates: dict[str, list[float]], ours: str, theirs: str, part: str, unit: str) -> dict[str, Any]:
    """Medians and their ratio beside its goal."""
    middle = medians(rates)
    return {
        "unit": unit,
        "ours": ours,
        "theirs": theirs,
        "median": {name: round(value, 2) for name, value in middle.items()},
        "ratio": round(middle[ours] / middle[theirs], 2),
        "goal": GOALS[part],
        "runs": {name: [round(value, 2) for value in values] for name, values in rates.items()},
    }


def in_process(seed: Path, questions: Sequence[Question], rounds: int) -> dict[str, Any]:
    """Engine and `generate` on the same questions in batches of one size."""
    found = answering(seed, questions, LAB.batch, rounds)
    unit = "questions per second in one process"
    # Without drafts, as on a CPU questions are asked.
    told = compared(found["runs"], "engine without drafts", "transformers generate", "answering", unit)
    return told | {"replies equal to generate's": found["replies equal to generate's"]}


def tokens(seed: Path, questions: Sequence[Question], rounds: int) -> dict[str, Any]:
    """Engine and bare torch, each row to its last token."""
    engine = Engine(seed)
    engine.ends = frozenset()
    batches = engine.prepare([q.prompt for q in questions], [None] * len(questions), LAB.batch)
    weights = {name: value.detach() for name, value in engine.model.named_parameters()}
    plain = PlainLlama(weights, engine.model.config)
    replies = engine.answer(batches, TOKENS, rows=LAB.batch)
    written = [plain.generate(batch.ids, batch.mask, TOKENS) for batch in batches]
    same = [
        engine.tokenizer.decode(row, skip_special_tokens=True) == replies[place]
        for batch, rows in zip(batches, written, strict=True)
        for place, row in zip(batch.places, rows, strict=True)
    ]
    seconds = take_turns(
        {
            "engine": lambda: engine.answer(batches, TOKENS, rows=LAB.batch),
            "bare torch": lambda: [plain.generate(b.ids, b.mask, TOKENS) for b in batches],
        },
        rounds,
    )
    rates = {name: [len(questions) * TOKENS / s for s in runs] for name, runs in seconds.items()}
    told = compared(rates, "engine", "bare torch", "tokens", "tokens per second")
    return told | {"same text": statistics.fmean(same)}


def examples(seed: Path, questions: Sequence[Question], rounds: int) -> dict[str, Any]:
    """The engine on questions with worked examples before them."""
    shown = "".join(f"{q.prompt} {q.solution}\n" for q in load_task("lab").dev[:5])
    prompts = [shown + question.prompt for question in questions]
    engine = Engine(seed)
    drafts = [question.solution for question in questions]
    once = engine.prepare(prompts, drafts, LAB.batch // 4)
    before, module.SHARED = module.SHARED, 10**6
    each = engine.prepare(prompts, drafts, LAB.batch // 4)
    module.SHARED = before
    replies = [engine.answer(batches, LONGEST, rows=LAB.batch) for batches in (once, each)]

    def ask(batches: Sequence[Batch]) -> None:
        engine.swap({})  # as with a new model
        engine.answer(batches, LONGEST, rows=LAB.batch)

    seconds = take_turns({"read once": lambda: ask(once), "read with each": lambda: ask(each)}, rounds)
    rates = {name: [len(questions) / s for s in runs] for name, runs in seconds.items()}
    told = compared(rates, "read once", "read with each", "examples", "questions behind examples per second")
    same = statistics.fmean(a == b for a, b in zip(*replies, strict=True))
    return told | {"example tokens": len(once[0].prefix), "same text": same}


def workers(questions: int, rounds: int) -> dict[str, Any]:
    """Attempts of two worker processes and of one."""
    rates: dict[str, list[float]] = {"one worker": [], "two workers": []}
    for turn in range(rounds):
        for count, name in list(enumerate(rates, 1))[:: -1 if turn % 2 else 1]:
            rates[name].append(attempts_per_minute(questions, workers=count))
    return compared(rates, "two workers", "one worker", "workers", "attempts per minute")


def main() -> None:
    """Measure, print, write benchmarks/scoring.json."""
    parser = argparse.ArgumentParser(description="Speed of scoring beside its peers, on the lab.")
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", action="append", choices=PARTS, default=[])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()  # as in a worker; all rivals of this process gain by it
    seed = model_path("lab:a/seed")
    asked = load_task("lab").test[: given.questions]
    few = asked[: LAB.batch]
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "harness": lambda: harness(seed, asked, given.rounds),
        "answering": lambda: in_process(seed, few, given.rounds),
        "tokens": lambda: tokens(seed, few, given.rounds),
        "examples": lambda: examples(seed, few, given.rounds),
        "workers": lambda: workers(min(200, given.questions), given.rounds),
    }
    peer = {} if "harness" in given.without else version("lm_eval")
    results: dict[str, Any] = {"machine": machine() | peer, "questions": len(asked)}
    for part, make in makers.items():
        if part not in given.without:
            results[part] = make()
            print(
                f"{part}: {results[part]['ratio']} (goal {GOALS[part]}), {results[part]['median']}",
                flush=True,
            )
    save(given.out, results)


if __name__ == "__main__":
    main()
