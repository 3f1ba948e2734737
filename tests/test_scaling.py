"""Larger models on more GPUs: numbers worked out by hand."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from selfdev.cli.terminal_doctor import scaling_table
from selfdev.config.config import load_config
from selfdev.doctor.estimate import Load, gpu_memory
from selfdev.doctor.scaling import SHAPES, Scaled, scaling
from selfdev.engine.engine import READ

CONFIG = load_config(Path(__file__).parents[1] / "configs" / "paper.yaml")
LOAD = Load(prompt=700, question=930, test=1319)


def rows() -> dict[tuple[str, int], Scaled]:
    return {(row.model, row.gpus): row for row in scaling(CONFIG, LOAD)}


def test_seven_billion_parameters_fit_one_gpu_and_workers_share_the_rest() -> None:
    found = rows()
    one, eight = found["7B", 1], found["7B", 8]
    assert (one.together, one.workers, eight.together, eight.workers) == (1, 1, 1, 8)
    assert one.host_gib == pytest.approx(4 * 7.242e9 * 2 / 2**30)  # seed and three experts in 16 bits
    assert one.low_hours is not None
    assert eight.low_hours is not None
    # Training is done by one worker, everything else by all.
    assert one.low_hours / 8 < eight.low_hours < one.low_hours


def test_scoring_takes_weights_the_seeds_own_values_and_the_cache() -> None:
    size = SHAPES["70B"]
    weights = size.parameters * 2 + size.scope * 2
    # batch 64, 930 + 256 tokens, and those read at once; keys and values of 80 layers x 1024 in 16 bits
    cache = (64 * (930 + 256) + READ) * 2 * 80 * 1024 * 2
    assert gpu_memory(CONFIG, size, LOAD)["merge and score"] == pytest.approx((weights + cache) / 2**30)


def test_seventy_billion_parameters_need_four_gpus_together() -> None:
    found = rows()
    assert [found["70B", n].workers for n in (1, 2, 4, 8)] == [0, 0, 1, 2]
    assert found["70B", 2].low_hours is None
    assert found["70B", 4].gib == pytest.approx(found["70B", 1].gib / 4)


def test_the_table_says_what_does_not_fit() -> None:
    file = io.StringIO()
    Console(file=file, width=160).print(scaling_table(list(rows().values())))
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert ["70B", "1", "1", "-", "262", "514", "does", "not", "fit;", "lower", "the", "batches"] in lines
    assert any(line[:4] == ["7B", "8", "1", "8"] and line[-1] == "h" for line in lines)
