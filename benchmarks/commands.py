"""Whole commands, from start to end: help, a merge, the lab's run; beside the help of mergekit and lm_eval.

    python benchmarks/commands.py                  # the run of configs/lab.yaml takes minutes
    python benchmarks/commands.py --without-run

The merge is of the lab's models, with nothing written: it reaches its first tensor before it ends.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import machine, medians, save, take_turns, watched
from peers import commands, version

OUT = Path(__file__).parent / "commands.json"
CONFIG = Path(__file__).parents[1] / "configs" / "lab.yaml"
RUN = "selfdev run configs/lab.yaml"
EXPERTS = ("times", "share")
MERGE = "selfdev merge linear, lab"
GOALS = {"selfdev --help": 0.25, MERGE: 2.5, RUN: 240.0}  # seconds


def ours(*words: str) -> list[str]:
    """Our command, as it is installed."""
    return [str(Path(sys.executable).with_name("selfdev")), *words]


def short(rounds: int) -> dict[str, list[float]]:
    """Seconds of the commands that end at once, in turns."""
    merge = ["merge", "linear", "--seed", "lab:a/seed", "--accept-weaker"]
    for name in EXPERTS:
        merge += ["--expert", f"{name}=lab:a/{name}"]
    asked: dict[str, Sequence[str | Path]] = {
        "selfdev --help": ours("--help"),
        MERGE: ours(*merge),
        "mergekit-yaml --help": [commands() / "mergekit-yaml", "--help"],
        "lm_eval --help": [commands() / "lm_eval", "--help"],
    }
    return take_turns({name: partial(watched, words) for name, words in asked.items()}, rounds)


def whole_run() -> float:
    """Seconds of the lab's run: three iterations, baselines, finalists, test, report."""
    with tempfile.TemporaryDirectory(prefix="selfdev-bench-") as folder:
        return watched(ours("run", str(CONFIG), "--out", f"{folder}/run", "--json")).seconds


def told(runs: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and goals."""
    found = {}
    for name, middle in medians(runs).items():
        seconds = [round(value, 2) for value in runs[name]]
        found[name] = {"seconds": round(middle, 2), "goal": GOALS.get(name), "runs": seconds}
    return found


def main() -> None:
    """Measure, print, write benchmarks/commands.json."""
    parser = argparse.ArgumentParser(description="Seconds of whole commands.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-run", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    where = machine() | version("mergekit") | version("lm_eval")
    runs = short(given.rounds)
    if not given.without_run:
        runs[RUN] = [whole_run()]
    found = told(runs)
    for name, one in found.items():
        goal = f" (goal {one['goal']} s)" if one["goal"] else ""
        print(f"{name}: {one['seconds']} s{goal}")
    save(given.out, {"machine": where, "commands": found})


if __name__ == "__main__":
    main()
