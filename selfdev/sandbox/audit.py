"""Python's audit events: they tell in words what a program tried, and stop it early.

The kernel layers do not depend on this one: a program that gets around it still meets them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

# Prefixes of events that only reach outside the process; see "Audit events table" in the Python manual.
_FORBIDDEN = (
    *("open", "os.", "socket.", "subprocess.", "ctypes.", "shutil.", "tempfile.", "glob.", "pty.", "fcntl."),
    *("mmap.", "signal.", "resource.", "syslog.", "urllib.", "http.", "ftplib.", "smtplib.", "sqlite3."),
    *("webbrowser.", "imaplib.", "nntplib.", "poplib.", "telnetlib.", "ensurepip.", "cpython.run_", "pdb."),
)
_HARMLESS = {"os.putenv", "os.unsetenv", "ctypes.string_at/addressof", "signal.default_int_handler"}


def install(note: Callable[[str], None], devices: tuple[str, ...] = ()) -> None:
    """From now on refuse events that reach outside, and pass a description of each to `note`."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not event.startswith(_FORBIDDEN) or event in _HARMLESS:
            return
        if event == "open" and arguments and arguments[0] in devices:
            return
        what = describe(event, arguments)
        note(what)
        raise PermissionError(f"a program may not use {what}")

    sys.addaudithook(hook)


def describe(event: str, arguments: tuple[object, ...]) -> str:
    """An event as a short call; values that are not plain are left out (their repr could run code)."""
    shown = [repr(a)[:80] for a in arguments if type(a) in (str, bytes, int) and a != -1]
    return f"{event}({', '.join(shown[:2])})"
