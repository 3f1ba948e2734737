"""The factory's prompt, temperatures and random numbers."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from selfdev.factory import factory
from selfdev.gate import gate

GOLDEN_PROMPT = """\
# Merge "seed" with its fine-tuned experts into a better model.
# models: name -> {parameter name: tensor}, "seed" first. Return the merged tensors.
# Example, task arithmetic:
def merge_models(models, device):
    seed = models["seed"]
    experts = [models[n] for n in models if n != "seed"]
    merged = {}
    for name in seed:
        delta = sum(e[name] - seed[name] for e in experts)
        merged[name] = seed[name] + 0.3 * delta
    return merged
# Write a different, better program:
"""


def test_prompt_is_the_golden_text() -> None:
    assert factory.prompt() == GOLDEN_PROMPT


def test_the_worked_example_passes_the_gate() -> None:
    assert "0.3 * delta" in gate.check(factory.prompt()).code


def test_the_worked_example_is_task_arithmetic() -> None:
    space: dict[str, object] = {}
    exec(compile(ast.parse(factory.prompt()), "prompt", "exec"), space)
    merge = space["merge_models"]
    assert callable(merge)
    models = {"seed": {"w": 1.0}, "one": {"w": 2.0}, "two": {"w": 5.0}}
    assert merge(models, "cpu") == {"w": pytest.approx(1.0 + 0.3 * (1.0 + 4.0))}


@pytest.mark.parametrize(("iteration", "value"), [(1, 1.2), (2, 1.0), (3, 0.857)])
def test_temperature_falls_as_in_the_paper(iteration: int, value: float) -> None:
    assert factory.temperature(iteration, 1.2, 0.2) == pytest.approx(value, abs=5e-4)


def test_without_decay_the_temperature_stays() -> None:
    assert [factory.temperature(t, 0.7, 0.0) for t in (1, 2, 9)] == [0.7, 0.7, 0.7]


@pytest.mark.parametrize("cuts", [[7], [1, 6], [3, 3, 1], [1] * 7])
def test_numbers_are_the_same_however_the_work_is_cut(cuts: list[int]) -> None:
    whole = factory.uniforms(5, 2, 0, 7, 4)
    starts = np.cumsum([0, *cuts[:-1]])
    parts = [factory.uniforms(5, 2, int(start), rows, 4) for start, rows in zip(starts, cuts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_longer_programs_keep_their_first_numbers() -> None:
    np.testing.assert_array_equal(factory.uniforms(5, 2, 0, 3, 9)[:, :4], factory.uniforms(5, 2, 0, 3, 4))


def test_seed_iteration_and_place_give_other_numbers() -> None:
    rows = [
        factory.uniforms(0, 1, 0, 2, 3),
        factory.uniforms(1, 1, 0, 2, 3),
        factory.uniforms(0, 2, 0, 2, 3),
    ]
    assert len({row.tobytes() for block in rows for row in block}) == 6


def test_numbers_are_uniform() -> None:
    numbers = factory.uniforms(0, 1, 0, 100, 100)
    assert numbers.shape == (100, 100)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # The mean of 10,000 uniform numbers has a standard deviation of 0.0029.
    assert abs(numbers.mean() - 0.5) < 5 * 0.0029


def test_program_seeds_are_32_bits_and_differ_by_place() -> None:
    seeds = [factory.program_seed(0, iteration, place) for iteration in (1, 2) for place in range(500)]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len(set(seeds)) > 995


def test_program_seeds_are_repeatable_and_depend_on_the_run() -> None:
    assert factory.program_seed(3, 1, 4) == factory.program_seed(3, 1, 4)
    assert factory.program_seed(3, 1, 4) != factory.program_seed(4, 1, 4)
