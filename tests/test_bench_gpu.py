"""The benchmark of the stages on a GPU, run on a CPU and a tiny model, and its limit by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gpu
import pytest
import torch

RATES = {"GB/s on the device": 2.0, "GB/s from mapped memory": 1.0}


def test_stages_are_measured_on_a_real_model() -> None:
    stages = ("writing", "scoring", "merging")
    found = dict(gpu.measure("tiny", gpu.SMALL, stages, "cpu", RATES, None))
    assert list(found) == list(stages)
    of_gpus = {"peak GiB", "first time s"}  # the latter beyond any other time, which is for graphs
    assert all(v > 0 for stage in found.values() for name, v in stage.items() if name not in of_gpus)
    hidden, layers, mlp = gpu.SIZES["tiny"]
    scope = layers * 3 * hidden * mlp * 2  # bytes of gate, up and down in 16 bits
    assert found["merging"]["GB in scope"] == scope / 1e9


def test_a_step_moves_the_weights_and_the_cache_once() -> None:
    model = SimpleNamespace(
        config=SimpleNamespace(num_hidden_layers=3, num_key_value_heads=2, head_dim=8),
        parameters=lambda: iter(
            [torch.zeros(100, dtype=torch.bfloat16), torch.zeros(28, dtype=torch.bfloat16)]
        ),
    )
    engine: Any = SimpleNamespace(model=model)
    # 128 weights, and 4 rows of 10 tokens with keys and values of 3 layers x 2 heads x 8, 2 bytes each
    moved = 2 * 128 + 4 * 10 * 2 * 3 * 2 * 8 * 2
    assert gpu._moved(engine, 4, 10, RATES) == pytest.approx(moved / 2e9)


def test_a_bandwidth_is_bytes_over_seconds() -> None:
    found = gpu.bandwidth("cpu", 1)
    assert set(found) == {"GB/s from mapped memory", "GB/s on the device", "TFLOP/s"}
    assert all(value >= 0 for value in found.values())
