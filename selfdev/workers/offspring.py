"""A child process that ends with its parent and leaves Ctrl-C and SIGTERM to it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def die_with(parent: int) -> None:
    """Ask Linux to end this process with its parent, so that kill -9 of the driver leaves nothing behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the driver's to handle; a group gets them all
        signal.signal(number, signal.SIG_IGN)
