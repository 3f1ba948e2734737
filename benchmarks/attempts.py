"""Attempts per minute: a program is run, isolated, and its model scored; beside what a user would write.

    python benchmarks/attempts.py                 # the lab, 200 questions; growth up to 20 M parameters
    python benchmarks/attempts.py --sizes 1 5 20 100 500 --rounds 3

The naive pipeline executes the program in Python, saves the checkpoint and starts lm-evaluation-harness on
it. Growth: seconds per attempt against the number of questions, the size of models with random weights, and
the number of attempts in the archive, with the exponent of a power law fitted to the larger half, and as a
plot in attempts.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from big_archive import per_attempt
from common import machine, save
from peers import lm_eval, version, write_task
from safetensors.torch import load_file, save_file

from selfdev.api import model_path
from selfdev.config.config import load_config
from selfdev.config.settings import Config
from selfdev.library import load_program
from selfdev.run import staffed
from selfdev.tasks.tasks import load_task

OUT = Path(__file__).parent / "attempts.json"
CONFIG = Path(__file__).parents[1] / "configs" / "lab.yaml"
QUESTIONS = 200
GOAL = 20  # times the naive pipeline
COUNTS = (50, 100, 200, 400, 800, 1600)  # questions
SIZES = {1: (128, 4), 5: (256, 6), 20: (512, 6), 100: (1024, 8), 500: (2048, 10)}  # M: hidden, layers
ARCHIVES = (100, 300, 1000, 3000, 10_000)  # attempts
FEW = 20  # questions of the models by size


def config_of(questions: int, workers: int, models: Sequence[Path] = ()) -> Config:
    """The lab's config with so many dev questions, all of them asked."""
    changes = [f"task.dev={questions}", f"task.finalist_dev={questions}", "task.first_block=0"]
    changes += [f"workers={workers}"]
    changes += ["sandbox.seconds=600", "sandbox.memory_gb=12"]
    config = load_config(CONFIG, changes)
    if not models:
        return config
    experts = {f"e{number}": str(path) for number, path in enumerate(models[1:])}
    named = config.models.model_copy(update={"seed": str(models[0]), "experts": experts})
    return config.model_copy(update={"models": named})


def attempts_per_minute(
    questions: int, workers: int = 2, models: Sequence[Path] = (), attempts: int = 12
) -> float:
    """Task arithmetic with other weights each time, by living workers, after one attempt of each."""
    codes = [load_program("task_arithmetic", {"WEIGHT": 0.1 + 0.01 * i}).code for i in range(attempts)]
    with staffed(config_of(questions, workers, models)) as (_, staff):
        for _ in range(2):  # questions are tokenised by each worker with its first attempt
            list(staff.try_programs([(codes[0], 0, "dev")] * workers))
        begin = time.perf_counter()
        tried = [result for _, result in staff.try_programs([(code, 0, "dev") for code in codes])]
        seconds = time.perf_counter() - begin
    if any(one.score is None or one.score.n != questions for one in tried):
        raise RuntimeError(f"an attempt has no full score: {[one.outcome for one in tried]}")
    return 60 * attempts / seconds


def naive(questions: int) -> float:
    """Attempts per minute of a script: exec, save, lm_eval. The experts are in its memory already."""
    config = config_of(questions, 1)
    seed = model_path(config.models.seed)
    models = {"seed": load_file(seed / "model.safetensors")}
    for name, given in config.models.experts.items():
        models[name] = load_file(model_path(given) / "model.safetensors")
    code = load_program("task_arithmetic").code
    with tempfile.TemporaryDirectory(prefix="selfdev-bench-") as folder:
        write_task(Path(folder), load_task("lab").dev[:questions])
        begin = time.perf_counter()
        names: dict[str, Any] = {}
        exec(code, names)  # a file of this package, not a model's text
        merged = names["merge_models"](models, torch.device("cpu"))
        model = shutil.copytree(seed, Path(folder) / "model")
        save_file({name: value.bfloat16() for name, value in merged.items()}, model / "model.safetensors")
        lm_eval(model, Path(folder))
        return 60 / (time.perf_counter() - begin)


def beside_naive(rounds: int) -> dict[str, Any]:
    """Ours and the naive pipeline in turns."""
    rivals: dict[str, Callable[[int], float]] = {"selfdev": attempts_per_minute, "naive": naive}
    runs: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds):
        for name in list(rivals)[:: -1 if turn % 2 else 1]:
            runs[name].append(rivals[name](QUESTIONS))
    middle = {name: statistics.median(values) for name, values in runs.items()}
    return {
        "unit": "attempts per minute", "questions": QUESTIONS, "ours": "selfdev", "theirs": "naive",
        "median": {name: round(value, 1) for name, value in middle.items()},
        "ratio": round(middle["selfdev"] / middle["naive"], 1), "goal": GOAL,
        "runs": {name: [round(value, 2) for value in values] for name, values in runs.items()},
    }  # fmt: skip


