"""A short measurement of this machine with one and two layers of the seed's architecture, without weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfdev.config.config import Config
from selfdev.doctor.estimate import Rates, Size

TOKENS = 16  # of a prompt
LIGHT = 5e9  # floating-point operations of one layer's step up to which a whole batch is timed
ROWS = 8  # and the rows of a batch beyond, from which on time grows with rows
PASSES = 4  # of a typical program over the values of every model, in float32


def measure(config: Config, seed: Path, size: Size, cores: int) -> Rates:
    """Seconds of this machine's CPU for the steps of a run; some seconds, little memory."""
    import torch

    torch.set_num_threads(config.threads)
    deep = [_timed(seed, layers, size, config) for layers in (1, 2)]
    read, answer, write = (
        first + (size.layers - 1) * max(0.0, two - first) for first, two in zip(*deep, strict=True)
    )
    side_by_side = max(1, min(config.workers, cores // config.threads))
    return Rates(
        where="this machine, measured",
        read=read / TOKENS,
        answer=answer,
        write=write,
        merge=0.02 + PASSES * (len(config.models.experts) + 1) * size.scope * 4 / _bytes_per_second(),
        train=5 * read / TOKENS,
        workers=side_by_side,
    )


def _timed(seed: Path, layers: int, size: Size, config: Config) -> tuple[float, float, float]:
    """Seconds of a prompt, of one step of a batch of questions, and of one of programs."""
    import torch

    model = _shallow(seed, layers)
    per_row = 2 * (size.parameters / size.layers)

    def step(batch: int) -> float:
        rows = batch if per_row * batch < LIGHT else min(batch, ROWS)
        ids = torch.ones((rows, 1), dtype=torch.int64)
        return _best(lambda: model(ids, logits_to_keep=1)) * batch / rows

    prompt = torch.ones((1, TOKENS), dtype=torch.int64)
    with torch.inference_mode():
        return (
            _best(lambda: model(prompt, logits_to_keep=1)),
            step(config.task.batch),
            step(config.factory.batch),
        )


def _shallow(seed: Path, layers: int) -> Any:
    """The seed's architecture with few layers and constant weights in the stored dtype."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(seed, local_files_only=True)
    config.num_hidden_layers = layers
    kinds = config.to_dict().get("layer_types")
    if kinds:
        config.layer_types = kinds[:layers]
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=config.dtype or torch.float32)
    model = model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.fill_(0.01)
    return model


def _best(work: Callable[[], object]) -> float:
    """Seconds of the second call, or of the first where that alone took long."""
    begin = time.perf_counter()
    work()
    first = time.perf_counter() - begin
    if first > 1.0:
        return first
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _bytes_per_second() -> float:
    import torch

    a, b = torch.zeros(4_000_000), torch.ones(4_000_000)
    return 2 * a.nbytes / _best(lambda: torch.lerp(a, b, 0.5))
