"""A budget ends the search at its first limit, once and for all, and leaves nothing half done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import QUESTIONS, FakeTrain, FakeWorkers, of_accuracy, silent, small_config

from selfdev.budget import Budget
from selfdev.checkpoints import Checkpoint
from selfdev.collect import collect
from selfdev.config.settings import Budget as Limits
from selfdev.finish import final_examination, tune_baselines
from selfdev.lineage import Parents
from selfdev.loop import run_loop
from selfdev.records import Outcome, State
from selfdev.report.report import render
from selfdev.store.archive import Archive
from selfdev.tasks.questions import ExamName
from selfdev.workers.workers import Tried


class OneByOne(FakeWorkers):
    """Takes each job when the one before is done, as processes do."""

    def try_programs(
        self, jobs: Iterable[tuple[str, int, ExamName]], bar: float = 0.0, parents: Parents | None = None
    ) -> Iterator[tuple[int, Tried]]:
        for place, job in enumerate(jobs):
            for _, tried in super().try_programs([job], bar, parents):
                yield place, tried


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


def loop(archive: Archive, folder: Path, **limits: Any) -> FakeTrain:
    config, train = small_config(budget=limits), FakeTrain()
    run_loop(config, Path("seed"), folder, archive, OneByOne(), train, silent)
    return train


def counts(archive: Archive) -> list[int]:
    return [len(archive.attempts("factory", t)) for t in (1, 2, 3)]


def test_without_limits_nothing_ends(archive: Archive, tmp_path: Path) -> None:
    loop(archive, tmp_path)
    assert counts(archive) == [30, 30, 30]
    assert archive.get("budget") is None


def test_attempts_cut_the_programs_written_and_all_of_them_end(archive: Archive, tmp_path: Path) -> None:
    loop(archive, tmp_path, attempts=40)
    assert counts(archive) == [30, 10, 0]
    assert archive.unfinished("factory", 2) == set()
    assert archive.get("budget") == "attempts"


def test_a_budget_that_is_just_enough_was_not_reached(archive: Archive, tmp_path: Path) -> None:
    loop(archive, tmp_path, attempts=90)
    assert counts(archive) == [30, 30, 30]
    assert archive.get("budget") is None


def test_the_programs_of_a_budget_are_those_of_the_whole_run(archive: Archive, tmp_path: Path) -> None:
    loop(archive, tmp_path, attempts=40)
    other = Archive(tmp_path / "other.sqlite", create=True)
    loop(other, tmp_path)
    assert archive.attempts("factory", 2) == other.attempts("factory", 2)[:10]
    other.close()


def test_questions_end_the_search_after_the_program_in_hand(archive: Archive, tmp_path: Path) -> None:
    train = loop(archive, tmp_path, questions=3 * QUESTIONS - 1)
    assert archive.asked("factory") == 3 * QUESTIONS
    assert archive.get("budget") == "questions"
    assert archive.unfinished("factory", 1)
    assert counts(archive) == [30, 0, 0]
    assert train.calls == []


def test_what_was_ended_stays_ended_when_the_command_is_given_again(archive: Archive, tmp_path: Path) -> None:
    for _ in range(2):
        loop(archive, tmp_path, questions=3 * QUESTIONS - 1)
        assert archive.asked("factory") == 3 * QUESTIONS


def test_hours_are_those_of_all_sessions(archive: Archive) -> None:
    now = 1000.0
    archive.log("stage", name="iteration 1: write", seconds=1800.0, gpus=0)
    budget = Budget(Limits(hours=1.0), archive, clock=lambda: now)
    assert budget.reached() is None
    now += 1799
    assert list(budget.within("ab")) == ["a", "b"]
    now += 1
    assert list(budget.within("ab")) == []
    assert budget.programs(5) == 0
    assert archive.get("budget") == "hours"


def test_gpu_hours_are_those_of_each_gpu_that_was_held(archive: Archive) -> None:
    now = 50.0
    archive.log("stage", name="iteration 1: write", seconds=1800.0, gpus=4)
    budget = Budget(Limits(gpu_hours=3.0), archive, 2, lambda: now)
    now += 1799
    assert budget.reached() is None
    now += 1
    assert budget.reached() == "gpu_hours"


def test_without_a_gpu_no_gpu_hour_is_spent(archive: Archive) -> None:
    now = 0.0
    budget = Budget(Limits(gpu_hours=0.001), archive, 0, lambda: now)
    now += 1e6
    assert budget.reached() is None


def test_a_reused_score_takes_no_question(archive: Archive) -> None:
    archive.add_written("factory", 1, ["", ""], ["a", "b"], [0, 0])
    archive.set_result(1, Outcome(State.MERGED), of_accuracy(3))
    archive.set_result(2, Outcome(State.MERGED), of_accuracy(3), same_as=1)
    assert archive.asked("factory") == QUESTIONS


def test_the_run_goes_on_to_its_examination_and_says_what_ended_it(archive: Archive, tmp_path: Path) -> None:
    config = small_config(budget={"questions": 5 * QUESTIONS})
    loop(archive, tmp_path, questions=5 * QUESTIONS)
    workers = FakeWorkers()
    tune_baselines(config, archive, workers, silent)
    assert {a.outcome.state for a in archive.attempts("baseline")} == {State.SCORED}
    models = [Checkpoint(name, Path(name), {}, {}) for name in ("seed", "one", "two")]
    best = final_examination(config, models[0], models[1:], archive, workers, silent)
    archive.put("config", config.model_dump_json())
    archive.put("best", best.name)
    archive.log("stage", name="iteration 1: write", seconds=1.0, gpus=0, joules=None)
    result = collect(tmp_path, archive)
    assert result.budget_reached == "questions"
    assert any("stopped at its budget (questions: 100); the final" in note for note in result.notes)
    assert "stopped at its budget" in render(result)
    assert [turn.iteration for turn in result.iterations] == [1]
    scored = [a for a in archive.attempts() if a.score]
    assert result.cost.dev + result.cost.spared_by_behaviour == QUESTIONS * len(scored)
    assert result.cost.test == QUESTIONS * len(archive.examined("test"))
    assert "spared by knowing a behaviour again" in render(result)
