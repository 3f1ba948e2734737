"""`verify` finds every kind of damage in a real run's folder, and nothing in a sound one."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner
from writing_family import build
from writing_run import settings

from selfdev import api
from selfdev.cli.cli import app
from selfdev.collect import config_of
from selfdev.errors import SelfdevError
from selfdev.records import Outcome, State
from selfdev.run import run_config
from selfdev.store.archive import Archive
from selfdev.store.verification import sampled


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run_config(settings(root, task={"first_block": 3}), folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run to damage."""
    return shutil.copytree(finished, tmp_path / "copy")


def change(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "archive.sqlite") as database:
        database.execute(statement)
    database.close()


def test_a_sound_run_is_as_recorded_and_every_attempt_comes_again(finished: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(finished), "--sample", "1000", "--json"])
    result = json.loads(done.stdout)
    assert (result["ok"], result["differences"], done.exit_code) == (True, [], 0)
    assert (result["attempts"], len(result["sampled"])) == (62, 62)
    assert "is as recorded: 62 attempts checked, 62 of them run again" in result["sentence"]


def test_the_sample_is_the_same_each_time_and_of_attempts_that_ended(finished: Path) -> None:
    archive = Archive(finished / "archive.sqlite")
    attempts, config = archive.attempts(), config_of(finished, archive)
    archive.close()
    first, second = (sampled(config, attempts, 5) for _ in range(2))
    assert first == second
    assert len({a.id for a in first}) == 5
    unfinished = [replace(a, outcome=Outcome(State.MERGED)) for a in attempts]
    assert sampled(config, unfinished, 5) == []


def test_a_changed_text_is_named(folder: Path) -> None:
    change(folder, "UPDATE attempts SET text = text || ' ' WHERE id = 2")
    found = api.verify(folder, 0).differences
    assert found == ("attempt 2 (program 1.1): its text does not have the hash it was written with",)


def test_changed_code_is_named(folder: Path) -> None:
    change(folder, "UPDATE attempts SET code = code || '#' WHERE code != '' AND kind = 'factory'")
    assert "its code is not what the gate makes of its text" in api.verify(folder, 0).differences[0]


def test_results_that_do_not_come_again_are_named(folder: Path) -> None:
    damages = {
        "strict": ("zeroblob(length(strict))", "score 0/"),
        "weights_hash": ("'abc'", "weights hash abc is recorded"),
        "fingerprint": ("'abc'", "fingerprint abc is recorded"),
        "state": ("'TIMED_OUT'", "state TIMED_OUT is recorded, SCORED came again"),
    }
    archive = Archive(folder / "archive.sqlite")
    right = [a for a in archive.attempts() if a.score and any(a.score.strict) and not a.same_as]
    archive.close()
    expected = []
    for attempt, (column, (value, words)) in zip(right, damages.items(), strict=False):
        change(folder, f"UPDATE attempts SET {column} = {value} WHERE id = {attempt.id}")
        expected.append((f"attempt {attempt.id} (", words))
    assert len(expected) == 4
    found = api.verify(folder, 1000).differences
    for start, words in expected:
        assert any(line.startswith(start) and words in line for line in found), found


def test_a_difference_exits_with_1_and_one_sentence(folder: Path) -> None:
    change(folder, "UPDATE attempts SET text = 'other'")
    done = CliRunner().invoke(app, ["verify", str(folder), "--sample", "0"])
    assert done.exit_code == 1
    last = done.stdout.splitlines()[-1]
    assert "is not as recorded: attempt 1 (program 1.0): its text" in last
    assert "and 61 more (62 attempts checked, 0 of them run again)." in last


@pytest.mark.parametrize("place", ["factory/iteration_2", "best/model"])
def test_changed_weights_are_named(folder: Path, place: str) -> None:
    file = folder / place / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name] + 1}, file)
    (found,) = api.verify(folder, 0).differences
    assert place in found


def test_a_flipped_page_ends_in_one_sentence(folder: Path) -> None:
    path = folder / "archive.sqlite"
    content = bytearray(path.read_bytes())
    for at in range(4096, len(content), 4096):  # every page but the first
        content[at : at + 100] = bytes(byte ^ 0xFF for byte in content[at : at + 100])
    path.write_bytes(content)
    done = CliRunner().invoke(app, ["verify", str(folder)])
    assert done.exit_code == 1
    assert (done.stdout + done.stderr).count("\n") <= 4
    assert "malformed" in done.output or "not as recorded" in done.output


def test_a_folder_without_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="is not a run folder"):
        api.verify(tmp_path)
