"""`selfdev merge` beside mergekit and beside the limit of the machine: checkpoints of random weights to disk.

    python benchmarks/merging.py                            # four models of 0.5 B parameters in bfloat16
    python benchmarks/merging.py --size small --rounds 3    # of 50 M
    python benchmarks/merging.py --method ties --rounds 1   # one method; the others keep their figures

Every command is timed from its start to its end, imports included, and watched with all its processes.
mergekit runs with the options that were fastest: no model card, no tokenizer, lazy loading, bfloat16 as in
its examples. The limit reads, adds up and writes the same bytes in bare torch (merge_limit.py). Rivals take
turns; medians count. Inputs are in the page cache. What was written before is synced to the disk before each
run; what a run writes is not waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from checkpoints import SIZES, write_models
from common import GIB, Ran, machine, medians, save, take_turns, watched
from merge_limit import combine
from peers import commands, version

from selfdev.checkpoints import open_checkpoint, tensor, views
from selfdev.library import load_program
from selfdev.sandbox import Limits, Sandbox

OUT = Path(__file__).parent / "merging.json"
EXPERTS = 3
TIMES = {  # mergekit's time divided by ours, at least
    "linear": 3, "task_arithmetic": 3, "model_stock": 3, "slerp": 3, "ties": 10, "dare_ties": 6
}  # fmt: skip
MEMORY = 0.5  # our peak memory divided by mergekit's, at most
LOOP = "loop"
IN_LOOP = 1.25  # our time of a linear merge in the loop divided by a bare one's, at most
OVER_LIMIT = 1.4  # our time of a linear merge divided by the limit's, at most
# What both are told; mergekit's names are those of its files.
PARAMETERS: dict[str, dict[str, Any]] = {
    "linear": {"weight": 0.25},
    "task_arithmetic": {"weight": 0.3},
    "ties": {"weight": 0.3, "density": 0.5, "normalize": True},
    "dare_ties": {"weight": 0.3, "density": 0.5},
    "slerp": {"t": 0.4},
    "model_stock": {},
}
RANDOM = {"dare_ties"}


def ours(method: str, models: Sequence[Path], out: Path) -> Ran:
    """`selfdev merge` of one method."""
    words: list[str | Path] = [sys.executable, "-m", "selfdev", "merge", method, "--seed", models[0]]
    for number, path in enumerate(models[1 : 2 if method == "slerp" else None]):
        words += ["--expert", f"e{number}={path}"]
    for name, value in PARAMETERS[method].items():
        words += ["--param", f"{name.upper()}={json.dumps(value)}"]
    ran = watched([*words, "--scope", "all", "--out", out, "--accept-weaker", "--json"])
    told = json.loads(ran.output)
    if told["state"] != "MERGED":
        raise RuntimeError(f"{method} ended in {told['state']}: {told['reason']}")
    return ran


def recipe(method: str, models: Sequence[Path]) -> dict[str, Any]:
    """The same merge as mergekit's config."""
    parameters = PARAMETERS[method]
    listed = list(models) if method == "linear" else list(models[1:])
    if method == "slerp":
        listed = list(models[:2])
    config: dict[str, Any] = {
        "merge_method": method,
        "dtype": "bfloat16",
        "models": [{"model": str(path)} for path in listed],
    }
    if method == "slerp":
        config["parameters"] = parameters
    else:
        per_model = {key: value for key, value in parameters.items() if key != "normalize"}
        for one in config["models"] if per_model else ():
            one["parameters"] = per_model
        if "normalize" in parameters:
            config["parameters"] = {"normalize": parameters["normalize"]}
    if method != "linear":
        config["base_model"] = str(models[0])
    return config


def mergekits(method: str, models: Sequence[Path], out: Path) -> Ran:
    """`mergekit-yaml` of one method."""
    config = out.with_suffix(".json")  # JSON is YAML
    config.write_text(json.dumps(recipe(method, models)))
    options = ("--no-write-model-card", "--no-copy-tokenizer", "--lazy-unpickle", "--quiet")
    return watched([commands() / "mergekit-yaml", config, out, *options], {"HF_HUB_OFFLINE": "1"})


def limit(models: Sequence[Path], out: Path) -> Ran:
    """The bare linear merge."""
    out.mkdir()
    script = Path(__file__).with_name("merge_limit.py")
    return watched([sys.executable, script, out / "model.safetensors", *models])


def in_loop(models: Sequence[Path], rounds: int) -> dict[str, Any]:
    """A linear merge as the loop does it, isolated and with nothing written, and bare in-place torch."""
    program = load_program("linear")
    seed = open_checkpoint(models[0], "seed")
    experts = [open_checkpoint(path, f"e{number}", seed) for number, path in enumerate(models[1:])]
    paths = [str(path) for path in models]
    into = combine(paths)
    with Sandbox({"models": views(seed, experts, "all")}, Limits(600, 12), accept_weaker=True) as sandbox:

        def ours() -> None:
            ended = sandbox.run(program, 0).outcome
            if ended.state != "MERGED":
                raise RuntimeError(f"linear ended in {ended.state}: {ended.reason}")

        # Three times as many rounds: a virtual machine's host may take seconds to give memory back.
        seconds = take_turns({"selfdev": ours, "bare": lambda: combine(paths, into)}, 3 * rounds)
    middle = medians(seconds)
    return {
        "seconds": _rounded(middle),
        "times the bare one": round(middle["selfdev"] / middle["bare"], 2),
        "fastest runs": round(min(seconds["selfdev"]) / min(seconds["bare"]), 2),
        "goal": IN_LOOP,
        "runs": {name: [round(value, 2) for value in runs] for name, runs in seconds.items()},
    }


