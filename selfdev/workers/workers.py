"""The driver's side of its workers: what they are asked and what comes back; the archive stays here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfdev.config.settings import Ray
from selfdev.config.task import TaskBesides
from selfdev.errors import SelfdevError
from selfdev.interrupt import Stop
from selfdev.lineage import Parents
from selfdev.records import Outcome, State
from selfdev.store.inputs import Files
from selfdev.tasks.questions import ExamName
from selfdev.workers import jobs as side
from selfdev.workers.crew import Crew
from selfdev.workers.devices import gpus
from selfdev.workers.jobs import Probed as Probed
from selfdev.workers.jobs import Setup as Setup
from selfdev.workers.jobs import Subject as Subject
from selfdev.workers.jobs import Tried as Tried
from selfdev.workers.jobs import Written as Written
from selfdev.workers.processes import Processes
from selfdev.workers.serving import with_threads

if TYPE_CHECKING:
    import numpy as np


class Workers:
    """`count` processes of this machine or, with `ray`, actors of a Ray cluster; a context manager.

    No job is handed out while `stopping` says so.
    """

    def __init__(
        self, setup: Setup, count: int, stopping: Callable[[], bool] = lambda: False, ray: Ray | None = None
    ) -> None:
        with_threads(setup.threads)
        self._files = Files([setup.seed, *setup.experts])
        self._crew: Crew[Any] = Crew(_staff(setup, count, ray), count, stopping)
        self._stopping = stopping

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: Any) -> None:
        self._crew.__exit__(*error)

    def stop_if_asked(self) -> None:
        """Raise Stop when no more work is wanted; for work that is done without the workers."""
        if self._stopping():
            raise Stop

    def rest(self) -> None:
        """End the workers, who free what they hold on GPUs; the next work starts others."""
        self._crew.rest()

    def write(
        self, factory: Path, prompt: str, temperature: float, batches: Sequence[np.ndarray]
    ) -> Iterator[tuple[int, Written]]:
        """Programs for each batch of uniform numbers, as (batch, programs) in the order they are done."""
        jobs = [(factory, prompt, temperature, batch) for batch in batches]
        # Nothing is stored before all is written: a stop need not wait for the batches in hand.
        return self._unchanged(self._crew.stream(side.write, jobs, finish=False))

    def probe(
        self, jobs: Iterable[tuple[str, int]], parents: Parents | None = None
    ) -> Iterator[tuple[int, Probed]]:
        """Gate and probes for (text, seed) jobs, as (job, result) in the order they are done.

        Here and below programs merge the models that the workers started with, or other `parents`.
        """
        probed = ((*job, parents) for job in jobs)
        return self._unchanged(
            self._crew.stream(side.probe, probed, lambda why: Probed("", Outcome(State.UNSCORED, why)))
        )

    def try_programs(
        self, jobs: Iterable[tuple[str, int, ExamName]], bar: float = 0.0, parents: Parents | None = None
    ) -> Iterator[tuple[int, Tried]]:
        """Merge and score (code, seed, exam) jobs, as (job, result) in the order they are done.

        On dev a program surely below the seed or below the accuracy `bar` is stopped early (selfdev.race).
        """
        raced = ((*job, bar, parents) for job in jobs)
        return self._unchanged(
            self._crew.stream(side.try_program, raced, lambda why: Tried(Outcome(State.UNSCORED, why), None))
        )

    def examine(self, jobs: Iterable[tuple[Subject, ExamName | TaskBesides]]) -> Iterator[tuple[int, Tried]]:
        """Score checkpoints and (code, seed, parents) programs on all of an exam, as (job, result) in the
        order they are done."""
        return self._unchanged(self._crew.stream(side.examine, jobs))

    def _unchanged(self, results: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Pass results on as long as the models are the files that they were."""
        try:
            for result in results:
                self._files.check()
                yield result
        except Exception:
            self._files.check()  # it may be why
            raise


def _staff(setup: Setup, count: int, ray: Ray | None) -> Any:
    """Where workers come from; SelfdevError where Ray is asked for and not installed."""
    if ray is None:
        return Processes(side.start, (setup,), gpus(setup.device))
    try:
        from selfdev.workers.ray_crew import Actors
    except ModuleNotFoundError:
        raise SelfdevError(
            "the config has `ray` and Ray is not installed; pip install 'selfdev[ray]', or remove it."
        ) from None
    return Actors(side.start, (setup,), count, setup.threads, ray)
