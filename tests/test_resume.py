"""kill -9 at seeded points of a whole run, whose end must be that of a run that nobody touched.

The driver is a real process with a real archive and kills itself: at any SQL statement, also within a
transaction, between any two results of its workers, and before and after a training has put its factory in
place. Workers are stand-ins here; that of real ones is in `test_crew.py` and `test_workers.py`, and
`scripts/kill_and_resume.py` kills driver and workers of a real run.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeWorkers, silent, small_config

from selfdev.checkpoints import Checkpoint
from selfdev.collect import collect
from selfdev.finish import final_examination, tune_baselines
from selfdev.loop import run_loop
from selfdev.records import Lessons
from selfdev.results import DpoStep, Trained, factory_check
from selfdev.store import hashes
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive

CONFIG = small_config(factory={"programs": 12, "iterations": 3, "batch": 5}, pairs={"min_each": 2})
MODELS = [Checkpoint(name, Path(name), {}, {}) for name in ("seed", "one", "two")]
KILLS = 40
Tick = Callable[[], None]


def nothing() -> None:
    """A tick that does not kill."""


@dataclass
class Ticking(FakeWorkers):
    """Workers whose every result is a point at which the driver may be killed."""

    tick: Tick = nothing

    def _alive(self) -> None:
        self.tick()


@dataclass
class Train:
    """A training whose weights depend on its start and its pairs, and that appears whole or not at all."""

    tick: Tick = nothing
    calls: list[Path] = field(default_factory=list)

    def __call__(self, start: Path, out: Path, lessons: Lessons, seed: int) -> Trained:
        partial = out.with_name(f".{out.name}.partial")
        partial.mkdir(exist_ok=True)
        content = repr((hashes.of_weights(start), lessons.pairs, seed)).encode()
        (partial / "model.safetensors").write_bytes(hashlib.sha256(content).digest())
        self.tick()
        shutil.rmtree(out, ignore_errors=True)
        partial.replace(out)
        self.tick()
        steps = (DpoStep(1, len(lessons.pairs) / 100, 0.1, 1.0),)
        return Trained(steps, factory_check(len(lessons.pairs), 0, 0, 0, None, None))


def whole(folder: Path, tick: Tick = nothing) -> None:
    """A run from its first program to its last examination, or what is missing of it."""
    connect = sqlite3.connect

    def traced(*args: Any, **named: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **named)
        made.set_trace_callback(lambda _: tick())
        return made

    factories = folder / "factory"
    factories.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", traced)
        with open_archive(folder) as archive:
            archive.put("config", CONFIG.model_dump_json())
            workers = Ticking(tick=tick)
            run_loop(CONFIG, Path("seed"), factories, archive, workers, Train(tick), silent)
            tune_baselines(CONFIG, archive, workers, silent)
            best = final_examination(CONFIG, MODELS[0], MODELS[1:], archive, workers, silent)
            archive.put("best", best.name)


def everything(folder: Path) -> dict[str, Any]:
    """All that a run found, without the time it took."""
    archive = Archive(folder / "archive.sqlite")
    turns = range(1, CONFIG.factory.iterations + 1)
    found = {
        "attempts": archive.attempts(),
        "pairs": [archive.pairs(t) for t in turns],
        "training": [archive.training(t) for t in turns],
        "factories": archive.factories(),
        "weights": {p.name: hashes.of_weights(p) for p in sorted((folder / "factory").glob("iteration_*"))},
        "examined": {split: archive.examined(split) for split in ("finalist_dev", "test")},
        "opened": archive.events("test opened"),
        "result": replace(collect(folder, archive), seconds=0.0, stage_seconds={}),
    }
    archive.close()
    return found


def killed(folder: Path, point: int) -> bool:
    """Run in a process that kills itself at a point; False where the run was over before."""
    left = point

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of fork where there are threads
        child = os.fork()
    if child == 0:
        try:
            whole(folder, tick)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What a run finds that nobody touched, and the points at which it could have been killed."""
    folder, ticks = tmp_path_factory.mktemp("untouched"), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    whole(folder, tick)
    return everything(folder), ticks


def test_the_run_is_one_worth_killing(untouched: tuple[dict[str, Any], int]) -> None:
    found, ticks = untouched
    assert ticks > 10 * KILLS
    assert sorted(found["weights"]) == ["iteration_2", "iteration_3"]
    assert found["factories"] == {2: found["weights"]["iteration_2"], 3: found["weights"]["iteration_3"]}
    assert len(found["opened"]) == 1
    assert len(set(found["weights"].values())) == 2


@pytest.mark.parametrize("number", range(KILLS // 2))
def test_a_run_killed_twice_ends_like_one_that_nobody_touched(
    untouched: tuple[dict[str, Any], int], tmp_path: Path, number: int
) -> None:
    expected, ticks = untouched
    rng = random.Random(f"kill {number}")
    assert killed(tmp_path, rng.randrange(1, ticks))
    killed(tmp_path, rng.randrange(1, ticks // 2))
    whole(tmp_path)
    assert everything(tmp_path) == expected
