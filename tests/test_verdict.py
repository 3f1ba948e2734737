"""From the end of a child to a state and a sentence, and the memory it speaks through, case by case."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator

import pytest

from selfdev.records import State
from selfdev.sandbox import layout
from selfdev.sandbox.layout import Report, Status, Verdict, arrange, printable
from selfdev.sandbox.verdict import decide, tail

SILENT = Report(0, Verdict.NOTHING, "", "")
FAULT = b'Fatal Python error: Segmentation fault\n  File "<program>", line 7 in merge_models\n'


def said(verdict: Verdict, reason: str = "", forbidden: str = "") -> Report:
    return Report(1, verdict, reason, forbidden)


@pytest.mark.parametrize(
    ("code", "stopped", "output", "report", "state", "reason"),
    [
        (0, "", b"", said(Verdict.MERGED), State.MERGED, ""),
        (1, "", b"", said(Verdict.EXCEPTION, "ValueError: x"), State.CRASHED, "ValueError: x"),
        (1, "", b"", said(Verdict.MEMORY, "no memory"), State.OUT_OF_MEMORY, "no memory"),
        (1, "", b"", said(Verdict.BAD_WEIGHTS, "lacks a"), State.BAD_WEIGHTS, "lacks a"),
        (1, "", b"", said(Verdict.DENIED, "denied"), State.FORBIDDEN, "denied"),
        (3, "", b"", SILENT, State.CRASHED, "the process ended with exit code 3 before merge_models"),
        (None, "", b"", SILENT, State.CRASHED, "the program took the sandbox server down with it"),
        (-9, "time", b"", SILENT, State.TIMED_OUT, "not finished after 2.5 s; fewer or cheaper"),
        (-9, "output", b"", SILENT, State.CRASHED, "the program printed more than 256 kB"),
        (-signal.SIGXCPU, "", b"", SILENT, State.TIMED_OUT, "not finished after 2.5 s"),
        (-signal.SIGSYS, "", b"", SILENT, State.FORBIDDEN, "used a system call that a program may not use"),
        (-signal.SIGKILL, "", b"", SILENT, State.OUT_OF_MEMORY, "out of memory"),
        (-signal.SIGABRT, "", b"std::bad_alloc", SILENT, State.OUT_OF_MEMORY, "out of memory"),
        (-signal.SIGABRT, "", b"", SILENT, State.CRASHED, "ended by SIGABRT"),
        (-signal.SIGSEGV, "", FAULT, SILENT, State.CRASHED, "memory fault at line 7 of the program: input"),
        (-signal.SIGBUS, "", b"", SILENT, State.CRASHED, "memory fault: input tensors are read-only"),
        (-77, "", b"", SILENT, State.CRASHED, "ended by signal 77"),
    ],
)
def test_every_end_has_a_state_and_a_sentence(
    code: int | None, stopped: str, output: bytes, report: Report, state: State, reason: str
) -> None:
    found, words = decide(code, stopped, output, report, 2.5)
    assert found is state
    assert words.startswith(reason)


def test_what_a_layer_noted_is_told_whatever_the_program_says_of_itself() -> None:
    lying = said(Verdict.MERGED, forbidden="to open a socket")
    assert decide(0, "", b"", lying, 1.0) == (State.FORBIDDEN, "the program tried to open a socket")
    denied = said(Verdict.DENIED, "PermissionError: /etc", forbidden="to open /etc")
    assert decide(1, "", b"", denied, 1.0) == (State.FORBIDDEN, "PermissionError: /etc")


def test_merged_with_another_exit_code_is_no_result() -> None:
    assert decide(1, "", b"", said(Verdict.MERGED), 1.0)[0] is State.CRASHED


def test_a_reason_is_one_line_of_at_most_300_printable_characters() -> None:
    _, words = decide(1, "", b"", said(Verdict.EXCEPTION, "a\x1b[31mb\n" + "x" * 999), 1.0)
    assert words.startswith("a [31mb x")
    assert len(words) == 300
    assert words.isprintable()


def test_the_tail_keeps_the_last_forty_lines_and_their_indentation() -> None:
    printed = "".join(f"  line {n}\x07\n" for n in range(100)).encode()
    lines = tail(printed).split("\n")
    assert (len(lines), lines[0], lines[-1]) == (40, "  line 60", "  line 99")


@pytest.fixture
def both() -> Iterator[tuple[Status, Status, int]]:
    """The status area seen by parent and child, and its descriptor."""
    handle = layout.shared_memory(layout.STATUS_BYTES)
    parent, child = Status(handle), Status(handle)
    yield parent, child, handle
    parent.close()
    child.close()
    os.close(handle)


def test_a_job_goes_in_and_a_report_comes_out(both: tuple[Status, Status, int]) -> None:
    parent, child, _ = both
    parent.put_job("def merge_models(models, device): ...  # \ud800 ü", 2**63 + 5)
    assert child.take_job() == ("def merge_models(models, device): ...  # \ud800 ü", 5)
    assert parent.report() == SILENT
    child.enter(123)
    child.forbid("to open /etc/passwd")
    child.forbid("what came later")
    child.conclude(Verdict.EXCEPTION, "ValueError: no")
    expected = Report(123, Verdict.EXCEPTION, "ValueError: no", "to open /etc/passwd")
    assert parent.report() == expected


def test_a_new_job_finds_nothing_of_the_last(both: tuple[Status, Status, int]) -> None:
    parent, child, _ = both
    parent.put_job("secret", 1)
    child.conclude(Verdict.MERGED, "left behind")
    child.forbid("x")
    parent.put_job("", 0)
    assert child.take_job() == ("", 0)
    assert parent.report() == SILENT


def test_a_forged_report_is_bounded_and_harmless(both: tuple[Status, Status, int]) -> None:
    parent, _, handle = both
    head = struct.pack("=QIIIIQ", 2**64 - 1, 999, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**64 - 1)
    os.pwrite(handle, head + b"\xff\x00\x1b" * 5000, 0)
    found = parent.report()
    assert found.verdict is Verdict.NOTHING
    assert max(len(found.reason), len(found.forbidden)) <= 1800
    assert (found.reason + found.forbidden).isprintable()


def test_long_reasons_are_cut(both: tuple[Status, Status, int]) -> None:
    parent, child, _ = both
    child.conclude(Verdict.EXCEPTION, "ü" * 5000)
    assert set(parent.report().reason.rstrip("\ufffd")) == {"ü"}
    assert len(parent.report().reason) <= 901


def test_tensors_lie_one_after_another_each_aligned() -> None:
    places = arrange(
        [("a", "BF16", (3,), 6), ("b", "F32", (), 4), ("c", "F32", (0,), 0), ("d", "F16", (40,), 80)]
    )
    assert [(p.name, p.offset) for p in places] == [("a", 0), ("b", 64), ("c", 128), ("d", 128)]
    assert layout.size(places) == 256
    assert layout.size([]) == 64


def test_printable_text_has_no_control_characters() -> None:
    assert printable("a\tb\x00c\r\nd ") == "a b c  d"
