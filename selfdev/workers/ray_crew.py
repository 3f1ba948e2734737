"""Members of a crew that are actors of a Ray cluster; Ray says where they run.

An actor does one job at a time. One whose process or machine is gone, or that takes too long, counts as dead;
the crew hands its job out again and asks for another one. Asked for are as many as the config says: those for
which there is no room yet begin when a machine joins.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from selfdev.config.settings import Ray
from selfdev.errors import SelfdevError, one_line
from selfdev.interrupt import SIGNALS
from selfdev.workers.crew import AGAIN, Died
from selfdev.workers.serving import Job, done, started, with_threads

ROOM = 600.0  # seconds without any actor after which the work stops
ALIVE = 30.0  # seconds an idle actor has to say that it is there
OBJECTS = 100 * 2**20  # bytes of Ray's object store in a cluster of ours: jobs and results are small
SAME = ("selfdev", "torch", "transformers", "numpy")  # versions on which results depend


class Worker:
    """What lives in an actor; it starts with its first job, so that a death at the start is seen at once."""

    def __init__(self, start: Callable[..., None], args: Job, threads: int) -> None:
        with_threads(threads)
        self._start, self._args = start, args
        self._begun = False
        self._trouble: Exception | None = None

    def here(self) -> tuple[int, dict[str, str]]:
        """Its process and the versions it works with."""
        return os.getpid(), versions()

    def do(self, work: Callable[..., Any], job: Job) -> tuple[bool, Any]:
        if not self._begun:
            self._trouble = started(self._start, self._args)
            self._begun = True
        return done(work, job, self._trouble)


def versions() -> dict[str, str]:
    """Packages that must be the same on every machine."""
    return {name: version(name) for name in SAME}


class Actor:
    """One actor and the job it has in hand; `ready` is answered once it runs somewhere."""

    def __init__(self, handle: Any, seconds: float) -> None:
        self.job: tuple[int, Job] | None = None
        self.ready = handle.here.remote()
        self.answer: Any = None
        self.pid = 0
        self._handle, self._seconds = handle, seconds
        self._begun = 0.0

    @property
    def late(self) -> bool:
        return time.monotonic() - self._begun > self._seconds

    def arrive(self) -> None:
        """Note where it runs; Died when it does no more, SelfdevError when it has other versions."""
        try:
            self.pid, theirs = ray.get(self.ready)
        except RayTaskError:
            raise
        except RayError as error:
            raise Died(one_line(str(error))) from None
        ours = versions()
        for name in SAME:
            if theirs[name] != ours[name]:
                raise SelfdevError(
                    f"a machine of the Ray cluster has {name} {theirs[name]} and this one {ours[name]};"
                    " install the same versions on all."
                )

    def give(self, work: Callable[..., Any], job: tuple[int, Job]) -> None:
        try:
            ray.get(self._handle.here.remote(), timeout=ALIVE)  # else the job would be blamed for its death
        except (RayError, GetTimeoutError) as error:
            self.end(0)
            raise Died(one_line(str(error))) from None
        self.answer = self._handle.do.remote(work, job[1])
        self.job, self._begun = job, time.monotonic()

    def take(self) -> tuple[bool, Any]:
        try:
            answer: tuple[bool, Any] = ray.get(self.answer, timeout=0)
        except GetTimeoutError:
            self.end(0)
            raise Died(f"its limit of {self._seconds:g} seconds (ray.seconds)") from None
        except RayTaskError:
            raise
        except RayError as error:
            self.end(0)
            raise Died(type(error).__name__) from None
        return answer

    def end(self, patience: float) -> None:  # noqa: ARG002
        """Kill the actor; its sandbox ends with it."""
        with suppress(RayError):
            ray.kill(self._handle)


class Actors:
    """Asks a Ray cluster for actors; joins the cluster, or starts one, when the first is wanted."""

    def __init__(
        self, start: Callable[..., None], args: Job, count: int, threads: int, settings: Ray
    ) -> None:
        self._start, self._args = start, args
        self._count, self._threads, self._settings = count, threads, settings
        self._coming: list[Actor] = []
        self._joined = False  # and to be left again
        self._deaths = 0  # in a row, on arrival
        self._alone: float | None = None  # since when there is none at all

    def hire(self, missing: int) -> list[Actor]:
        if missing and not ray.is_initialized():
            join(self._settings.address, self._count * self._threads)
            self._joined = True
        while len(self._coming) < missing:
            self._coming.append(self._ask())
        there = _answered({actor.ready: actor for actor in self._coming})
        self._coming = [actor for actor in self._coming if actor not in there]
        return [actor for actor in there if self._arrived(actor)]

    def _ask(self) -> Actor:
        worker = ray.remote(Worker).options(num_cpus=self._threads, num_gpus=self._settings.gpus)
        return Actor(worker.remote(self._start, self._args, self._threads), self._settings.seconds)

    def _arrived(self, actor: Actor) -> bool:
        try:
            actor.arrive()
        except Died as death:
            self._deaths += 1
            if self._deaths > AGAIN:
                raise SelfdevError(
                    f"actors of the Ray cluster die before they begin ({str(death)[:200]}); install"
                    " selfdev on every machine."
                ) from None
            return False
        self._deaths = 0
        return True

    def wait(self, busy: Sequence[Actor], seconds: float) -> list[Actor]:
        self._look_lonely(bool(busy))
        wanted = [*(actor.answer for actor in busy), *(actor.ready for actor in self._coming)]
        ray.wait(wanted, num_returns=1, timeout=seconds)
        ready = _answered({actor.answer: actor for actor in busy})
        return [actor for actor in busy if actor in ready or actor.late]

    def _look_lonely(self, anybody: bool) -> None:
        """SelfdevError when there has been nobody to do a job for long."""
        now = time.monotonic()
        self._alone = None if anybody else self._alone or now
        if self._alone and now - self._alone > ROOM:
            raise SelfdevError(
                f"no machine of the Ray cluster has had room for a worker ({self._threads} CPUs and"
                f" {self._settings.gpus:g} GPUs) for {ROOM / 60:g} minutes; see ray status, and give the same"
                " command again, every finished attempt is kept."
            )

    def close(self) -> None:
        """Take back what was asked for; leave the cluster, which ends it where we started it."""
        for actor in self._coming:
            actor.end(0)
        self._coming.clear()
        if self._joined:
            with _own_signals():
                ray.shutdown()
            self._joined = False


def _answered(waiting: dict[Any, Actor]) -> list[Actor]:
    """Those whose answer, or failure, is there."""
    if not waiting:
        return []
    ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
    return [waiting[ref] for ref in ready]


def join(address: str | None, cpus: int) -> None:
    """Join the cluster at an address; without one start it here, with so many CPUs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECTS}
    try:
        with _own_signals():
            if address is None:
                ray.init(address="local", **own, **quiet)
            else:
                ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise SelfdevError(
            f"the Ray cluster at {address or 'this machine'} cannot be joined ({one_line(str(error))[:200]});"
            " start it with ray start --head, or correct ray.address."
        ) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; here it means what `selfdev.interrupt` says."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        with suppress(ValueError):  # signals are the main thread's
            for number, handler in before.items():
                signal.signal(number, handler)
