"""Processes that do jobs one at a time. One that dies is replaced and its job handed out again.

A job that takes its process with it each time is given up, which is no result of the job's: killed or out of
memory is a fault of ours. Several such jobs in a row, with no result between them, are no fault of the jobs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from selfdev.errors import SelfdevError
from selfdev.interrupt import Stop
from selfdev.workers.offspring import die_with

AGAIN = 3  # times a job is handed out again after its process died
HOPELESS = 3  # jobs given up with no result between them that stop the work
LOOK = 0.5  # seconds after which a signal is noticed

Job = tuple[Any, ...]


class Crew:
    """`count` processes that call `start(*args)` once, when there is a first job; a context manager.

    While `stopping` says so no job is handed out.
    """

    def __init__(
        self, start: Callable[..., None], args: Job, count: int, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._start, self._args = start, args
        self._count = count
        self._stopping = stopping
        self._members: list[_Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for member in self._members:
            member.end(patience=10 if kind is None else 0)
        self._members.clear()

    @property
    def pids(self) -> list[int]:
        """The processes that are there now."""
        return [member.pid for member in self._members]

    def stream(
        self, work: Callable[..., Any], jobs: Iterable[Job], lost: Callable[[str], Any] | None = None,
        finish: bool = True,
    ) -> Iterator[tuple[int, Any]]:  # fmt: skip
        """What `work` gives for each job, as (place, result) in the order they are done; jobs are taken from
        `jobs` as processes get free.

        `lost` makes the result of a job that was given up, from the reason; without it that is an error. When
        stopping, jobs in hand are finished, or not, and then Stop is raised.
        """
        todo = _Jobs(enumerate(jobs), patience=HOPELESS if lost else 1)
        try:
            self._hand_out(work, todo)
            while busy := [m for m in self._members if m.job is not None]:
                ready = wait([m.line for m in busy], LOOK)
                for member in [m for m in busy if m.line in ready]:
                    done = self._take(member, todo)
                    self._hand_out(work, todo)
                    if done is not None:
                        yield from todo.given_up(lost)
                        yield done
                if self._stopping() and not finish:
                    break
            yield from todo.given_up(lost)
            if self._stopping() and (not finish or todo.next() is not None):
                raise Stop
        finally:
            self._drop_busy()

    def _hand_out(self, work: Callable[..., Any], todo: _Jobs) -> None:
        """Give every idle process its next job."""
        while not self._stopping() and (len(self._members) < self._count or self._idle()):
            job = todo.next()
            if job is None:
                return
            while len(self._members) < self._count:
                self._members.append(_Member(self._start, self._args))
            member = self._idle()[0]
            try:
                member.give(work, job)
            except OSError:  # it died while it had nothing to do
                self._replace(member).give(work, job)

    def _idle(self) -> list[_Member]:
        return [member for member in self._members if member.job is None]

    def _take(self, member: _Member, todo: _Jobs) -> tuple[int, Any] | None:
        """The result of a process that answered; None when it has died instead."""
        assert member.job is not None
        job, member.job = member.job, None
        try:
            fine, result = member.line.recv()
        except (EOFError, OSError):
            self._replace(member)
            todo.died(job, member.ending)
            return None
        if not fine:
            raise result
        return job[0], result

    def _replace(self, dead: _Member) -> _Member:
        dead.end(patience=5)
        fresh = _Member(self._start, self._args)
        self._members[self._members.index(dead)] = fresh
        return fresh

    def _drop_busy(self) -> None:
        """Nobody waits for what these processes do: their answers must not reach the next stream."""
        for member in [m for m in self._members if m.job is not None]:
            member.end(patience=0)
            self._members.remove(member)


@dataclass
class _Jobs:
    """The jobs of one stream: which are next, and which took their process with them."""

    queue: Iterator[tuple[int, Job]]
    patience: int
    again: list[tuple[int, Job]] = field(default_factory=list)
    deaths: Counter[int] = field(default_factory=Counter)
    lost: list[tuple[int, str]] = field(default_factory=list)

    def next(self) -> tuple[int, Job] | None:
        return self.again.pop() if self.again else next(self.queue, None)

    def died(self, job: tuple[int, Job], ending: str) -> None:
        """Its process has died: once more, or given up."""
        place = job[0]
        self.deaths[place] += 1
        if self.deaths[place] <= AGAIN:
            self.again.append(job)
            return
        self.lost.append((place, f"its worker process died {AGAIN + 1} times, at last by {ending}"))
        if len(self.lost) >= self.patience:
            raise SelfdevError(
                f"worker processes die again and again (at last by {ending}; out of memory?); lower `workers`"
                " or `task.batch` and give the same command again, every finished attempt is kept."
            )

    def given_up(self, lost: Callable[[str], Any] | None) -> Iterator[tuple[int, Any]]:
        """The results of jobs that were given up; others have ended since, so it was the job."""
        while self.lost and lost:
            place, reason = self.lost.pop(0)
            yield place, lost(reason)


class _Member:
    """One process and the job it has in hand."""

    def __init__(self, start: Callable[..., None], args: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.job: tuple[int, Job] | None = None
        self.ending = ""
        self._process = context.Process(target=_serve, args=(theirs, os.getpid(), start, args))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def give(self, work: Callable[..., Any], job: tuple[int, Job]) -> None:
        self.line.send((work, job[1]))
        self.job = job

    def end(self, patience: float) -> None:
        """End the process: by itself, now that its line is closed, or killed after `patience` seconds."""
        self.line.close()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.ending = _words(self._process.exitcode)


def _words(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name


def _serve(line: Connection, parent: int, start: Callable[..., None], args: Job) -> None:
    """Do jobs until the line is closed; what stops the start is told at the first job."""
    die_with(parent)
    trouble: Exception | None = None
    try:
        start(*args)
    except SelfdevError as error:
        trouble = error
    except Exception as error:
        trouble = _unstarted(error)
    with suppress(EOFError, OSError):
        while True:
            work, job = line.recv()
            line.send(_done(work, job, trouble))


def _unstarted(error: Exception) -> Exception:
    _end_if_out_of_memory(error)
    words = f"a worker process could not start: {type(error).__name__}: {error}"
    return SelfdevError(words) if isinstance(error, OSError) else RuntimeError(words)


def _done(work: Callable[..., Any], job: Job, trouble: Exception | None) -> tuple[bool, Any]:
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
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        os._exit(1)
