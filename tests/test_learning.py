"""Fresh programs at equal temperature: who writes, what is counted, and what may be said of it."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from fakes import FakeWorkers, silent, small_config

from selfdev.collapse import distinct_in
from selfdev.evidence.learning import (
    Estimate,
    Learned,
    fresh_config,
    lesson,
    measured,
    write_fresh,
)

CONFIG = fresh_config(small_config(), 30)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose second and third factory were trained."""
    for iteration in (2, 3):
        (tmp_path / "run" / "factory" / f"iteration_{iteration}").mkdir(parents=True)
    return tmp_path / "run"


def test_every_factory_writes_at_its_iterations_temperature(run: Path, tmp_path: Path) -> None:
    workers = FakeWorkers()
    write_fresh(CONFIG, run, tmp_path / "out", Path("seed"), workers, silent)
    written = [(path.name, round(temperature, 3)) for path, _, temperature, _ in workers.written]
    untrained = [("seed", 1.2), ("seed", 1.0), ("seed", 0.857)]
    assert written == [*untrained, ("iteration_2", 1.0), ("iteration_3", 0.857)]


def test_the_random_numbers_are_not_those_of_the_run() -> None:
    assert CONFIG.seed != small_config().seed
    assert CONFIG.factory.programs == 30


def test_no_program_is_stopped_early() -> None:
    racing = small_config(task={"first_block": 5})
    assert fresh_config(racing, 30).task.first_block == 0


def test_what_is_there_is_not_written_again(run: Path, tmp_path: Path) -> None:
    write_fresh(CONFIG, run, tmp_path / "out", Path("seed"), FakeWorkers(), silent)
    again = FakeWorkers()
    write_fresh(CONFIG, run, tmp_path / "out", Path("seed"), again, silent)
    assert (again.written, again.tried) == ([], [])


def test_the_same_programs_show_no_measurable_change(run: Path, tmp_path: Path) -> None:
    """The fakes write by the random numbers alone, so training changes nothing."""
    write_fresh(CONFIG, run, tmp_path / "out", Path("seed"), FakeWorkers(), silent)
    fresh, learned = measured(CONFIG, tmp_path / "out")
    assert [(row.iteration, row.factory) for row in fresh] == [
        (1, "untrained"), (2, "trained"), (2, "untrained"), (3, "trained"), (3, "untrained"),
    ]  # fmt: skip
    assert [row.iteration for row in learned] == [2, 3]
    for row in learned:
        assert row.mean.value == pytest.approx(0)
        assert lesson(row).count("no measurable change") == 3


def test_yield_and_mean_by_hand(run: Path, tmp_path: Path) -> None:
    """Behaviours 0, 1 and 2 of the fakes fail, behaviour b has b of 20 right."""
    workers = FakeWorkers()
    write_fresh(CONFIG, run, tmp_path / "out", Path("seed"), workers, silent)
    behaviours = [int(text.split()[1]) for text in workers.probed[:30]]
    fine = [b for b in behaviours if b > 2]
    row = measured(CONFIG, tmp_path / "out")[0][0]
    assert row.yield_.value == pytest.approx(len(fine) / 30)
    mean = sum(fine) / len(fine) / 20
    assert row.mean.value == pytest.approx(mean)
    assert row.mean.n == len(fine)
    assert row.mean.low is not None
    assert row.mean.high is not None
    assert row.mean.low < mean < row.mean.high
    assert row.distinct.value == pytest.approx(len(set(fine)) * 100 / 30)


def test_distinct_behaviours_equal_the_mean_over_all_draws() -> None:
    """Three of one behaviour, two of another, one failure: all draws of four programs, counted."""
    marks = ["a", "a", "a", "b", "b", ""]
    draws = [len(set(draw) - {""}) for draw in combinations(marks, 4)]
    assert distinct_in([3, 2], 6, 4) == pytest.approx(sum(draws) / len(draws))


def test_a_change_outside_its_interval_is_said_with_its_size() -> None:
    none = Estimate(0.0, -0.1, 0.1, 60)
    row = Learned(2, 1.0, none, Estimate(0.125, 0.05, 0.2, 50), none)
    assert "mean on dev +12.5 points (+5.0 to +20.0, n = 50)" in lesson(row)
    assert "not known" in lesson(replace(row, mean=Estimate(None, None, None, 0)))


def test_the_bootstrap_covers_a_known_mean_as_often_as_stated() -> None:
    import numpy as np

    from selfdev.evidence.learning import _bootstrapped

    rng = random.Random(0)
    held = 0
    for _ in range(200):
        found = _bootstrapped(np.mean, np.array([float(rng.random() < 0.3) for _ in range(100)]))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.3 <= found.high
    assert 180 <= held <= 200
