"""Racing replayed on recorded answers whose outcome is known."""

from __future__ import annotations

import numpy as np
import pytest

from selfdev.evidence.replay import Recorded, replay


def answers(*rights: int, n: int = 40) -> np.ndarray:
    """One row for each program, with so many right answers of n."""
    return np.array([[place < right for place in range(n)] for right in rights])


def test_programs_that_never_fall_behind_are_asked_everything() -> None:
    result = replay(Recorded(answers(30, 29, 28), (1, 1, 1), 0.5), 10, 2, 2, 20, seed=0)
    assert (result.same, result.asked) == (20, 1.0)


def test_a_program_without_a_right_answer_is_stopped_after_its_first_block() -> None:
    result = replay(Recorded(answers(40, 0), (1, 1), 0.9), 10, 1, 1, 20, seed=0)
    assert result.same == 20
    assert result.asked == pytest.approx((40 + 10) / 80)


def test_earlier_iterations_set_the_bar() -> None:
    """Against the seed alone (0.1) the program of iteration 2 would go on to the end."""
    both = answers(40, 10)
    assert replay(Recorded(both, (1, 2), 0.1), 10, 1, 1, 20, seed=0).asked < 0.8
    assert replay(Recorded(both, (1, 1), 0.1), 10, 1, 1, 20, seed=0).asked == 1.0


def test_finalists_lost_to_chance_are_counted() -> None:
    """A finalist with 8 of 40 right, below the seed's 0.9, is always stopped: no replay keeps it."""
    result = replay(Recorded(answers(40, 8), (1, 1), 0.9), 10, 2, 2, 20, seed=0)
    assert result.same == 0


def test_the_same_seed_gives_the_same_replays() -> None:
    rng = np.random.default_rng(0)
    run = Recorded(rng.random((30, 64)) < rng.random((30, 1)), (1,) * 15 + (2,) * 15, 0.5)
    assert replay(run, 8, 4, 4, 30, seed=3) == replay(run, 8, 4, 4, 30, seed=3)
