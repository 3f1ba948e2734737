"""Members of a crew that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from selfdev.workers.crew import Died
from selfdev.workers.devices import VISIBLE
from selfdev.workers.offspring import die_with
from selfdev.workers.serving import Job, done, started


class Processes:
    """Starts processes that call `start(*args)` once and then do jobs; where there are `gpus`, each process
    sees the one that fewest of the living use."""

    def __init__(self, start: Callable[..., None], args: Job, gpus: Sequence[str] = ()) -> None:
        self._start, self._args = start, args
        self._gpus = gpus
        self._hired: list[Process] = []

    def hire(self, missing: int) -> list[Process]:
        return [self._one() for _ in range(missing)]

    def _one(self) -> Process:
        self._hired = [process for process in self._hired if process.alive]
        used = [process.gpu for process in self._hired]
        gpu = min(self._gpus, key=used.count, default=None)
        self._hired.append(Process(self._start, self._args, gpu))
        return self._hired[-1]

    def wait(self, busy: Sequence[Process], seconds: float) -> list[Process]:
        ready = wait([member.line for member in busy], seconds)
        return [member for member in busy if member.line in ready]

    def close(self) -> None:
        """Nothing is left once every process has ended."""


class Process:
    """One process and the job it has in hand."""

    def __init__(self, start: Callable[..., None], args: Job, gpu: str | None = None) -> None:
        self.gpu = gpu
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.job: tuple[int, Job] | None = None
        self._process = context.Process(target=_serve, args=(theirs, os.getpid(), start, args, gpu))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_alive()

    def give(self, work: Callable[..., Any], job: tuple[int, Job]) -> None:
        try:
            self.line.send((work, job[1]))
        except OSError:
            raise self._died() from None
        self.job = job

    def take(self) -> tuple[bool, Any]:
        try:
            answer: tuple[bool, Any] = self.line.recv()
        except (EOFError, OSError):
            raise self._died() from None
        return answer

    def end(self, patience: float) -> None:
        """End the process: by itself, now that its line is closed, or killed after `patience` seconds."""
        self.line.close()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _died(self) -> Died:
        self.end(patience=5)
        return Died(_words(self._process.exitcode))


def _words(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name


def _serve(line: Connection, parent: int, start: Callable[..., None], args: Job, gpu: str | None) -> None:
    """Do jobs until the line is closed; what stops the start is told at the first job."""
    die_with(parent)
    if gpu is not None:
        os.environ[VISIBLE] = gpu
    trouble = started(start, args)
    with suppress(EOFError, OSError):
        while True:
            work, job = line.recv()
            line.send(done(work, job, trouble))
