"""Ctrl-C and SIGTERM: noted once, an interrupt the second time, and one sentence on the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from selfdev.interrupt import gently, term_like_ctrl_c

BOTH = [signal.SIGINT, signal.SIGTERM]
VERB = """
import signal, time, typer
from selfdev.cli.answer import answer
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit that it is ignored
def work():
    print("at work", flush=True)
    time.sleep(60)
typer.run(lambda: answer(work, print, False))
"""


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_told(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with gently() as stopping:
        assert not stopping()
        os.kill(os.getpid(), number)
        assert stopping()
    assert "being finished; Ctrl-C once more stops at once" in capfd.readouterr().err


def test_the_second_signal_interrupts() -> None:
    with gently():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with gently(), term_like_ctrl_c():
        assert [signal.getsignal(number) for number in BOTH] != before
    assert [signal.getsignal(number) for number in BOTH] == before


def test_other_threads_are_left_alone() -> None:
    told: list[bool] = []

    def work() -> None:
        with gently() as stopping, term_like_ctrl_c():
            told.append(stopping())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]


@pytest.mark.parametrize("number", BOTH)
def test_a_verb_ends_in_one_sentence_and_130(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", VERB], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline() == "at work\n"  # stdout is for the result alone
        process.send_signal(number)
        assert "Interrupted; " in process.stderr.read()
        assert process.wait() == 130
