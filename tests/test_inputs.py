"""Models and questions that are not what they were stop a run with one sentence, and mended ones do not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Family

from selfdev.checkpoints import Checkpoint, open_checkpoint
from selfdev.errors import SelfdevError
from selfdev.store.archive import Archive
from selfdev.store.inputs import Files, settle_inputs
from selfdev.tasks.questions import Question
from selfdev.tasks.tasks import Task

TASK = Task("t", (Question("1 plus", "1"),), (Question("2 plus", "2"),))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


@pytest.fixture
def model(family: Family, tmp_path: Path) -> Checkpoint:
    return open_checkpoint(shutil.copytree(family.seed, tmp_path / "seed"), "seed")


def weights(model: Checkpoint) -> Path:
    return model.path / "model.safetensors"


def test_files_that_stay_are_fine(model: Checkpoint) -> None:
    Files([model]).check()


def test_a_deleted_file_is_named_with_the_next_step(model: Checkpoint) -> None:
    files = Files([model])
    weights(model).unlink()
    with pytest.raises(SelfdevError, match=r"seed: .*model.safetensors was deleted .* put back what it was"):
        files.check()


def test_a_truncated_file_has_changed_though_it_is_mapped(model: Checkpoint) -> None:
    files = Files([model])
    os.truncate(weights(model), 1000)
    with pytest.raises(SelfdevError, match=r"model.safetensors changed while"):
        files.check()


def test_the_same_inputs_may_go_on(model: Checkpoint, archive: Archive) -> None:
    for _ in range(2):
        settle_inputs(TASK, [model], archive)


def test_a_changed_model_is_refused_until_it_is_put_back(model: Checkpoint, archive: Archive) -> None:
    settle_inputs(TASK, [model], archive)
    content = bytearray(weights(model).read_bytes())
    content[-1] ^= 1
    weights(model).write_bytes(content)
    with pytest.raises(SelfdevError, match=r"model seed \(.*seed\) is not what the run began with; put that"):
        settle_inputs(TASK, [model], archive)
    content[-1] ^= 1
    weights(model).write_bytes(content)
    settle_inputs(TASK, [model], archive)


def test_changed_questions_are_refused(model: Checkpoint, archive: Archive) -> None:
    settle_inputs(TASK, [model], archive)
    other = replace(TASK, test=(Question("2 plus", "3"),))
    with pytest.raises(SelfdevError, match="task t is not what the run began with"):
        settle_inputs(other, [model], archive)