def random_models(folder: Path, millions: int) -> list[Path]:
    """A seed and two experts of about this size, the lab's architecture and tokenizer, random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    lab = model_path("lab:a/seed")
    hidden, layers = SIZES[millions]
    config = AutoConfig.from_pretrained(lab)
    config.update({
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": hidden * 11 // 4,
        "num_attention_heads": hidden // 32, "num_key_value_heads": hidden // 32,
    })  # fmt: skip
    paths = []
    for number in range(3):
        torch.manual_seed(number)
        path = shutil.copytree(lab, folder / str(number), ignore=shutil.ignore_patterns("*.safetensors"))
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
        paths.append(path)
    return paths


def by_questions(counts: Sequence[int]) -> dict[int, float]:
    """Seconds per attempt on the lab."""
    return {count: 60 / attempts_per_minute(count) for count in counts}


def by_size(millions: Sequence[int]) -> dict[int, float]:
    """Seconds per attempt by millions of parameters, few questions."""
    found = {}
    for size in millions:
        with tempfile.TemporaryDirectory(prefix="selfdev-bench-") as folder:
            models = random_models(Path(folder), size)
            found[size] = 60 / attempts_per_minute(FEW, models=models, attempts=4)
    return found


def exponent(seconds: Mapping[int, float]) -> float:
    """Slope of log seconds over log size, by least squares on the larger half, past fixed costs."""
    points = [(math.log(x), math.log(y)) for x, y in sorted(seconds.items())]
    points = points[(len(points) - 1) // 2 :]
    slope, _ = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return slope


def plot(growth: Mapping[str, Mapping[str, Any]]) -> str:
    """Each growth as a panel with logarithmic axes, as SVG."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{360 * len(growth)}" height="300"']
    parts[0] += ' font-family="sans-serif" font-size="12">'
    for number, (name, found) in enumerate(growth.items()):
        xs = [math.log10(float(x)) for x in found["seconds"]]
        ys = [math.log10(y) for y in found["seconds"].values()]
        left, spread = 360 * number + 60, (max(xs) - min(xs)) or 1.0
        low, tall = min(ys), (max(ys) - min(ys)) or 1.0
        places = [
            (left + 270 * (x - min(xs)) / spread, 240 - 190 * (y - low) / tall)
            for x, y in zip(xs, ys, strict=True)
        ]
        line = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="#36c" stroke-width="2"/>')
        for (x, y), (size, seconds) in zip(places, found["seconds"].items(), strict=True):
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="#36c"/>')
            parts.append(f'<text x="{x:.0f}" y="{y - 8:.0f}" text-anchor="middle">{seconds:.2g} s</text>')
            parts.append(f'<text x="{x:.0f}" y="262" text-anchor="middle">{size}</text>')
        parts.append(f'<text x="{left}" y="20">seconds per attempt, exponent {found["exponent"]:.2f}</text>')
        parts.append(f'<text x="{left + 135}" y="284" text-anchor="middle">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def grown(seconds: Mapping[int, float]) -> dict[str, Any]:
    """A growth as it is kept."""
    told = {str(size): round(value, 4) for size, value in seconds.items()}
    return {"seconds": told, "exponent": round(exponent(seconds), 3)}


def main() -> None:
    """Measure, print, write benchmarks/attempts.json and attempts.svg."""
    parser = argparse.ArgumentParser(description="Attempts per minute, and how they grow.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=[1, 5, 20, 100])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    where = machine() | version("lm_eval")
    results: dict[str, Any] = {"machine": where, "attempts": beside_naive(given.rounds)}
    print(json.dumps(results["attempts"]["median"]), f"{results['attempts']['ratio']} times (goal {GOAL})")
    growth = {
        "questions": grown(by_questions(given.counts)),
        f"million parameters ({FEW} questions)": grown(by_size(given.sizes)),
        "attempts in the archive (loop and archive alone)": grown({n: per_attempt(n) for n in ARCHIVES}),
    }
    for name, found in growth.items():
        print(f"by {name}: exponent {found['exponent']}, {found['seconds']}")
    given.out.with_suffix(".svg").write_text(plot(growth), encoding="utf-8")
    save(given.out, results | {"growth": growth})


if __name__ == "__main__":
    main()