def difference(one: Path, other: Path) -> float:
    """Largest absolute difference of two merged checkpoints."""
    found, expected = open_checkpoint(one, "selfdev"), open_checkpoint(other, "mergekit")
    pairs = ((tensor(found.slots[name]), tensor(slot)) for name, slot in expected.slots.items())
    return max(float((a.float() - b.float()).abs().max()) for a, b in pairs)


def measure(method: str, models: Sequence[Path], folder: Path, rounds: int) -> dict[str, Any]:
    """One method by all rivals."""
    runs: dict[str, list[Ran]] = {}

    def rival(name: str) -> None:
        out = folder / name
        shutil.rmtree(out, ignore_errors=True)
        os.sync()  # what others wrote before must not be written back while this one is timed
        if name == "limit":
            ran = limit(models, out)
        else:
            ran = (ours if name == "selfdev" else mergekits)(method, models, out)
        runs.setdefault(name, []).append(ran)

    names = ["selfdev", "mergekit", *(["limit"] if method == "linear" else [])]
    take_turns({name: partial(rival, name) for name in names}, rounds, warm=False)
    apart = None if method in RANDOM else difference(folder / "selfdev", folder / "mergekit")
    for name in names:
        shutil.rmtree(folder / name)
    return told(method, runs) | {"largest difference": apart}


def told(method: str, runs: Mapping[str, Sequence[Ran]]) -> dict[str, Any]:
    """Medians, ratios and goals of one method."""
    seconds = {name: statistics.median(ran.seconds for ran in all_) for name, all_ in runs.items()}
    memory = {name: max(ran.memory for ran in all_) / GIB for name, all_ in runs.items()}
    beyond = {name: max(ran.beyond_files for ran in all_) / GIB for name, all_ in runs.items()}
    found: dict[str, Any] = {
        "rounds": len(runs["selfdev"]),
        "seconds": _rounded(seconds),
        "peak GiB": _rounded(memory),
        "peak GiB beyond mapped files": _rounded(beyond),
        "times as fast as mergekit": round(seconds["mergekit"] / seconds["selfdev"], 2),
        "goal": TIMES[method],
        "memory of mergekit's": round(memory["selfdev"] / memory["mergekit"], 2),
        "memory goal": MEMORY,
        "runs": {name: [round(ran.seconds, 2) for ran in all_] for name, all_ in runs.items()},
    }
    if "limit" in runs:
        bare = statistics.median(float(ran.output) for ran in runs["limit"])
        found["times the limit"] = round(seconds["selfdev"] / seconds["limit"], 2)
        found["limit goal"] = OVER_LIMIT
        found["limit without its imports"] = round(bare, 2)
    return found


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def show(method: str, found: Mapping[str, Any]) -> None:
    """One line of text."""
    seconds, memory = found["seconds"], found["peak GiB"]
    line = f"{method:16}{seconds['selfdev']:8.1f} s  mergekit {seconds['mergekit']:8.1f} s"
    line += f"  {found['times as fast as mergekit']:5.1f}x (goal {found['goal']}x)"
    line += f"  {memory['selfdev']:.1f} of {memory['mergekit']:.1f} GiB (goal {MEMORY:g})"
    if "limit" in seconds:
        line += f"  {found['times the limit']:.2f} x the limit of {seconds['limit']:.1f} s"
    print(line, flush=True)


def main() -> None:
    """Make the models, merge them by turns, write benchmarks/merging.json."""
    parser = argparse.ArgumentParser(description="selfdev merge beside mergekit and the machine's limit.")
    parser.add_argument("--size", choices=SIZES, default="0.5B")
    parser.add_argument("--method", action="append", choices=(*TIMES, LOOP), help="by default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape = SIZES[given.size]
    about = {"size": given.size, "parameters": shape.parameters, "models": 1 + EXPERTS, "dtype": "bfloat16"}
    before = json.loads(given.out.read_text()) if given.out.exists() else {}
    methods = before.get("methods", {}) if before.get("size") == given.size else {}
    where = machine("safetensors") | version("mergekit")
    with tempfile.TemporaryDirectory(prefix="selfdev-bench-") as root:
        models = write_models(Path(root), shape, 1 + EXPERTS)
        asked = given.method or [*TIMES, LOOP]
        for method in (method for method in TIMES if method in asked):
            methods[method] = measure(method, models, Path(root), given.rounds)
            show(method, methods[method])
        loop = in_loop(models, given.rounds) if LOOP in asked else before.get("loop")
    if loop:
        print(f"in the loop: {loop['times the bare one']} x bare torch (goal {IN_LOOP})")
    save(given.out, about | {"machine": where, "methods": methods, "loop": loop})


if __name__ == "__main__":
    main()
