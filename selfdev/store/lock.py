"""One process at a time works in a run folder: the kernel holds the lock, and frees it with the process."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfdev.errors import SelfdevError

NAME = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; SelfdevError says who holds it already, or why it cannot be written."""
    try:
        handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(folder, error.strerror or str(error)) from error
    try:
        _take(folder, handle)
        yield
    finally:
        os.close(handle)  # the lock goes with it


def refuse_if_held(folder: Path) -> None:
    """SelfdevError when another process works in the folder."""
    if (who := holder(folder)) is not None:
        raise _in_use(folder, who)


def holder(folder: Path) -> str | None:
    """Who works in a folder, in words; None when nobody does."""
    if not (folder / NAME).is_file():
        return None
    handle = os.open(folder / NAME, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(handle)
    finally:
        os.close(handle)
    return None


def unwritable(folder: Path, reason: str) -> SelfdevError:
    """What to say of a folder that takes no more."""
    return SelfdevError(
        f"run folder {folder} cannot be written ({reason}); mend that and give the same command again, every"
        " finished attempt is kept."
    )


def _take(folder: Path, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(folder, _holder(handle)) from None
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    taken = {"pid": os.getpid(), "host": platform.node(), "since": now}
    try:
        os.truncate(handle, 0)
        os.write(handle, json.dumps(taken).encode())
    except OSError as error:
        raise unwritable(folder, error.strerror or str(error)) from error


def _in_use(folder: Path, who: str) -> SelfdevError:
    return SelfdevError(f"run folder {folder} is in use by {who}; wait for its end, or give another --out.")


def _holder(handle: int) -> str:
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        return f"process {told['pid']} on {told['host']} since {told['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has only just taken the lock
