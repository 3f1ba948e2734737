"""Search over the coefficients of a human-designed method, with a program of its own for every point.

This is the job of mergekit-evolve, and the control that a search over programs must beat: the same budget,
spent on numbers. CMA-ES is the `cma` package's (Hansen 2016, arXiv 1604.00772); random search draws each
point anew (Bergstra and Bengio 2012).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from selfdev.library import load_program
from selfdev.records import Program

Method = Literal["task_arithmetic", "ties"]
Strategy = Literal["cma", "random"]
Generations = Generator[list[list[float]], list[float], None]

STARTS = {"task_arithmetic": 0.2, "ties": 0.4}  # where every coefficient begins
SIGMA = 0.2  # first step of CMA-ES, in units of a task vector
HIGHEST = 1.0  # of the weights that random search draws
LEAST_DENSITY = 0.05
MOST_GROUPS = 8  # of layers


@dataclass(frozen=True, slots=True)
class Space:
    """The coefficients of a method: one weight per expert and group of layers, for TIES the density too.

    `groups` of `layers_each` layers; 1: the same weight for all layers.
    """

    method: Method
    experts: int
    groups: int = 1
    layers_each: int = 1

    @property
    def dimension(self) -> int:
        """How many numbers a point has."""
        return self.experts * self.groups + (self.method == "ties")

    def start(self) -> list[float]:
        """A point that is no choice: the same weight everywhere."""
        weights = [STARTS[self.method]] * (self.experts * self.groups)
        return weights + ([0.5] if self.method == "ties" else [])

    def parameters(self, point: Sequence[float]) -> dict[str, object]:
        """The method's parameters at a point, rounded to four digits."""
        rows = [
            [round(float(x), 4) for x in point[e * self.groups :][: self.groups]] for e in range(self.experts)
        ]
        weight: list[Any] = rows if self.groups > 1 else [row[0] for row in rows]
        values: dict[str, object] = {"WEIGHT": weight}
        if self.groups > 1:
            values["LAYERS_EACH"] = self.layers_each
        if self.method == "ties":
            # Weights that are normalised away would leave nothing to search.
            density = min(1.0, max(LEAST_DENSITY, round(float(point[-1]), 4)))
            values |= {"NORMALIZE": False, "DENSITY": density}
        return values

    def program(self, point: Sequence[float]) -> Program:
        """The method with the coefficients of a point."""
        return load_program(self.method, self.parameters(point))


def space_of(method: Method, experts: int, parameters: Sequence[str], by_layer: bool) -> Space:
    """The coefficients for models with parameters of these names; groups of layers are eight at most."""
    found = [re.search(r"\.(\d+)\.", name) for name in parameters]
    layers = 1 + max((int(layer[1]) for layer in found if layer), default=0)
    each = -(-layers // MOST_GROUPS) if by_layer else layers
    return Space(method, experts, -(-layers // each), each)


def points(strategy: Strategy, space: Space, seed: int) -> Generations:
    """Points to try, a generation at a time; each generation's accuracies are sent back.

    The same seed and the same accuracies give the same points, so that a search can be gone through again.
    """
    return _cma(space, seed) if strategy == "cma" else _random(space, seed)


def _cma(space: Space, seed: int) -> Generations:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Could not import matplotlib", category=UserWarning)
        import cma

    options = {"seed": seed % (2**31) + 1, "verbose": -9}  # zero would mean the clock
    strategy = cma.CMAEvolutionStrategy(np.array(space.start()), SIGMA, options)
    while True:
        asked = strategy.ask()
        accuracies = yield [[float(x) for x in point] for point in asked]
        if len(accuracies) == len(asked):  # a generation that the budget cut short teaches nothing
            strategy.tell(asked, [-accuracy for accuracy in accuracies])


def _random(space: Space, seed: int) -> Generations:
    rng = np.random.default_rng(seed)
    while True:
        drawn = rng.uniform(0.0, HIGHEST, (16, space.dimension))
        yield [[float(x) for x in point] for point in drawn]
