"""Workers that do jobs one at a time. One that dies is replaced and its job handed out again.

A job that takes its worker with it each time is given up, which is no result of the job's: killed or out of
memory is a fault of ours. Several such jobs in a row, with no result between them, are no fault of the jobs.
Where the workers are (processes, actors on other machines, a simulation) is the staff's affair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from selfdev.errors import SelfdevError
from selfdev.interrupt import Stop
from selfdev.workers.serving import Job

AGAIN = 3  # times a job is handed out again after its worker died
HOPELESS = 3  # jobs given up with no result between them that stop the work
LOOK = 0.5  # seconds after which a signal is noticed


class Died(Exception):
    """A worker is no more; the text says how it ended."""


class Member(Protocol):
    """One worker and the job it has in hand, None while it is idle; Died when it turns out to be gone."""

    job: tuple[int, Job] | None

    @property
    def pid(self) -> int: ...

    def give(self, work: Callable[..., Any], job: tuple[int, Job]) -> None:
        """Have it begin a job."""

    def take(self) -> tuple[bool, Any]:
        """Whether the job in hand was done, and its result or what it raised."""

    def end(self, patience: float) -> None:
        """End it, by force after so many seconds."""


M = TypeVar("M", bound=Member)


class Staff(Protocol[M]):
    """Where the members of a crew come from."""

    def hire(self, missing: int) -> list[M]:
        """Up to `missing` new members: those that can begin now."""

    def wait(self, busy: Sequence[M], seconds: float) -> list[M]:
        """Those that have an answer or are gone, after `seconds` at the latest; it may also return early with
        none where one that can be hired has come."""

    def close(self) -> None:
        """Give back what all members shared."""


class Crew(Generic[M]):
    """Up to `count` members, hired when there is a first job; a context manager.

    While `stopping` says so no job is handed out.
    """

    def __init__(self, staff: Staff[M], count: int, stopping: Callable[[], bool] = lambda: False) -> None:
        self._staff, self._count = staff, count
        self._stopping = stopping
        self._members: list[M] = []

    def __enter__(self) -> Crew[M]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.rest(patience=10 if kind is None else 0)
        self._staff.close()

    def rest(self, patience: float = 10) -> None:
        """End all members, between two streams; the next one hires others."""
        for member in self._members:
            member.end(patience)
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
        `jobs` as members get free.

        `lost` makes the result of a job that was given up, from the reason; without it that is an error. When
        stopping, jobs in hand are finished, or not, and then Stop is raised.
        """
        todo = Jobs(enumerate(jobs), patience=HOPELESS if lost else 1)
        try:
            self._hand_out(work, todo)
            while (busy := self._busy()) or (todo.again and not self._stopping()):
                for member in self._staff.wait(busy, LOOK):
                    done = self._take(member, todo)
                    self._hand_out(work, todo)
                    if done is not None:
                        yield from todo.given_up(lost)
                        yield done
                self._hand_out(work, todo)  # to members that have come meanwhile
                if self._stopping() and not finish:
                    break
            yield from todo.given_up(lost)
            if self._stopping() and (not finish or todo.next() is not None):
                raise Stop
        finally:
            self._drop_busy()

    def _hand_out(self, work: Callable[..., Any], todo: Jobs) -> None:
        """Give every idle member its next job."""
        while not self._stopping() and (len(self._members) < self._count or self._idle()):
            job = todo.next()
            if job is None:
                return
            self._members += self._staff.hire(self._count - len(self._members))
            idle = self._idle()
            if not idle:  # who was asked for is not there yet
                todo.again.append(job)
                return
            try:
                idle[0].give(work, job)
            except Died:  # while it had nothing to do: no fault of the job
                self._members.remove(idle[0])
                todo.again.append(job)

    def _idle(self) -> list[M]:
        return [member for member in self._members if member.job is None]

    def _busy(self) -> list[M]:
        return [member for member in self._members if member.job is not None]

    def _take(self, member: M, todo: Jobs) -> tuple[int, Any] | None:
        """The result of a member that answered; None when it has died instead."""
        assert member.job is not None
        job, member.job = member.job, None
        try:
            fine, result = member.take()
        except Died as death:
            self._members.remove(member)
            todo.died(job, str(death))
            return None
        if not fine:
            raise result
        return job[0], result

    def _drop_busy(self) -> None:
        """Nobody waits for what these members do: their answers must not reach the next stream."""
        for member in self._busy():
            member.end(patience=0)
            self._members.remove(member)


@dataclass
class Jobs:
    """The jobs of one stream: which are next, and which took their worker with them."""

    queue: Iterator[tuple[int, Job]]
    patience: int
    again: list[tuple[int, Job]] = field(default_factory=list)
    deaths: Counter[int] = field(default_factory=Counter)
    lost: list[tuple[int, str]] = field(default_factory=list)

    def next(self) -> tuple[int, Job] | None:
        return self.again.pop() if self.again else next(self.queue, None)

    def died(self, job: tuple[int, Job], ending: str) -> None:
        """Its worker has died: once more, or given up."""
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
