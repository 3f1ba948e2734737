"""Points of a coefficient space: what they mean as parameters, and that a search finds what it is told of."""

from __future__ import annotations

import pytest

from selfdev.evidence.search import Space, Strategy, points, space_of
from selfdev.gate import gate


def test_a_point_is_one_weight_per_expert() -> None:
    space = Space("task_arithmetic", 3)
    assert space.dimension == 3
    assert space.parameters([0.1, 0.23456, -0.5]) == {"WEIGHT": [0.1, 0.2346, -0.5]}


def test_with_groups_a_point_is_a_row_per_expert() -> None:
    space = Space("task_arithmetic", 2, groups=3, layers_each=4)
    assert space.dimension == 6
    assert space.parameters([1, 2, 3, 4, 5, 6]) == {
        "WEIGHT": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        "LAYERS_EACH": 4,
    }


@pytest.mark.parametrize(("last", "density"), [(0.5, 0.5), (1.7, 1.0), (-3.0, 0.05)])
def test_the_last_number_of_ties_is_its_density(last: float, density: float) -> None:
    space = Space("ties", 2)
    assert space.dimension == 3
    found = space.parameters([0.2, 0.4, last])
    assert found == {"WEIGHT": [0.2, 0.4], "NORMALIZE": False, "DENSITY": density}


def test_every_point_is_a_program_with_these_parameters() -> None:
    space = Space("ties", 2, groups=2)
    code = space.program(space.start()).code
    assert gate.parameters(code)["WEIGHT"] == [[0.4, 0.4], [0.4, 0.4]]


@pytest.mark.parametrize(
    ("layers", "by_layer", "groups", "each"),
    [(4, False, 1, 4), (4, True, 4, 1), (12, True, 6, 2), (32, True, 8, 4), (0, True, 1, 1)],
)
def test_layers_are_cut_into_eight_groups_at_most(
    layers: int, by_layer: bool, groups: int, each: int
) -> None:
    names = ["lm_head.weight", *(f"model.layers.{i}.mlp.up_proj.weight" for i in range(layers))]
    assert space_of("task_arithmetic", 2, names, by_layer) == Space("task_arithmetic", 2, groups, each)


def accuracy(point: list[float]) -> float:
    """Highest, 1, at weights of 0.7."""
    return 1 - sum((x - 0.7) ** 2 for x in point)


def search(strategy: Strategy, seed: int, rounds: int) -> list[list[float]]:
    generations = points(strategy, Space("task_arithmetic", 4), seed)
    asked, every = next(generations), []
    for _ in range(rounds):
        every += asked
        asked = generations.send([accuracy(point) for point in asked])
    return every


def test_cma_goes_where_accuracy_is() -> None:
    every = search("cma", 0, 30)
    assert accuracy(every[0]) < 0.5
    assert max(accuracy(point) for point in every[-8:]) > 0.999


def test_random_search_draws_from_zero_to_one() -> None:
    every = search("random", 0, 20)
    flat = [x for point in every for x in point]
    assert (min(flat) < 0.05, max(flat) > 0.95, min(flat) >= 0, max(flat) <= 1) == (True,) * 4


@pytest.mark.parametrize("strategy", ["cma", "random"])
def test_the_same_seed_gives_the_same_points(strategy: Strategy) -> None:
    assert search(strategy, 3, 5) == search(strategy, 3, 5)
    assert search(strategy, 3, 5) != search(strategy, 4, 5)


@pytest.mark.parametrize("strategy", ["cma", "random"])
def test_a_generation_that_was_cut_short_is_followed_by_another(strategy: Strategy) -> None:
    generations = points(strategy, Space("task_arithmetic", 4), 0)
    first = next(generations)
    second = generations.send([0.5])
    assert len(second) == len(first)
    assert second != first
