"""The stages of a run on a GPU, with models of random weights, beside what the machine could do.

    python benchmarks/gpu.py --sizes 1B 7B          # needs 16 GB of RAM per 1 B parameters for 4 models
    python benchmarks/gpu.py --sizes tiny --device cpu     # does it work at all?

Limits are measured in the same run: bytes that are copied to and on the device per second. `merge` is the
linear merge of a seed and three experts in the sandbox, MLP layers alone, and its way onto the device;
`scoring` answers 64 prompts of 900 tokens; `writing` samples 64 programs behind as many; `training` takes
steps of DPO with LoRA of rank 256, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "8")

import torch
from checkpoints import write_llamas
from common import GIB, machine, save

from selfdev.api import model_path
from selfdev.checkpoints import Checkpoint, open_checkpoint, tensor, views
from selfdev.config.settings import Dpo
from selfdev.engine.batches import open_tokenizer
from selfdev.engine.engine import Engine
from selfdev.factory import dpo
from selfdev.factory.apart import apart
from selfdev.library import load_program
from selfdev.records import Lessons, TextPair
from selfdev.sandbox import Limits, Sandbox

OUT = Path(__file__).parent / "gpu.json"
LAB = model_path("lab:a/seed")  # its tokenizer and architecture
SIZES = {"tiny": (128, 2, 352), "1B": (2048, 22, 5632), "7B": (4096, 32, 14_336)}  # hidden, layers, MLP
STAGES = ("training", "writing", "scoring", "merging")


@dataclass(frozen=True, slots=True)
class Work:
    """How much of each stage is done."""

    rows: int
    prompt: int
    answer: int
    program: int
    pairs: int
    rounds: int


FULL = Work(rows=64, prompt=900, answer=128, program=256, pairs=24, rounds=3)
SMALL = Work(rows=4, prompt=40, answer=8, program=8, pairs=8, rounds=1)


def seconds_of(work: Callable[[], Any], device: str, rounds: int = 3, warm: int = 1) -> float:
    """Median of some rounds."""
    spent = []
    for turn in range(rounds + warm):
        _wait(device)
        begin = time.perf_counter()
        work()
        _wait(device)
        if turn >= warm:
            spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def bandwidth(device: str, mib: int) -> dict[str, float]:
    """Bytes per second to and on the device (there: read and written), operations per second in bfloat16."""
    here = torch.ones(mib * 2**20, dtype=torch.uint8)
    there = here.to(device)
    other = torch.empty_like(there)
    size = float(here.numel())
    found = {
        "GB/s from mapped memory": size / seconds_of(lambda: there.copy_(here), device) / 1e9,
        "GB/s on the device": 2 * size / seconds_of(lambda: other.copy_(there), device, 10) / 1e9,
    }
    if device == "cuda":
        pinned = here.pin_memory()
        found["GB/s from pinned memory"] = size / seconds_of(lambda: there.copy_(pinned), device) / 1e9
    n = 8192 if device == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    found["TFLOP/s"] = 2 * n**3 / seconds_of(lambda: a @ b, device, 10, warm=3) / 1e12
    return {name: round(value, 1) for name, value in found.items()}


def merging(models: Sequence[Path], engine: Engine, rates: Mapping[str, float]) -> dict[str, float]:
    """Seconds of a linear merge in the sandbox, of the same in bare torch, and of the way to the device."""
    seed = open_checkpoint(models[0], "seed")
    experts = [open_checkpoint(path, f"e{number}", seed) for number, path in enumerate(models[1:])]
    shown = views(seed, experts, "mlp")
    program = load_program("linear")
    device = engine.device.type
    with Sandbox({"models": shown}, Limits(600, 64), accept_weaker=True) as sandbox:
        run = sandbox.run(program, 0)
        if run.tensors is None:
            raise RuntimeError(f"linear ended in {run.outcome}")
        tensors = run.tensors
        scope = sum(value.nbytes for value in tensors.values())
        engine.swap(tensors)
        swap = seconds_of(lambda: engine.swap(tensors), device)
        merged = seconds_of(lambda: sandbox.run(program, 0), device)
    bare = seconds_of(lambda: _bare(seed, experts, list(tensors)), device)
    limit = scope / rates["GB/s from mapped memory"] / 1e9
    return {
        "GB in scope": scope / 1e9, "merge": merged, "bare torch": bare, "merge / bare": merged / bare,
        "swap": swap, "swap / limit": swap / limit,
    }  # fmt: skip


_area: dict[str, torch.Tensor] = {}


def _bare(seed: Checkpoint, experts: Sequence[Checkpoint], names: Sequence[str]) -> None:
    share = 1 / (1 + len(experts))
    for name in names:
        first = tensor(seed.slots[name])
        into = _area.setdefault(name, torch.empty_like(first))
        torch.mul(first, share, out=into)
        for expert in experts:
            into.add_(tensor(expert.slots[name]), alpha=share)


def scoring(engine: Engine, work: Work, rates: Mapping[str, float]) -> dict[str, float]:
    """Tokens per second of answers, with graphs of a step and without, of `generate` on the same batch, and
    of moving weights and cache."""
    device = engine.device.type
    text = _text(engine.tokenizer, work.prompt)
    prompts = [f"{row} {text}" for row in range(work.rows)]  # with nothing in common that need be read once
    engine.ends = frozenset()
    batches = engine.prepare(prompts, [None] * work.rows, work.rows)
    length = batches[0].ids.shape[1]
    first = seconds_of(lambda: engine.answer(batches, 1, rows=work.rows), device, work.rounds)
    begin = time.perf_counter()
    engine.answer(batches, work.answer, rows=work.rows)
    new = time.perf_counter() - begin
    ours = seconds_of(lambda: engine.answer(batches, work.answer, rows=work.rows), device, work.rounds, 0)
    steps, engine.steps = engine.steps, None
    [whole] = engine.prepare(prompts, [None] * work.rows, work.rows)  # read in one pass
    plain = seconds_of(lambda: engine.answer([whole], work.answer, rows=work.rows), device, work.rounds)
    engine.steps = steps

    def generate() -> None:
        told = {"attention_mask": whole.mask, "max_new_tokens": work.answer, "do_sample": False}
        engine.model.generate(whole.ids, min_new_tokens=work.answer, pad_token_id=0, **told)

    theirs = seconds_of(generate, device, work.rounds)
    tokens = work.rows * work.answer
    return {
        "prompt tokens": length, "tokens/s": tokens / ours, "generate tokens/s": tokens / theirs,
        "times generate": theirs / ours, "reading tokens/s": work.rows * length / first,
        "step ms": 1e3 * (ours - first) / (work.answer - 1), "first time s": new - ours,
        "step ms without graphs": 1e3 * (plain - first) / (work.answer - 1),
        "step limit ms": 1e3 * _moved(engine, work.rows, length + work.answer / 2, rates),
    }  # fmt: skip


def _text(tokenizer: Any, tokens: int) -> str:
    """Words of about so many tokens."""
    known = "1 plus 2 is "
    return known * max(1, tokens // len(tokenizer(known, add_special_tokens=False).input_ids))


def _moved(engine: Engine, rows: int, length: float, rates: Mapping[str, float]) -> float:
    """Seconds of reading weights and cache once."""
    config, width = engine.model.config, next(engine.model.parameters()).element_size()
    weights = sum(values.nbytes for values in engine.model.parameters())
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * width
    return float((weights + rows * length * per_token) / rates["GB/s on the device"] / 1e9)


def writing(model: Path, device: str, work: Work, rates: Mapping[str, float]) -> dict[str, float]:
    """Programs: tokens per second, with graphs of a step and without, and of moving weights and cache; GiB at
    most."""
    engine = Engine(model, device)
    engine.ends = frozenset()
    prompt = _text(engine.tokenizer, work.prompt)
    uniforms = torch.rand(work.rows, work.program, generator=torch.Generator().manual_seed(0))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    spent = seconds_of(lambda: engine.sample(prompt, 1.0, uniforms), device, rounds=1)
    peak = torch.cuda.max_memory_allocated() / GIB if device == "cuda" else 0.0
    engine.steps = None
    plain = seconds_of(lambda: engine.sample(prompt, 1.0, uniforms), device, rounds=1)
    length = len(engine.tokenizer(prompt).input_ids)
    limit = work.program * _moved(engine, work.rows, length + work.program / 2, rates)
    tokens = work.rows * work.program
    return {
        "prompt tokens": length, "tokens/s": tokens / spent, "without graphs": tokens / plain,
        "limit tokens/s": tokens / limit, "peak GiB": peak,
    }  # fmt: skip


def training(model: Path, device: str, work: Work, accelerate: Path | None) -> dict[str, float]:
    """Steps of DPO with LoRA, pairs of prompt and program as long as in `work`."""
    settings = Dpo(batch=8, micro_batch=2, lora_rank=256, kl_programs=0)
    tokenizer = open_tokenizer(model)
    prompt, reply = _text(tokenizer, work.prompt), _text(tokenizer, work.program)
    pairs = tuple(TextPair(f"{reply}{i}", f"{reply}{i + 1}") for i in range(work.pairs))
    ends: list[float] = []
    with tempfile.TemporaryDirectory(dir=model.parent) as folder, watched_memory(device) as peak:
        begin = time.perf_counter()
        told = (model, Path(folder) / "next", prompt, Lessons(pairs), settings, 0, device)
        steps = apart(dpo.train, told, lambda *_: ends.append(time.perf_counter()), accelerate)
        whole = time.perf_counter() - begin
    return {
        "s/step": (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0,
        "whole s": whole, "peak GiB": peak[0] / GIB, "first loss": steps[0].loss,
    }  # fmt: skip


@contextmanager
def watched_memory(device: str) -> Iterator[list[int]]:
    """The most bytes beyond those in use now that all processes together have on the first GPU."""
    peak, over = [0], threading.Event()

    def used() -> int:
        free, total = torch.cuda.mem_get_info()
        return int(total - free)

    def look(before: int) -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], used() - before)

    watcher = threading.Thread(target=look, args=(used(),)) if device == "cuda" else None
    if watcher:
        watcher.start()
    try:
        yield peak
    finally:
        over.set()
        if watcher:
            watcher.join()


def measure(
    size: str, work: Work, stages: Sequence[str], device: str, rates: Mapping[str, float],
    accelerate: Path | None,
) -> Iterator[Any]:  # fmt: skip
    """Each stage of one size and its figures, as they are found."""
    with tempfile.TemporaryDirectory(prefix="selfdev-bench-", dir="/dev/shm") as folder:
        models = write_llamas(Path(folder), SIZES[size], 4 if "merging" in stages else 1, LAB, device)
        if device == "cuda":
            torch.cuda.empty_cache()
        if "training" in stages:
            yield "training", training(models[0], device, work, None)
        if "training" in stages and accelerate is not None:
            yield "training by accelerate", training(models[0], device, work, accelerate)
        if "writing" in stages:
            yield "writing", writing(models[0], device, work, rates)
        if "scoring" in stages:
            yield "scoring", scoring(Engine(models[0], device), work, rates)
        if "merging" in stages:
            yield "merging", merging(models, Engine(models[0], device), rates)


def main() -> None:
    """Measure, print, write benchmarks/gpu.json."""
    parser = argparse.ArgumentParser(description="The stages of a run on a GPU.")
    parser.add_argument("--sizes", choices=SIZES, nargs="+", default=["1B"])
    parser.add_argument("--stages", choices=STAGES, nargs="+", default=STAGES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--accelerate", type=Path, help="a config of accelerate to train by as well")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    begin = time.perf_counter()
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    rates = bandwidth(given.device, 1024 if given.device == "cuda" else 64)
    print(f"{time.perf_counter() - begin:.0f} s", name, rates, flush=True)
    results: dict[str, Any] = {"machine": machine("trl") | {"device": name}, "limits": rates, "sizes": {}}
    for size in given.sizes:
        found = results["sizes"].setdefault(size, {})
        work = replace(SMALL if size == "tiny" else FULL, rounds=given.rounds)
        for stage, told in measure(size, work, given.stages, given.device, rates, given.accelerate):
            found[stage] = {name: round(value, 3) for name, value in told.items()}
            print(f"{time.perf_counter() - begin:.0f} s", size, stage, found[stage], flush=True)
            save(given.out, results)


if __name__ == "__main__":
    main()
