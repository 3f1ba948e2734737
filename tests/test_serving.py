"""What a worker says of its start and its jobs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from selfdev.errors import SelfdevError
from selfdev.workers.serving import done, started, with_threads


def raises(error: Exception) -> None:
    raise error


def test_work_that_is_done_gives_its_result() -> None:
    assert started(print, ()) is None
    assert done(divmod, (7, 2), None) == (True, (3, 1))


def test_what_stopped_the_start_is_told_at_the_first_job_and_no_work_is_done() -> None:
    trouble = started(raises, (SelfdevError("no model"),))
    assert done(raises, (ZeroDivisionError(),), trouble) == (False, trouble)
    assert str(trouble) == "no model"


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError("disk"), SelfdevError), (ValueError("bad"), RuntimeError)]
)
def test_a_start_that_fails_says_so(error: Exception, kind: type[Exception]) -> None:
    trouble = started(raises, (error,))
    assert type(trouble) is kind
    assert "a worker process could not start: " in str(trouble)


def test_errors_of_a_job_travel_as_text_with_their_traceback() -> None:
    fine, told = done(raises, (KeyError("x"),), None)
    assert not fine
    assert type(told) is RuntimeError
    assert str(told) == "KeyError in a worker process: 'x'"
    assert "in raises" in told.__notes__[0]


@pytest.mark.parametrize("error", [SelfdevError("a sentence"), OSError(28, "No space left on device")])
def test_errors_that_have_words_for_the_user_travel_as_they_are(error: Exception) -> None:
    assert done(raises, (error,), None) == (False, error)


@pytest.mark.parametrize(
    "error", ["MemoryError()", 'RuntimeError("can\'t allocate memory")', "RuntimeError('CUDA out of memory')"]
)
def test_full_memory_ends_the_process(error: str) -> None:
    code = (
        "from selfdev.workers.serving import done\n"
        f"def work():\n    raise {error}\n"
        "done(work, (), None)\nprint('alive')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")


def test_threads_are_set_for_what_is_started_from_here_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    with_threads(3)
    assert (os.environ["OMP_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"]) == ("3", "true")
