"""Jobs for the processes of a crew, from nothing to murder; light, so that a process starts at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from selfdev.errors import SelfdevError


def start(folder: str) -> None:
    """Note every process that starts."""
    (Path(folder) / f"started {os.getpid()}").touch()


def no_start(words: str) -> None:
    raise {"error": SelfdevError, "disk": OSError, "bug": KeyError}[words](words)


def die_at_start(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def double(number: int) -> int:
    return 2 * number


def slow(number: int) -> int:
    time.sleep(0.3)
    return number


def sees(name: str) -> tuple[int, str | None]:
    """This process and a variable of its environment; slow enough for every process to take part."""
    time.sleep(0.05)
    return os.getpid(), os.environ.get(name)


def die(number: int, folder: str, deaths: int) -> int:
    """Die the first `deaths` times that this number is tried; each time is noted."""
    tried = len(list(Path(folder).glob(f"{number} *")))
    (Path(folder) / f"{number} {tried}").touch()
    if tried < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fill_memory(_: int) -> None:
    raise MemoryError


def fail(kind: str) -> None:
    raise {"error": SelfdevError, "disk": OSError, "bug": KeyError}[kind](kind)


def hang(number: int, folder: str) -> int:
    """Take a minute the first time that this number is tried."""
    tried = Path(folder) / f"hung {number}"
    if not tried.exists():
        tried.touch()
        time.sleep(60)
    return number


def where(_: int) -> tuple[int, str]:
    """A short while, the process and its threads."""
    time.sleep(0.2)
    return os.getpid(), os.environ["OMP_NUM_THREADS"]
