"""Workers as Ray actors: two node processes on this machine stand for two machines."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crew_jobs as jobs
import pytest
from writing_family import build
from writing_run import rows, settings

from selfdev.config.settings import Ray
from selfdev.errors import SelfdevError
from selfdev.interrupt import Stop
from selfdev.run import run_config
from selfdev.workers import ray_crew
from selfdev.workers.crew import AGAIN, Crew, Jobs
from selfdev.workers.ray_crew import Actor, Actors

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
TESTS = Path(__file__).parent
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
SMALL: dict[str, Any] = {"factory": {"programs": 16}, "baselines": {"linear": [{}]}, "finalists": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a place each, which this process has joined."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{TESTS.parent}:{TESTS}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(True, head_node_args=NODE)
        made.add_node(**NODE)
        ray_crew.join(made.address, 1)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def crew(cluster: Any, tmp_path: Path) -> Iterator[Crew[Actor]]:  # noqa: ARG001
    with Crew(Actors(jobs.start, (str(tmp_path),), 2, 1, Ray(seconds=5)), 2) as made:
        yield made


def test_jobs_are_done_once_by_both_and_outlive_deaths(crew: Crew[Actor], tmp_path: Path) -> None:
    seen = dict(crew.stream(jobs.where, [(n,) for n in range(60)]))
    assert {pid for pid, _ in seen.values()} == set(crew.pids)
    assert (len(seen), len(crew.pids)) == (60, 2)
    assert {threads for _, threads in seen.values()} == {"1"}
    dying = [(place, str(tmp_path), deaths) for place, deaths in enumerate((0, 1, 0, 99))]
    done = dict(crew.stream(jobs.die, dying, lambda why: f"lost: {why}"))
    gone = f"lost: its worker process died {AGAIN + 1} times, at last by ActorDiedError"
    assert done == {0: 0, 1: 1, 2: 2, 3: gone}
    assert len(list(tmp_path.glob("3 *"))) == 1 + AGAIN


def test_one_that_hangs_is_replaced_and_its_job_done_by_another(crew: Crew[Actor], tmp_path: Path) -> None:
    dict(crew.stream(jobs.double, [(1,)]))
    (hung,) = crew.pids or [0]
    assert dict(crew.stream(jobs.hang, [(7, str(tmp_path))])) == {0: 7}
    assert hung not in crew.pids


def test_one_killed_while_idle_blames_no_job(crew: Crew[Actor], monkeypatch: pytest.MonkeyPatch) -> None:
    dict(crew.stream(jobs.double, [(0,), (1,)]))
    for pid in crew.pids:
        os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(Jobs, "died", lambda *_: pytest.fail("a job was blamed"))
    assert dict(crew.stream(jobs.double, [(n,) for n in range(3)])) == {0: 0, 1: 2, 2: 4}


def test_what_a_job_or_a_start_raises_is_raised_here(crew: Crew[Actor], cluster: Any) -> None:  # noqa: ARG001
    with pytest.raises(RuntimeError, match="KeyError in a worker process"):
        list(crew.stream(jobs.fail, [("bug",)]))
    crew.__exit__(None)  # makes room
    with (
        Crew(Actors(jobs.no_start, ("error",), 1, 1, Ray()), 1) as other,
        pytest.raises(SelfdevError, match=r"^error$"),
    ):
        list(other.stream(jobs.double, [(1,)]))


def test_without_room_for_anybody_the_work_stops(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(ray_crew, "ROOM", 1.0)
    words = r"no machine of the Ray cluster has had room for a worker \(1 CPUs and 8 GPUs\)"
    with (
        Crew(Actors(jobs.start, ("",), 1, 1, Ray(gpus=8)), 1) as crew,
        pytest.raises(SelfdevError, match=words),
    ):
        list(crew.stream(jobs.double, [(1,)]))


def test_other_versions_are_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(ray_crew, "version", lambda name: f"0 of {name}")
    words = r"has selfdev .* and this one 0 of selfdev; install the same versions on all"
    with Crew(Actors(jobs.start, ("",), 1, 1, Ray()), 1) as crew, pytest.raises(SelfdevError, match=words):
        list(crew.stream(jobs.double, [(1,)]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What one local process finds."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_config(settings(root, **SMALL), folder)
    return rows(folder)


def after(results: int, deed: Callable[[Crew[Any]], None], patch: pytest.MonkeyPatch) -> None:
    """Have something done to the crew when so many results have come, while others are being made."""
    take, count = Crew._take, [0]

    def counted(crew: Crew[Any], member: Any, todo: Jobs) -> Any:
        count[0] += 1
        if count[0] == results:
            deed(crew)
        return take(crew, member, todo)

    patch.setattr(Crew, "_take", counted)


def test_a_killed_actor_loses_nothing_and_does_nothing_twice(
    cluster: Any, root: Path, tmp_path: Path, alone: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill(crew: Crew[Actor]) -> None:
        killed.extend(member.pid for member in crew._busy())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    after(5, kill, monkeypatch)
    run_config(settings(root, **SMALL, workers=2, ray={"address": cluster.address}), tmp_path / "run")
    assert killed
    assert rows(tmp_path / "run") == alone


def test_what_stops_a_run_is_one_sentence_and_it_goes_on(
    cluster: Any, root: Path, tmp_path: Path, alone: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(root, **SMALL, workers=2, ray={"address": cluster.address})
    weights, away = root / "bad" / "model.safetensors", tmp_path / "away"

    def take_away(_: Crew[Any]) -> None:
        shutil.move(weights, away)

    with monkeypatch.context() as patch:
        after(4, take_away, patch)
        with pytest.raises(
            SelfdevError, match=r"bad: .*model\.safetensors was deleted .* put back what it was"
        ):
            run_config(config, tmp_path / "run")
    shutil.move(away, weights)
    with monkeypatch.context() as patch:  # as schedulers end a job
        after(6, lambda _: os.kill(os.getpid(), signal.SIGTERM), patch)
        with pytest.raises(Stop):
            run_config(config, tmp_path / "run")
    run_config(config, tmp_path / "run")
    assert rows(tmp_path / "run") == alone


def test_a_run_ends_on_the_other_node_and_on_one_that_joins(
    cluster: Any, root: Path, tmp_path: Path, alone: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    (second,) = cluster.worker_nodes
    after(6, lambda _: cluster.remove_node(second, allow_graceful=False), monkeypatch)
    after(20, lambda _: cluster.add_node(**NODE, wait=False), monkeypatch)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    shared = {"address": cluster.address, "scratch": str(scratch)}
    run_config(settings(root, **SMALL, workers=2, ray=shared), tmp_path / "run")
    assert rows(tmp_path / "run") == alone
    assert second not in cluster.worker_nodes
    assert len(cluster.worker_nodes) == 1
    assert not list(scratch.iterdir())
