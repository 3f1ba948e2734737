"""How the command begins: with large pages for merges, once, and with threads that do not spin."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from selfdev import __main__ as entry
from selfdev.workers.heap import LARGE_PAGES, TUNABLES, with_large_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunables are Linux's")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The programs that this process would have become."""
    found: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: found.append((program, words)))
    monkeypatch.delenv(TUNABLES, raising=False)
    return found


def test_a_process_begins_anew_with_the_same_words(
    begun: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "selfdev", "merge", "ties"])
    with_large_pages()
    assert begun == [(sys.executable, [sys.executable, "-m", "selfdev", "merge", "ties"])]
    assert os.environ[TUNABLES] == LARGE_PAGES
    with_large_pages()
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("given", "after", "times"),
    [
        ("glibc.malloc.check=3", f"glibc.malloc.check=3:{LARGE_PAGES}", 1),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0", 0),
    ],
)
def test_what_the_user_has_set_stays(
    begun: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch, given: str, after: str, times: int
) -> None:
    monkeypatch.setenv(TUNABLES, given)
    with_large_pages()
    assert (os.environ[TUNABLES], len(begun)) == (after, times)


@pytest.mark.parametrize(("verb", "expected"), [("merge", ["pages", "command"]), ("score", ["command"])])
def test_only_a_merge_asks_for_them(monkeypatch: pytest.MonkeyPatch, verb: str, expected: list[str]) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    done: list[str] = []
    monkeypatch.setattr(sys, "argv", ["selfdev", verb])
    monkeypatch.setattr(entry, "with_large_pages", lambda: done.append("pages"))
    monkeypatch.setattr("selfdev.cli.cli.main", lambda: done.append("command"))
    entry.main()
    assert done == expected


@pytest.mark.parametrize(("given", "after"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_do_not_spin_unless_asked(
    monkeypatch: pytest.MonkeyPatch, given: str | None, after: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    monkeypatch.setattr(sys, "argv", ["selfdev", "score"])
    monkeypatch.setattr("selfdev.cli.cli.main", lambda: None)
    entry.main()
    assert os.environ["OMP_WAIT_POLICY"] == after


def test_the_command_still_says_what_is_wrong() -> None:
    words = [sys.executable, "-m", "selfdev", "merge", "linear", "--seed", "nowhere", "--expert", "a=nowhere"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("selfdev: seed: nowhere does not exist")
