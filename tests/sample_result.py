"""A plausible result of a run, made up, for the tests of the report and of the terminal table."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace
from typing import Any

from selfdev import stats
from selfdev.results import DpoStep, IterationStats, Kind, RunResult, TestRow

PROGRAM = '''import torch


def merge_models(models, device):
    """Add every expert's task vector, trimmed to its larger half and weighted by its norm."""
    seed = models["seed"]
    experts = [name for name in models if name != "seed"]
    merged = {}
    for name, base in seed.items():
        base = base.to(device).float()
        total = torch.zeros_like(base)
        for expert in experts:
            delta = models[expert][name].to(device).float() - base
            cut = delta.abs().flatten().median()  # half of the entries are below it
            total += torch.where(delta.abs() > cut, delta, 0.0) / (1 + delta.norm())
        merged[name] = (base + 0.62 * total).to(seed[name].dtype)
    return merged
'''


def turn(iteration: int, mean: float, merged: int, random_seed: int = 0) -> IterationStats:
    """An iteration with 256 programs whose dev scores lie around `mean`."""
    rng = random.Random(random_seed + iteration)
    count = merged - 4
    scores = tuple(round(min(max(rng.gauss(mean, 0.07), 0.0), 1.0) * 320) / 320 for _ in range(count))
    steps = tuple(
        DpoStep(s, 0.7 * math.exp(-s / 40) + 0.05 * rng.random(), s / 60 + 0.1 * rng.random(), 0.5 + s / 80)
        for s in range(1, 33)
    )
    failed = 256 - merged
    states = {
        "SCORED": count,
        "MERGED": 4,
        "BAD_WEIGHTS": failed // 4,
        "CRASHED": failed // 3,
        "TIMED_OUT": 1,
    }
    states["INVALID"] = 256 - sum(states.values())
    ordered = sorted(scores)
    return IterationStats(
        iteration=iteration,
        temperature=1.2 / (1 + 0.2 * (iteration - 1)),
        written=256,
        states=states,
        unique=count // 2,
        dev_mean=statistics.mean(scores),
        dev_median=statistics.median(scores),
        dev_p90=ordered[int(0.9 * len(ordered))],
        dev_best=ordered[-1],
        dev_n=320,
        dev_common=320,
        seconds=62.0 + iteration,
        pairs=256,
        dpo=steps,
        failures={
            "SyntaxError: invalid syntax": failed // 5,
            "result misses model.layers.0.mlp.up_proj.weight": 9,
        },
        dev_scores=scores,
    )


def row(name: str, kind: Kind, accuracy: float, n: int = 5000, **more: Any) -> TestRow:
    """A test row with its Wilson interval; its dev score is two points higher."""
    correct = round(accuracy * n)
    low, high = stats.wilson(correct, n)
    values: dict[str, Any] = {
        "flexible_accuracy": min(accuracy + 0.004, 1.0),
        "dev_n": 2000,
        "dev_accuracy": min(accuracy + 0.02, 1.0),
        "p_vs_best_baseline": None,
        "p_vs_seed": None,
    }
    return TestRow(name, kind, n, correct, correct / n, low, high, **{**values, **more})


def result(**changes: Any) -> RunResult:
    """Three iterations, a program that beats the best baseline by four points."""
    test = (
        row("seed", "seed", 0.483, p_vs_best_baseline=1e-9),
        row("sum", "expert", 0.241, p_vs_best_baseline=1e-9, p_vs_seed=1e-9),
        row("difference", "expert", 0.198, p_vs_best_baseline=1e-9, p_vs_seed=1e-9),
        row("task_arithmetic(WEIGHT=0.3)", "baseline", 0.552, p_vs_seed=1e-8),
        row("ties(DENSITY=0.5, WEIGHT=1.0)", "baseline", 0.531, p_vs_best_baseline=0.004, p_vs_seed=1e-5),
        row("model_stock", "baseline", 0.497, p_vs_best_baseline=1e-5, p_vs_seed=0.02),
        row("program 3.117", "discovered", 0.594, p_vs_best_baseline=2e-6, p_vs_seed=1e-12),
        row("program 2.041", "discovered", 0.588, p_vs_best_baseline=8e-5, p_vs_seed=1e-12),
        row(
            "program 1.200", "discovered", 0.561, p_vs_best_baseline=0.21, p_vs_seed=1e-9, dev_accuracy=0.601
        ),
    )
    made = RunResult(
        name="lab",
        config={
            "name": "lab",
            "seed": 0,
            "models": {
                "seed": "lab:a/seed",
                "experts": {"sum": "lab:a/sum", "difference": "lab:a/difference"},
            },
            "task": {"name": "lab", "dev": 320},
        },
        environment={"python": "3.11.7", "torch": "2.13.0", "cpu": 2},
        iterations=(turn(1, 0.40, 168), turn(2, 0.45, 196), turn(3, 0.49, 221)),
        test=test,
        seconds=331.0,
        stage_seconds={
            "write": 71.2,
            "run": 43.0,
            "score": 139.5,
            "train": 48.1,
            "finalists": 21.0,
            "test": 8.2,
        },
        best_name="program 3.117",
        best_program=PROGRAM,
        best_nearest="task_arithmetic",
        best_distance=0.137,
        notes=("The dev score of the chosen program was 2.0 points higher than its test score.",),
    )
    return replace(made, **changes)


def nothing_scored() -> RunResult:
    """One iteration in which every program failed."""
    empty = replace(
        turn(1, 0.4, 100),
        states={"INVALID": 250, "CRASHED": 6},
        unique=0,
        dev_mean=None,
        dev_median=None,
        dev_p90=None,
        dev_best=None,
        dev_scores=(),
        pairs=0,
        dpo=(),
        failures={},
    )
    return result(
        iterations=(empty,),
        test=(),
        best_name="",
        best_program="",
        best_nearest=None,
        best_distance=None,
        notes=(),
    )
