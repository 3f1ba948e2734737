"""Folders that nobody keeps: gone at the end, and after a kill with the next one."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from selfdev.store.temporary import temporary_folder

DIES = """
import os, signal, sys
from pathlib import Path
from selfdev.store.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "large").mkdir()
    (folder / "large" / "weights").write_text("x")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_behind(place: Path) -> Path:
    """The folder of a process that was killed."""
    words = [sys.executable, "-c", DIES, str(place)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == -9
    return Path(ended.stdout.strip())


def test_a_folder_is_gone_at_its_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = left_behind(tmp_path)
    assert (left / "large" / "weights").is_file()
    with temporary_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_folders_of_living_processes_and_of_others_stay(tmp_path: Path) -> None:
    mine = tmp_path / "selfdev-notes"
    mine.mkdir()
    (tmp_path / "selfdev-link").symlink_to(left_behind(tmp_path / "selfdev-notes"))
    with temporary_folder(tmp_path) as first, temporary_folder(tmp_path) as second:
        assert set(tmp_path.iterdir()) == {first, second, mine, tmp_path / "selfdev-link"}
    assert (tmp_path / "selfdev-link" / "large").is_dir()


def test_what_another_machine_left_is_its_own_affair(tmp_path: Path) -> None:
    left = left_behind(tmp_path)
    (left / "owner").write_text("another")
    with temporary_folder(tmp_path):
        assert left.is_dir()


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary_folder(tmp_path) as first, temporary_folder(tmp_path):
        assert first.is_dir()
    assert list(tmp_path.iterdir()) == []
