"""From what is known of a child's end to a state and one line that would help the program's writer."""

from __future__ import annotations

import re
import signal

from selfdev.records import State
from selfdev.sandbox.layout import Report, Verdict, printable

MAX_REASON = 300
_SAID = {
    Verdict.EXCEPTION: State.CRASHED,
    Verdict.MEMORY: State.OUT_OF_MEMORY,
    Verdict.BAD_WEIGHTS: State.BAD_WEIGHTS,
    Verdict.DENIED: State.FORBIDDEN,
}


def decide(
    exit_code: int | None, stopped: str, output: bytes, report: Report, seconds: float
) -> tuple[State, str]:
    """The state and reason of an ended child.

    `exit_code` is negative for a signal and None when the server was lost; `stopped` says why we killed it.
    """
    state, reason = _by_end(exit_code, stopped, output, report, seconds)
    if report.forbidden and state is not State.FORBIDDEN:
        state, reason = State.FORBIDDEN, f"the program tried {report.forbidden}"
    return state, printable(reason)[:MAX_REASON]


def _by_end(
    exit_code: int | None, stopped: str, output: bytes, report: Report, seconds: float
) -> tuple[State, str]:
    if stopped == "output":
        return State.CRASHED, "the program printed more than 256 kB; print less or nothing"
    if stopped == "time" or exit_code == -signal.SIGXCPU:
        return State.TIMED_OUT, f"not finished after {seconds:g} s; fewer or cheaper operations are needed"
    if exit_code is None:
        return State.CRASHED, "the program took the sandbox server down with it"
    if exit_code < 0:
        return _by_signal(-exit_code, output)
    if exit_code == 0 and report.verdict is Verdict.MERGED:
        return State.MERGED, ""
    if report.verdict in _SAID:
        return _SAID[report.verdict], report.reason
    return State.CRASHED, f"the process ended with exit code {exit_code} before merge_models returned"


def _by_signal(number: int, output: bytes) -> tuple[State, str]:
    where = _line_in(output)
    if number == signal.SIGSYS:
        return State.FORBIDDEN, f"used a system call that a program may not use{where}"
    if number == signal.SIGKILL or (number == signal.SIGABRT and b"bad_alloc" in output):
        return State.OUT_OF_MEMORY, f"out of memory{where}"
    if number in (signal.SIGSEGV, signal.SIGBUS):
        return State.CRASHED, (
            f"memory fault{where}: input tensors are read-only, so an in-place operation on one of them "
            "ends like this; work on x.clone() or write x + y"
        )
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return State.CRASHED, f"ended by {name}{where}"


def _line_in(output: bytes) -> str:
    """Where in the program the fault handler saw it."""
    found = re.search(rb'File "<program>", line (\d{1,6})', output)
    return f" at line {int(found.group(1))} of the program" if found else ""


def tail(output: bytes, length: int = 2_000) -> str:
    """The last lines of what the program printed, without control characters."""
    text = output[-length:].decode("utf-8", "replace")
    lines = [printable_line(line) for line in text.splitlines()]
    return "\n".join(lines[-40:])


def printable_line(line: str) -> str:
    """A line without control characters, indentation kept."""
    return "".join(c if c.isprintable() else " " for c in line).rstrip()
