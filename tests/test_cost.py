"""What a run cost, added up from an archive written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fakes import QUESTIONS, small_config

from selfdev.cost import bars_of, cost_of, stage_log, stage_seconds
from selfdev.records import Outcome, Score, State
from selfdev.results import Cost
from selfdev.store.archive import Archive

MERGED = Outcome(State.MERGED)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


def answers(n: int, tokens: int) -> Score:
    return Score((True,) * n, (True,) * n, "strict", tokens)


def test_questions_and_tokens_are_those_that_were_really_asked_and_written(archive: Archive) -> None:
    archive.add_written("factory", 1, [""] * 3, ["a", "b", "c"], [0, 0, 0], tokens=90)
    archive.set_result(1, MERGED, answers(QUESTIONS, 300))
    archive.set_result(2, MERGED, answers(5, 70))  # stopped early
    archive.set_result(3, MERGED, answers(QUESTIONS, 300), same_as=1)
    archive.add_examined("seed", "seed", "test", None, answers(7, 11))
    archive.add_examined("program 1.0", "discovered", "finalist_dev", 1, answers(9, 13))
    assert cost_of(small_config(), archive) == Cost(
        dev=QUESTIONS + 5,
        spared_by_race=QUESTIONS - 5,
        spared_by_behaviour=QUESTIONS,
        finalist_dev=9,
        test=7,
        tokens_of_programs=90,
        tokens_of_answers=300 + 70 + 11 + 13,
    )


def test_a_score_keeps_its_tokens_in_the_archive(archive: Archive) -> None:
    archive.add_written("factory", 1, [""], ["a"], [0])
    archive.set_result(1, MERGED, answers(4, 12) + answers(4, 30))
    archive.add_examined("seed", "seed", "test", None, answers(7, 11))
    assert archive.attempt(1).score == answers(8, 42)
    assert archive.examined("test") == {"seed": answers(7, 11)}


def test_gpu_hours_and_energy_add_up_over_stages(archive: Archive) -> None:
    counter = iter((100.0, 4_100.0, 10_100.0))
    log = stage_log(archive, 2.0, lambda: next(counter))
    log("write", 1800.0)
    log("score", 900.0)
    assert stage_seconds(archive) == {"write": 1800.0, "score": 900.0}
    cost = cost_of(small_config(), archive)
    assert (cost.gpu_hours, cost.joules) == (1.5, 10_000.0)


def test_gpus_of_a_cluster_need_not_be_here(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = small_config(device="cuda", workers=4, ray={"gpus": 0.5})
    assert list(bars_of(config, archive)("ab", "write", 2)) == ["a", "b"]
    (stage,) = archive.events("stage")
    assert (stage["gpus"], stage["joules"]) == (2.0, None)


def test_energy_that_nothing_counts_is_not_zero(archive: Archive) -> None:
    stage_log(archive, 0.0, lambda: None)("write", 60.0)
    cost = cost_of(small_config(), archive)
    assert (cost.gpu_hours, cost.joules) == (0.0, None)
