"""A run folder is held by one process, and by nobody once that process is gone."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import small_config

from selfdev import run
from selfdev.collect import load_result
from selfdev.errors import SelfdevError
from selfdev.evidence import compare, transfer, tune
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.store.lock import locked

HOLD = """
import sys
from pathlib import Path
from selfdev.store.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in the folder."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_folder_says_who_holds_it_and_since_when(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(SelfdevError) as told, open_archive(tmp_path):
        pass
    words = (
        rf"run folder {tmp_path} is in use by process {holder.pid} on \S+ since (20\d\d-\d\d-\d\d [\d:]+); "
    )
    assert re.match(words, str(told.value))
    assert not (tmp_path / "archive.sqlite").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_goes_with_its_process(
    holder: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    holder.send_signal(number)
    holder.wait()
    with open_archive(tmp_path) as archive:
        assert archive.attempts() == []


def test_a_folder_is_free_again_when_its_work_is_done(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path):
            pass


def test_it_holds_within_one_process_too(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(SelfdevError, match="is in use by process"), locked(tmp_path):
        pass


def test_a_run_that_goes_on_elsewhere_is_not_called_unfinished(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    Archive(tmp_path / "archive.sqlite", create=True).close()
    with pytest.raises(SelfdevError, match=f"in use by process {holder.pid}"):
        load_result(tmp_path)


def test_every_verb_that_writes_takes_the_lock(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = SimpleNamespace(experts=(), shown=[SimpleNamespace(slots=())])
    for module in (run, tune, transfer):
        monkeypatch.setattr(module, "open_models", lambda _: models)
        monkeypatch.setattr(module, "check_questions", lambda _: None)
    monkeypatch.setattr(tune, "space_of", lambda *_, **__: None)
    config = small_config()
    home = transfer.Home(tmp_path, small_config(task={"name": "gsm8k"}), "seed", {}, {})
    monkeypatch.setattr(transfer, "read_home", lambda _: home)
    finished = tmp_path / "finished"
    finished.mkdir()
    with open_archive(finished) as archive:
        archive.put("config", config.model_dump_json())
        archive.put("best", "seed")
    for verb in (
        lambda: run.run_config(config, tmp_path),
        lambda: tune.tune(config, tmp_path),
        lambda: compare.compare(finished, tmp_path),
        lambda: transfer.transfer_run(tmp_path, config, tmp_path),
    ):
        with pytest.raises(SelfdevError, match=f"in use by process {holder.pid}"):
            verb()
