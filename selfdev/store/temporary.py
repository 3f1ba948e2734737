"""Folders that nobody keeps. What a killed process left is removed by the next command.

With models of billions of parameters that is gigabytes, in a place that may itself be memory.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "selfdev-"
OWNER = "owner"  # a file that is locked as long as the process lives whose folder it is


@contextmanager
def temporary_folder(place: Path | None = None) -> Iterator[Path]:
    """A folder in `place`, or where the system has such folders, that is gone at the end; OSError where none
    can be made."""
    root = Path(place or tempfile.gettempdir())
    for left in root.glob(f"{PREFIX}*"):
        _remove_if_left(left)
    made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=root)
    handle = os.open(Path(made.name) / f".{OWNER}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with made:
            with suppress(OSError):  # a file system without locks: then it stays where we are killed
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(handle, platform.node().encode())
                # Seen by others only when it is locked.
                Path(made.name, f".{OWNER}").rename(Path(made.name, OWNER))
            yield Path(made.name)
    finally:
        os.close(handle)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder of this user whose process, on this machine, is no more."""
    with suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
        handle = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Some file systems that several machines see lock for each machine alone.
            if os.read(handle, 256) == platform.node().encode():
                shutil.rmtree(folder)
        finally:
            os.close(handle)
