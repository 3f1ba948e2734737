"""What a run in the making looks like from outside, at points where it was killed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import QUESTIONS, FakeTrain, FakeWorkers, Killed, of_accuracy, silent, small_config
from rich.console import Console
from typer.testing import CliRunner

from selfdev.cli.cli import app
from selfdev.cli.watch import view
from selfdev.errors import SelfdevError
from selfdev.finish import tune_baselines
from selfdev.loop import run_loop
from selfdev.store.archive import Archive
from selfdev.store.lock import locked
from selfdev.watching import Seen, look, watch

CONFIG = small_config(factory={"programs": 30, "iterations": 2, "batch": 7, "max_new_tokens": 3})
BATCHES = 5


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    opened.put("config", CONFIG.model_dump_json())
    yield opened
    opened.close()


def run(archive: Archive, folder: Path, lives: int = 10**9) -> None:
    (folder / "factory").mkdir(exist_ok=True)
    with suppress(Killed):
        run_loop(
            CONFIG, Path("seed"), folder / "factory", archive, FakeWorkers(lives=lives), FakeTrain(), silent
        )


def finish(archive: Archive) -> None:
    archive.add_examined("seed", "seed", "test", None, of_accuracy(9))
    archive.put("best", "seed")


def stage(folder: Path) -> tuple[str, int, int]:
    seen = look(folder)
    return seen.stage, seen.done, seen.total


def test_a_run_that_has_written_nothing_is_writing(archive: Archive, tmp_path: Path) -> None:  # noqa: ARG001
    assert stage(tmp_path) == ("iteration 1: write", 0, 30)


@pytest.mark.parametrize(("lives", "done"), [(BATCHES, 0), (BATCHES + 4, 4), (BATCHES + 29, 29)])
def test_programs_on_their_probes_are_counted(
    archive: Archive, tmp_path: Path, lives: int, done: int
) -> None:
    run(archive, tmp_path, lives)
    assert stage(tmp_path) == ("iteration 1: gate and probes", done, 30)


def test_programs_that_are_over_are_counted(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path, BATCHES + 30 + 2)
    failed = sum(a.outcome.state.value in ("INVALID", "CRASHED") for a in archive.attempts())
    assert stage(tmp_path) == ("iteration 1: run and score", failed + 2, 30)
    assert len([one for one in look(tmp_path).latest if one.accuracy is not None]) <= 2


def test_after_the_search_come_baselines_and_the_examination(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    assert stage(tmp_path) == ("baselines", 0, 0)
    tune_baselines(CONFIG, archive, FakeWorkers(), silent)
    assert stage(tmp_path) == ("finalist_dev", 0, 0)
    archive.add_examined("seed", "seed", "test", None, of_accuracy(9))
    assert stage(tmp_path) == ("test", 1, 0)


def test_the_best_program_is_told_with_its_interval(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    best = look(tmp_path).best
    assert best is not None
    assert best.accuracy == max(a.score.accuracy for a in archive.attempts("factory") if a.score)
    assert (best.low, best.high) == of_accuracy(round(best.accuracy * QUESTIONS)).interval
    assert len(look(tmp_path).iterations) == 2


def test_a_run_is_running_while_somebody_holds_it(archive: Archive, tmp_path: Path) -> None:
    assert look(tmp_path).state == "stopped"
    with locked(tmp_path):
        seen = look(tmp_path)
        assert (seen.state, (seen.holder or "")[:8]) == ("running", "process ")
    finish(archive)
    assert (look(tmp_path).state, look(tmp_path).stage) == ("finished", "")


def test_watching_goes_on_until_the_run_ends(archive: Archive, tmp_path: Path) -> None:
    shown: list[Seen] = []
    with locked(tmp_path):

        def wait() -> None:
            if len(shown) == 3:
                raise InterruptedError  # it would have waited again

        with pytest.raises(InterruptedError):
            watch(tmp_path, shown.append, wait)
    finish(archive)
    assert watch(tmp_path, shown.append, lambda: None).state == "finished"
    assert [seen.state for seen in shown] == ["running"] * 3 + ["finished"]


def test_the_view_names_stage_best_and_failures(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path, BATCHES + 30 + 20)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(view(look(tmp_path)))
    text = console.export_text()
    assert "small: stopped · give its command again to go on · iteration" in text
    assert "best on dev so far: program 1." in text
    assert "program 2.26: CRASHED, on the probes" in text


def test_the_command_prints_one_object(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    told = json.loads(CliRunner().invoke(app, ["watch", str(tmp_path), "--json"]).stdout)
    assert (told["state"], told["stage"], told["iterations"][0]["written"]) == ("stopped", "baselines", 30)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="is not a run folder"):
        look(tmp_path)
    Archive(tmp_path / "archive.sqlite", create=True).close()
    with pytest.raises(SelfdevError, match="only just begun"):
        look(tmp_path)
