"""What a worker does with its start and its jobs, be it a process of this machine or an actor elsewhere."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any

from selfdev.errors import SelfdevError

Job = tuple[Any, ...]
_FULL = ("can't allocate memory", "CUDA out of memory")


def with_threads(threads: int) -> None:
    """Let libraries that are loaded from here on, and processes started from here on, use so many threads."""
    # Spinning threads of several processes on few cores cost three to twelve times the work itself.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def started(start: Callable[..., None], args: Job) -> Exception | None:
    """Start; what stopped it is kept, to be told at the first job."""
    try:
        start(*args)
    except SelfdevError as error:
        return error
    except Exception as error:
        return _unstarted(error)
    return None


def _unstarted(error: Exception) -> Exception:
    _end_if_out_of_memory(error)
    words = f"a worker process could not start: {type(error).__name__}: {error}"
    return SelfdevError(words) if isinstance(error, OSError) else RuntimeError(words)


def done(work: Callable[..., Any], job: Job, trouble: Exception | None) -> tuple[bool, Any]:
    """Whether the work was done, and its result or what it raised."""
    if trouble is not None:
        return False, trouble
    try:
        return True, work(*job)
    except SelfdevError as error:
        return False, error
    except Exception as error:
        _end_if_out_of_memory(error)
        if isinstance(error, OSError):
            return False, error
        told = RuntimeError(f"{type(error).__name__} in a worker process: {error}")  # any text can travel
        told.add_note(traceback.format_exc())
        return False, told


def _end_if_out_of_memory(error: Exception) -> None:
    """Memory that is full is a death like any other: the next process begins with all of it."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in _FULL):
        os._exit(1)
