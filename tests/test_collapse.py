"""A factory that writes the same few behaviours is noticed, told, and stops the run if asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeTrain, FakeWorkers, silent, small_config

from selfdev.collapse import collapsed, distinct_in, diversity
from selfdev.collect import collect
from selfdev.loop import run_loop
from selfdev.records import Attempt, Outcome, State
from selfdev.report.report import render
from selfdev.store.archive import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


def attempts(archive: Archive, *marks: str, state: State = State.SCORED) -> list[Attempt]:
    """One attempt for each behaviour named; "" failed at the gate."""
    archive.add_written("factory", 1, [""] * len(marks), list(marks), list(range(len(marks))))
    outcomes = [Outcome(state) if mark else Outcome(State.INVALID, "no") for mark in marks]
    found = zip(archive.attempts("factory", 1), marks, outcomes, strict=True)
    return [replace(a, fingerprint=mark, outcome=outcome) for a, mark, outcome in found]


def test_one_behaviour_for_all_is_one_in_a_hundred(archive: Archive) -> None:
    assert diversity(attempts(archive, *["x"] * 200)) == pytest.approx(1.0)


def test_all_different_is_a_hundred_in_a_hundred(archive: Archive) -> None:
    assert diversity(attempts(archive, *map(str, range(150)))) == pytest.approx(100.0)


def test_failed_programs_have_no_behaviour(archive: Archive) -> None:
    assert diversity(attempts(archive, "a", "b", "", "")) == pytest.approx(50.0)


def test_a_hundred_of_two_halves_has_both(archive: Archive) -> None:
    found = attempts(archive, *["a"] * 150, *["b"] * 150)
    assert diversity(found) == pytest.approx(distinct_in([150, 150], 300, 100)) == pytest.approx(2.0)


def test_an_iteration_that_has_hardly_begun_is_not_judged(archive: Archive) -> None:
    found = attempts(archive, *["x"] * 10, state=State.MERGED)
    assert diversity(found) is None
    assert not collapsed(found, 100)


def loop(archive: Archive, folder: Path, **factory: Any) -> FakeTrain:
    config, train = small_config(factory=factory), FakeTrain()
    run_loop(config, Path("seed"), folder, archive, FakeWorkers(), train, silent)
    archive.put("config", config.model_dump_json())
    return train


def test_a_run_stops_after_the_collapse_if_asked(archive: Archive, tmp_path: Path) -> None:
    train = loop(
        archive, tmp_path, collapse_below=60, stop_on_collapse=True
    )  # twelve behaviours, 30 programs
    assert [len(archive.attempts("factory", t)) for t in (1, 2)] == [30, 0]
    assert train.calls == []
    assert archive.unfinished("factory", 1) == set()
    note = next(note for note in collect(tmp_path, archive).notes if note.startswith("COLLAPSE"))
    assert "iteration 1" in note
    assert "the search stopped there" in note


def test_it_is_said_and_the_run_goes_on_if_not(archive: Archive, tmp_path: Path) -> None:
    loop(archive, tmp_path, collapse_below=60)
    assert [len(archive.attempts("factory", t)) for t in (1, 2, 3)] == [30, 30, 30]
    result = collect(tmp_path, archive)
    assert sum(note.startswith("COLLAPSE") for note in result.notes) == 3
    assert "COLLAPSE: the programs of iteration 2" in render(result)


def test_a_varied_factory_is_not_called_collapsed(archive: Archive, tmp_path: Path) -> None:
    loop(archive, tmp_path, collapse_below=5, stop_on_collapse=True)
    assert len(archive.attempts("factory", 3)) == 30
    assert not any("COLLAPSE" in note for note in collect(tmp_path, archive).notes)
