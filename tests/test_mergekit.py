"""The built-in methods against mergekit's numbers: stored, and fresh where mergekit is installed."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit_oracle import in_mergekit
from safetensors import safe_open
from test_programs import Models, run
from torch import Tensor

from selfdev.library import builtin_names, load_program

ROOT = Path(__file__).parents[1]
STORED = ROOT / "tests" / "golden" / "mergekit.safetensors"
RANDOM = {"dare_linear", "dare_ties", "della", "della_linear"}
DRAWS = 1000


@cache
def golden(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and what is known about them, of one golden file."""
    with safe_open(file, "pt") as opened:
        about = {k: json.loads(v) for k, v in opened.metadata().items() if k != "mergekit"}
        return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118


def models(file: Path) -> Models:
    """The models of a golden file: seed, then experts."""
    tensors, about = golden(file)
    sizes = [math.prod(shape) for shape in about["shapes"].values()]
    found: Models = {}
    for name, row in zip(("seed", *about["experts"]), tensors["models"], strict=True):
        parts = zip(about["shapes"].items(), row.split(sizes), strict=True)
        found[name] = {tensor: part.view(shape) for (tensor, shape), part in parts}
    return found


def ours(file: Path, case: dict[str, Any]) -> Tensor:
    """The same merge by the built-in program, as one row."""
    merged = run(case["program"], models(file), **case["constants"])
    return torch.cat([value.flatten() for value in merged.values()])


def differences(file: Path) -> dict[str, float]:
    """Largest absolute difference of each deterministic case."""
    tensors, about = golden(file)
    pairs = zip(about["cases"], tensors["results"], strict=True)
    return {json.dumps(case): float((ours(file, case) - row).abs().max()) for case, row in pairs}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden file made now by the installed mergekit."""
    out = tmp_path_factory.mktemp("mergekit") / "fresh.safetensors"
    in_mergekit(ROOT / "scripts" / "mergekit_golden.py", out, "2")
    return out


def test_deterministic_methods_give_mergekits_numbers() -> None:
    assert {case: value for case, value in differences(STORED).items() if not value <= 1e-6} == {}


def test_the_installed_mergekit_gives_the_same_numbers(fresh: Path) -> None:
    assert {case: value for case, value in differences(fresh).items() if not value <= 1e-6} == {}


def test_every_built_in_method_is_compared() -> None:
    _, about = golden(STORED)
    assert {case["program"] for case in about["cases"]} == set(builtin_names()) - RANDOM
    assert {case["program"] for case in about["random"]} == RANDOM


def test_another_parameter_would_be_noticed() -> None:
    _, about = golden(STORED)
    (case,) = (c for c in about["cases"] if c["program"] == "slerp" and c["constants"]["T"] == 0.3)
    changed = case | {"constants": case["constants"] | {"T": 0.31}}
    assert float((ours(STORED, changed) - ours(STORED, case)).abs().max()) > 1e-3


@pytest.mark.parametrize("number", range(8))
def test_random_methods_have_mergekits_distribution(number: int) -> None:
    tensors, about = golden(STORED)
    case = about["random"][number]
    space: dict[str, Any] = {}
    exec(load_program(case["program"], case["constants"]).code, space)
    drawn = []
    for seed in range(DRAWS):
        torch.manual_seed(seed)  # as the sandbox does before each run
        drawn.append(space["merge_models"](models(STORED), torch.device("cpu")).values())
    rows = torch.stack([torch.cat([value.flatten() for value in values]) for values in drawn])
    mean, deviation = tensors["mean"][number], tensors["std"][number]
    error = (deviation**2 / about["draws"] + rows.var(0) / DRAWS).sqrt()
    assert bool(((rows.mean(0) - mean).abs() <= 4.5 * error + 1e-6).all())
    # A sample's standard deviation scatters by about its size / sqrt(n / 2), more with heavy tails.
    assert bool(((rows.std(0) - deviation).abs() <= 0.25 * deviation + 1e-6).all())
