"""What is printed at the end of a verb, whatever programs, files and errors hold."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
from test_cli import call

from selfdev.collect import _printed
from selfdev.errors import SelfdevError
from selfdev.records import Attempt, Outcome, State


@dataclass(frozen=True)
class Odd:
    """A result with what a program or a file may hold."""

    parameters: dict[str, object]
    prompt: str = "half a pair: \ud800"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_odd_values_of_a_program_are_printed(monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]) -> None:
    odd = Odd({"K": "a\ud800b", "N": -(1 << 32_000), "L": [1 << 32_000], "T": "\x1b[2J[x]"})
    words = ("merge", "p.py", "--seed", "S", "--expert", "a=A", *more)
    done, _ = call(monkeypatch, "merge", odd, *words)
    assert (done.exit_code, done.stderr) == (0, "")
    shown = "".join(done.stdout.split())
    assert "-0x1000000" in shown
    assert "[2J[x]" in shown
    assert "\x1b" not in shown
    if more:
        assert json.loads(done.stdout)["parameters"]["K"] == "a?b"


def test_a_prompt_that_is_no_unicode_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = call(monkeypatch, "show_prompt", Odd({}), "score", "M", "--show-prompt")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "half a pair: ?", "")


def test_what_fails_while_printing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no\nwords")

    done, _ = call(monkeypatch, "report", Unprintable(), "report", "r")
    assert done.exit_code == 1
    assert done.stderr.startswith("selfdev: unexpected RuntimeError: no words.")


def test_an_error_is_one_line_of_printable_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    error = SelfdevError("tensor 'a\nb\x1b[2J\ud800\u2028' has NaN")
    assert str(error) == "tensor 'a b [2J  ' has NaN"
    done, _ = call(monkeypatch, "run", error, "run", "c.yaml")
    assert done.stderr == f"selfdev: {error}\n"


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    code = """
import types, selfdev
selfdev.api = types.SimpleNamespace(lab_paths=lambda: {"a": "b" * 10**6})
from selfdev.cli.cli import app
app(["lab", "path", "--json"])
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""


def ended(state: State, stderr: str) -> Attempt:
    return Attempt(1, "factory", 1, 0, "", "", "", 0, Outcome(state, stderr=stderr))


def test_the_report_gets_the_last_lines_of_the_first_failure_of_each_state() -> None:
    attempts = [
        ended(State.SCORED, "fine"),
        ended(State.CRASHED, ""),
        ended(State.CRASHED, "x" * 500 + "KeyError\n"),
        ended(State.CRASHED, "later"),
        ended(State.MERGED, "fine"),
        ended(State.TIMED_OUT, "step 7"),
    ]
    assert _printed(attempts) == {"CRASHED": "x" * 392 + "KeyError", "TIMED_OUT": "step 7"}
