"""The algorithm factory: one fixed prompt with one worked example, sampled at a falling temperature."""

from __future__ import annotations

from importlib.resources import files

import numpy as np


def prompt() -> str:
    """The prompt of every iteration (paper: one fixed prompt with one worked example)."""
    return files("selfdev.factory").joinpath("prompt.txt").read_text(encoding="utf-8")


def temperature(iteration: int, first: float, decay: float) -> float:
    """Sampling temperature of an iteration, counted from 1: T_1 / (1 + decay (t - 1)).

    The law is the one the paper's values 1.2, 1.0, 0.85 and decay 0.2 agree with (PAPER.md, grade D).
    """
    return first / (1 + decay * (iteration - 1))


def uniforms(seed: int, iteration: int, place: int, rows: int, longest: int) -> np.ndarray:
    """Random numbers in 0..1 for `rows` programs from `place` on, [rows, longest] float64.

    A program's numbers depend on the run's seed, the iteration and its own place alone, so that how the
    work is cut into batches changes nothing.
    """
    return np.stack(
        [np.random.default_rng([seed, iteration, place + row]).random(longest) for row in range(rows)]
    )


def program_seed(seed: int, iteration: int, place: int) -> int:
    """The random seed a program's own run gets: 32 bits from the run's seed and the attempt's identity."""
    return int(np.random.SeedSequence([seed, iteration, place]).generate_state(1)[0])
