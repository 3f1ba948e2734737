"""Which device models get: GPUs that are there, in turn; a clear word where there is none."""

from __future__ import annotations

import os
import signal

import crew_jobs as jobs
import pytest
import torch

from selfdev.errors import SelfdevError
from selfdev.workers.crew import Crew
from selfdev.workers.devices import VISIBLE, gpus, resolve
from selfdev.workers.processes import Process, Processes


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(VISIBLE, raising=False)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_models_compute_on_the_cpu(no_gpu: None) -> None:  # noqa: ARG001
    assert (resolve("auto"), resolve("cpu"), gpus("auto")) == ("cpu", "cpu", ())
    with pytest.raises(SelfdevError, match="device is cuda and torch sees no GPU here; install"):
        resolve("cuda")


def test_gpus_are_used_where_they_are(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    assert (resolve("auto"), resolve("cuda"), resolve("cpu")) == ("cuda", "cuda", "cpu")
    assert (gpus("auto"), gpus("cpu")) == (("0", "1"), ())
    monkeypatch.setenv(VISIBLE, "5,GPU-ab")
    assert gpus("cuda") == ("5", "GPU-ab")


def test_each_process_sees_one_gpu_and_its_successor_the_same(tmp_path: object) -> None:
    with Crew(Processes(jobs.start, (str(tmp_path),), ("4", "7")), 3) as crew:
        first = _seen(crew)
        assert sorted(gpu or "" for gpu in first.values()) == ["4", "4", "7"]
        lost = next(pid for pid, gpu in first.items() if gpu == "7")
        os.kill(lost, signal.SIGKILL)
        assert sorted(gpu or "" for gpu in _seen(crew).values()) == ["4", "4", "7"]


def test_without_gpus_processes_see_what_this_one_sees(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "3")
    with Crew(Processes(jobs.start, (str(tmp_path),)), 1) as crew:
        assert set(_seen(crew).values()) == {"3"}


def _seen(crew: Crew[Process]) -> dict[int, str | None]:
    """What each process sees."""
    return dict(dict(crew.stream(jobs.sees, [(VISIBLE,)] * 60)).values())
