"""What goes wrong with the disk ends in one sentence; once it is mended, nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeTrain, FakeWorkers, silent, small_config

from selfdev.collect import finished_archive
from selfdev.errors import SelfdevError
from selfdev.loop import run_loop
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive

CONFIG = small_config()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB, which needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: that needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def loop(folder: Path) -> None:
    (folder / "factory").mkdir(parents=True, exist_ok=True)
    with open_archive(folder) as archive:
        run_loop(CONFIG, Path("seed"), folder / "factory", archive, FakeWorkers(), FakeTrain(), silent)


def attempts(folder: Path) -> list[object]:
    archive = Archive(folder / "archive.sqlite")
    found: list[object] = list(archive.attempts())
    archive.close()
    return found


def test_a_full_disk_is_told_and_once_there_is_room_the_run_goes_on(small_disk: Path, tmp_path: Path) -> None:
    filler = small_disk / "filler"
    with open_archive(small_disk):
        free = os.statvfs(small_disk)
        filler.write_bytes(bytes(max(0, free.f_bavail * free.f_bsize - 8192)))
    with pytest.raises(
        SelfdevError, match=r"run folder .*disk cannot be written \(.*(full|space|I/O).*\); mend"
    ):
        loop(small_disk)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    loop(small_disk)
    loop(tmp_path / "whole")
    assert attempts(small_disk) == attempts(tmp_path / "whole")


def test_a_read_only_folder_is_told(small_disk: Path) -> None:
    folder = small_disk / "run"
    (folder / "factory").mkdir(parents=True)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(
        SelfdevError, match=r"cannot be written \(Read-only file system\); mend that and give"
    ):
        loop(folder)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "factory/iteration_2/model.safetensors"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_whatever_library_notices_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(SelfdevError, match=r"cannot be written \(no space left on device\)"):  # noqa: SIM117
        with open_archive(tmp_path):
            raise error


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_archive(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize("kept", [100, 4096, 20_000])
def test_a_truncated_archive_is_told_and_a_copy_put_back_goes_on(tmp_path: Path, kept: int) -> None:
    loop(tmp_path)
    path = tmp_path / "archive.sqlite"
    whole, before = path.read_bytes(), attempts(tmp_path)
    os.truncate(path, kept)
    with pytest.raises(
        SelfdevError, match=r"archive .*archive.sqlite is damaged \(.*\); put back a copy of it"
    ):
        loop(tmp_path)
    path.write_bytes(whole)
    loop(tmp_path)
    assert attempts(tmp_path) == before


@pytest.mark.parametrize(
    "open_it", [loop, lambda folder: list(finished_archive(folder).__enter__().attempts())]
)
def test_a_flipped_page_is_told(tmp_path: Path, open_it: object) -> None:
    loop(tmp_path)
    path = tmp_path / "archive.sqlite"
    with open_archive(tmp_path) as archive:
        archive.put("best", "seed")
    content = bytearray(path.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 8] = bytes(byte ^ 0xFF for byte in content[at : at + 8])
    path.write_bytes(content)
    assert callable(open_it)
    with pytest.raises(SelfdevError, match=r"is damaged \("):
        open_it(tmp_path)


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 2e9

    def backwards() -> float:
        nonlocal now
        now -= 3600
        return now

    monkeypatch.setattr(time, "time", backwards)
    loop(tmp_path / "back")
    monkeypatch.undo()
    loop(tmp_path / "plain")
    assert attempts(tmp_path / "back") == attempts(tmp_path / "plain")


def test_a_factory_that_was_deleted_is_trained_again(tmp_path: Path) -> None:
    loop(tmp_path)
    before = attempts(tmp_path)
    (tmp_path / "factory" / "iteration_2").rmdir()
    loop(tmp_path)
    assert (tmp_path / "factory" / "iteration_2").is_dir()
    assert attempts(tmp_path) == before
