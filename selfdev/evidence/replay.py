"""Racing tried on recorded answers: would the same finalists have come out, and what would it have cost?

A run that asked every program all of its dev questions (`task.first_block: 0`) holds what any order of these
questions would have shown. A replay draws an order, goes through the iterations as the loop does, and stops
programs as `selfdev.race` does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfdev.race import blocks, is_hopeless
from selfdev.records import Score


@dataclass(frozen=True, slots=True)
class Recorded:
    """The distinct behaviours of one run: `right` is [programs, questions] of bool, `iterations` [programs];
    `seed` is the seed's accuracy on the same questions."""

    right: np.ndarray
    iterations: tuple[int, ...]
    seed: float


@dataclass(frozen=True, slots=True)
class Replayed:
    """Replays, those of them with the same finalists, and the share of all questions that was asked."""

    replays: int
    same: int
    asked: float


def replay(
    recorded: Recorded, first_block: int, kept: int, finalists: int, replays: int, seed: int
) -> Replayed:
    """Race the programs with `replays` orders of the questions; `kept` of them set the bar as in the loop."""
    everyone = range(len(recorded.right))
    truth = _best(recorded, everyone, finalists)
    rng, same, asked = random.Random(seed), 0, 0
    for _ in range(replays):
        order = list(range(recorded.right.shape[1]))
        rng.shuffle(order)
        survivors, questions = _race(recorded, recorded.right[:, order], first_block, kept)
        same += set(_best(recorded, survivors, finalists)) == set(truth)
        asked += questions
    return Replayed(replays, same, asked / (replays * recorded.right.size))


def _race(recorded: Recorded, right: np.ndarray, first_block: int, kept: int) -> tuple[list[int], int]:
    """The programs that are asked everything, and the questions asked of all."""
    n = right.shape[1]
    parts, asked = blocks(first_block, n), 0
    survivors: list[int] = []
    for iteration in sorted(set(recorded.iterations)):
        ranked = _best(recorded, survivors, kept)
        bar = float(right[ranked[-1]].mean()) if len(ranked) == kept else 0.0
        for program in [p for p, t in enumerate(recorded.iterations) if t == iteration]:
            stopped, questions = _asked(right[program], max(bar, recorded.seed), parts, n)
            asked += questions
            if not stopped:
                survivors.append(program)
    return survivors, asked


def _asked(right: np.ndarray, bar: float, parts: Sequence[tuple[int, int]], n: int) -> tuple[bool, int]:
    """Whether a program is stopped, and after how many questions."""
    for _, stop in parts[:-1]:
        results = tuple(right[:stop].tolist())
        if is_hopeless(Score(results, results), bar, n, len(parts) - 1):
            return True, stop
    return False, n


def _best(recorded: Recorded, programs: Sequence[int], count: int) -> list[int]:
    """The best by all questions; the earlier wins a tie."""
    return sorted(programs, key=lambda p: (-int(recorded.right[p].sum()), p))[:count]
