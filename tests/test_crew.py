"""Processes that die, stop and fail: what becomes of their jobs."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crew_jobs as jobs
import pytest

from selfdev.errors import SelfdevError
from selfdev.interrupt import Stop
from selfdev.workers.crew import AGAIN, Crew
from selfdev.workers.processes import Process, Processes


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew[Process]]:
    with Crew(Processes(jobs.start, (str(tmp_path),)), 2) as made:
        yield made


def lost(reason: str) -> str:
    return f"lost: {reason}"


def dying(folder: Path, *deaths: int) -> list[tuple[Any, ...]]:
    return [(place, str(folder), count) for place, count in enumerate(deaths)]


def test_every_job_is_done_once(crew: Crew[Process]) -> None:
    assert dict(crew.stream(jobs.double, [(n,) for n in range(9)])) == {n: 2 * n for n in range(9)}
    assert len(crew.pids) == 2


def test_processes_start_with_the_first_job_and_stay(crew: Crew[Process], tmp_path: Path) -> None:
    assert dict(crew.stream(jobs.double, [])) == {}
    assert crew.pids == []
    for _ in range(2):
        dict(crew.stream(jobs.double, [(n,) for n in range(4)]))
    assert {p.name for p in tmp_path.iterdir()} == {f"started {pid}" for pid in crew.pids}


def test_after_a_rest_others_start_with_the_next_job(crew: Crew[Process]) -> None:
    dict(crew.stream(jobs.double, [(n,) for n in range(4)]))
    before = set(crew.pids)
    crew.rest()
    assert crew.pids == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    assert dict(crew.stream(jobs.double, [(n,) for n in range(4)])) == {n: 2 * n for n in range(4)}
    assert not before & set(crew.pids)


def test_jobs_are_taken_as_processes_get_free(crew: Crew[Process]) -> None:
    taken: list[int] = []

    def lazily() -> Iterator[tuple[int]]:
        for number in range(6):
            taken.append(number)
            yield (number,)

    stream = crew.stream(jobs.double, lazily())
    next(stream)
    assert len(taken) <= 4
    assert len(list(stream)) == 5


def test_the_job_of_a_process_that_died_is_handed_out_again(crew: Crew[Process], tmp_path: Path) -> None:
    done = dict(crew.stream(jobs.die, dying(tmp_path, 0, AGAIN, 0, 1), lost))
    assert done == {n: n for n in range(4)}
    assert len(crew.pids) == 2


def test_a_job_that_always_kills_is_given_up_with_the_reason(crew: Crew[Process], tmp_path: Path) -> None:
    done = dict(crew.stream(jobs.die, dying(tmp_path, 0, 99, 0), lost))
    assert done == {0: 0, 1: "lost: its worker process died 4 times, at last by SIGKILL", 2: 2}
    assert len(list(tmp_path.glob("1 *"))) == 1 + AGAIN


def test_full_memory_is_a_death(crew: Crew[Process]) -> None:
    ((_, result),) = crew.stream(jobs.fill_memory, [(0,)], lost)
    assert result == "lost: its worker process died 4 times, at last by exit code 1"


def test_deaths_without_any_result_between_them_stop_the_work_and_are_no_results(
    crew: Crew[Process], tmp_path: Path
) -> None:
    with pytest.raises(SelfdevError, match=r"die again and again .*SIGKILL.* lower `workers`"):
        assert list(crew.stream(jobs.die, dying(tmp_path, *[99] * 5), lost)) == []


def test_a_job_that_must_not_be_lost_stops_the_work(crew: Crew[Process], tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="die again and again"):
        list(crew.stream(jobs.die, dying(tmp_path, 99)))


def test_processes_that_die_at_their_start_stop_the_work() -> None:
    with Crew(Processes(jobs.die_at_start, ("",)), 1) as crew, pytest.raises(SelfdevError, match="die again"):
        list(crew.stream(jobs.double, [(n,) for n in range(5)], lost))


def test_one_killed_while_idle_is_replaced_and_blames_no_job(crew: Crew[Process]) -> None:
    dict(crew.stream(jobs.double, [(0,), (1,)]))
    for pid in crew.pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert dict(crew.stream(jobs.double, [(n,) for n in range(3)])) == {0: 0, 1: 2, 2: 4}


@pytest.mark.parametrize(
    ("kind", "raised", "words"),
    [
        ("error", SelfdevError, "^error$"),
        ("disk", OSError, "disk"),
        ("bug", RuntimeError, "KeyError in a wor"),
    ],
)
def test_what_a_job_raises_is_raised_here(
    crew: Crew[Process], kind: str, raised: type[Exception], words: str
) -> None:
    with pytest.raises(raised, match=words):
        list(crew.stream(jobs.fail, [(kind,)], lost))
    assert dict(crew.stream(jobs.double, [(1,)])) == {0: 2}  # the process lives on


@pytest.mark.parametrize(
    ("kind", "raised", "words"),
    [
        ("error", SelfdevError, "^error$"),
        ("disk", SelfdevError, "could not start: OSError: disk"),
        ("bug", RuntimeError, "could not start: KeyError"),
    ],
)
def test_what_stops_a_start_is_raised_here(kind: str, raised: type[Exception], words: str) -> None:
    with Crew(Processes(jobs.no_start, (kind,)), 1) as crew, pytest.raises(raised, match=words):
        list(crew.stream(jobs.double, [(1,)]))


def test_an_abandoned_stream_leaves_nothing_to_the_next(crew: Crew[Process]) -> None:
    for _ in crew.stream(jobs.slow, [(n,) for n in range(6)]):
        break
    gc.collect()
    assert dict(crew.stream(jobs.double, [(n,) for n in range(3)])) == {0: 0, 1: 2, 2: 4}


@pytest.mark.parametrize("finish", [True, False])
def test_when_stopping_jobs_in_hand_are_finished_or_not_and_no_other_is_begun(
    tmp_path: Path, finish: bool
) -> None:
    done: list[int] = []
    with Crew(Processes(jobs.start, (str(tmp_path),)), 2, lambda: bool(done)) as crew, pytest.raises(Stop):
        done.extend(place for place, _ in crew.stream(jobs.slow, [(n,) for n in range(9)], finish=finish))
    assert 1 + finish <= len(done) <= 3


def test_a_stop_behind_the_last_job_stops_the_next_stream(tmp_path: Path) -> None:
    done: list[int] = []
    with Crew(Processes(jobs.start, (str(tmp_path),)), 1, lambda: bool(done)) as crew:
        for place, _ in crew.stream(jobs.double, [(1,)]):
            done.append(place)
        with pytest.raises(Stop):
            list(crew.stream(jobs.double, [(1,)]))
        assert list(crew.stream(jobs.double, [])) == []


def test_no_process_outlives_its_crew(tmp_path: Path) -> None:
    with Crew(Processes(jobs.start, (str(tmp_path),)), 2) as crew:
        dict(crew.stream(jobs.double, [(1,), (2,)]))
        pids = crew.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
