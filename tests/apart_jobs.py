"""Work for processes of their own, imported there by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from selfdev.errors import SelfdevError
from selfdev.factory.apart import is_first, processes

Tell = Callable[[int, int], None]


def double(number: int, tell: Tell) -> int:
    for step in (1, 2):
        print("words of a library")
        tell(step, 2)
    return 2 * number


def variable(name: str, tell: Tell) -> str | None:  # noqa: ARG001
    return os.environ.get(name)


def refuse(tell: Tell) -> None:  # noqa: ARG001
    raise SelfdevError("the thing is wrong; mend it.")


def fill(tell: Tell) -> None:  # noqa: ARG001
    raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")


def fail(tell: Tell) -> None:  # noqa: ARG001
    raise ZeroDivisionError("nothing to divide by")


def never_end(file: Path, tell: Tell) -> None:
    file.with_name(f"{file.name}{os.getpid()}").touch()
    while True:
        tell(1, 9)
        time.sleep(0.05)


def who(folder: Path, tell: Tell) -> int:
    """Each process leaves a file; the first one's result counts."""
    tell(1, 1)
    (folder / f"{processes()} {is_first()} {os.environ['RANK']}").touch()
    return os.getppid()
