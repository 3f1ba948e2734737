"""The run folder as the verbs open it: locked, with its archive, and what goes wrong with the disk told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfdev.errors import SelfdevError
from selfdev.store.archive import Archive, damaged
from selfdev.store.lock import locked, unwritable


@contextmanager
def open_archive(folder: Path) -> Iterator[Archive]:
    """The archive of a run folder, made where there is none, with the folder locked for this process.

    SelfdevError when it cannot be made there or another process works there, and for what goes wrong with
    the disk within: everything that was stored stays, and the same command goes on.
    """
    _make(folder)
    with locked(folder), telling(folder):
        archive = Archive(folder / "archive.sqlite", create=True)
        try:
            yield archive
        finally:
            archive.close()


@contextmanager
def telling(folder: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with the disk or with the archive's file."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError):
            raise unwritable(folder, str(error)) from error
        if type(error) is sqlite3.DatabaseError:
            raise damaged(folder / "archive.sqlite", error) from error
        raise
    except Exception as error:
        if "No space left on device" in str(error):  # libraries have exceptions of their own for it
            raise unwritable(folder, "no space left on device") from error
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise SelfdevError(
            f"run folder {folder} cannot be made ({reason}); choose another folder with --out."
        ) from error
