"""The programs the seed is taught: every one is in the contract, runs, and gives finite weights."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from selfdev.gate import gate
from selfdev.lab.corpus import make_program

PROGRAMS = 300
NAMES = [f"model.layers.{i}.mlp.{kind}_proj.weight" for i in range(4) for kind in ("gate", "up", "down")]
EXPERTS = 6


def programs() -> list[str]:
    rng = random.Random(0)
    return [make_program(rng, EXPERTS) for _ in range(PROGRAMS)]


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(0)
    shapes = {name: (5, 7) if "down" in name else (7, 5) for name in NAMES}
    seed = {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    made = {"seed": seed}
    for i in range(EXPERTS):
        noise = {name: 0.02 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
        made[f"expert_{i}"] = {name: seed[name] + noise[name] for name in NAMES}
    return made


def merge(code: str, models: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    space: dict[str, Any] = {"torch": torch}
    exec(compile(code, "program", "exec"), space)
    merged: dict[str, Tensor] = space["merge_models"](models, "cpu")
    return merged


@pytest.mark.parametrize("start", range(0, PROGRAMS, 50))
def test_programs_pass_the_gate_and_give_finite_weights(
    start: int, models: dict[str, dict[str, Tensor]]
) -> None:
    for code in programs()[start : start + 50]:
        merged = merge(gate.check(code).code, models)
        assert merged.keys() == models["seed"].keys(), code
        for name, value in merged.items():
            assert value.shape == models["seed"][name].shape, code
            assert value.isfinite().all(), code


def test_programs_leave_their_inputs_alone(models: dict[str, dict[str, Tensor]]) -> None:
    before = {model: {n: v.clone() for n, v in own.items()} for model, own in models.items()}
    for code in programs()[:100]:
        merge(code, models)
    assert all(torch.equal(before[m][n], v) for m, own in models.items() for n, v in own.items())


def test_programs_really_change_the_seed(models: dict[str, dict[str, Tensor]]) -> None:
    idle = 0
    for code in programs()[:100]:
        merged = merge(code, models)
        idle += all(torch.allclose(merged[name], models["seed"][name]) for name in NAMES)
    assert idle <= 2


def test_programs_are_varied() -> None:
    assert len(set(programs())) > 0.95 * PROGRAMS


def test_the_same_random_numbers_give_the_same_program() -> None:
    assert make_program(random.Random(7)) == make_program(random.Random(7))


def test_weight_lists_have_one_number_per_expert() -> None:
    rng = random.Random(1)
    lists = []
    for _ in range(100):
        for line in make_program(rng, 3).split("\n"):
            if line.strip().startswith("weights = ["):
                lists.append(line.count(",") + 1)
    assert lists
    assert set(lists) == {3}
