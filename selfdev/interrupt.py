"""Ctrl-C and SIGTERM: asked once, what is in hand is finished; asked twice, everything stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOLD = b"\nselfdev: the attempts in hand are being finished; Ctrl-C once more stops at once.\n"


class Stop(KeyboardInterrupt):
    """The work was asked to stop, and what was in hand is stored."""


@contextmanager
def gently() -> Iterator[Callable[[], bool]]:
    """Within, the first signal is only noted, which the function given tells; the second one interrupts."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        os.write(2, TOLD)

    with _handled(note):
        yield lambda: asked


@contextmanager
def term_like_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM interrupts as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    with _handled(interrupt, (signal.SIGTERM,)):
        yield


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], numbers: tuple[signal.Signals, ...] = SIGNALS
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
