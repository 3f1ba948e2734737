"""Stand-ins for the outside world of the loop: workers that decide by the text, a training that copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from selfdev.config.config import Config, parse_config
from selfdev.config.task import TaskBesides
from selfdev.lineage import Parents
from selfdev.records import Lessons, Outcome, Score, State, TextPair
from selfdev.results import DpoStep, Trained, factory_check
from selfdev.tasks.questions import ExamName
from selfdev.workers.workers import Probed, Subject, Tried, Workers, Written

T = TypeVar("T")
QUESTIONS = 20
BEHAVIOURS = 12


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def small_config(**sections: Any) -> Config:
    """A small run on models that nobody opens; `sections` replace or extend the config's values."""
    values: dict[str, Any] = {
        "name": "small",
        "models": {"seed": "seed", "experts": {"one": "one", "two": "two"}},
        "task": {"name": "lab", "dev": QUESTIONS, "finalist_dev": QUESTIONS, "test": QUESTIONS},
        "factory": {"programs": 30, "iterations": 3, "batch": 7, "max_new_tokens": 3},
        "pairs": {"min_each": 2, "carry_over": 1},
        "baselines": {"linear": [{}], "task_arithmetic": [{"WEIGHT": 0.3}, {"WEIGHT": 0.5}]},
        "finalists": 3,
    }
    for name, value in sections.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return parse_config(values, "test")


def of_accuracy(correct: int) -> Score:
    answers = tuple(i < correct for i in range(QUESTIONS))
    return Score(answers, answers)


@dataclass
class FakeWorkers(Workers):
    """Workers whose results depend on the text: `behave N` has the print N and N right answers.

    Behaviours 0, 1 and 2 are INVALID, CRASHED on the probes, and TIMED_OUT on the models. Results come back
    in reverse order. After `lives` results of any kind it is killed.
    """

    lives: int = 10**9
    written: list[tuple[Path, str, float, list[int]]] = field(default_factory=list)
    probed: list[str] = field(default_factory=list)
    tried: list[tuple[str, int, str]] = field(default_factory=list)
    examined: list[tuple[str, str]] = field(default_factory=list)
    bars: list[float] = field(default_factory=list)
    parents: list[Parents | None] = field(default_factory=list)

    def _alive(self) -> None:
        if self.lives == 0:
            raise Killed
        self.lives -= 1

    def write(
        self, factory: Path, prompt: str, temperature: float, batches: Sequence[np.ndarray]
    ) -> Iterator[tuple[int, Written]]:
        self.written.append((factory, prompt, temperature, [len(batch) for batch in batches]))
        for place in reversed(range(len(batches))):
            self._alive()
            texts = [f"behave {int(row[0] * BEHAVIOURS)} {row[1]:.6f}" for row in batches[place]]
            yield place, Written(texts, 2 * len(texts))

    def probe(
        self, jobs: Iterable[tuple[str, int]], parents: Parents | None = None
    ) -> Iterator[tuple[int, Probed]]:
        jobs = list(jobs)
        self.parents.append(parents)
        for place in reversed(range(len(jobs))):
            self._alive()
            text = jobs[place][0]
            self.probed.append(text)
            behaviour = behaviour_of(text)
            if behaviour == 0:
                yield place, Probed("", Outcome(State.INVALID, "line 1: nonsense"))
            elif behaviour == 1:
                yield place, Probed(text, Outcome(State.CRASHED, "on the probes", 0.1))
            else:
                merged = Outcome(State.MERGED, seconds=0.1)
                yield place, Probed(text, merged, f"print {behaviour}", "ties", behaviour / 100)

    def try_programs(
        self, jobs: Iterable[tuple[str, int, ExamName]], bar: float = 0.0, parents: Parents | None = None
    ) -> Iterator[tuple[int, Tried]]:
        jobs = list(jobs)
        self.parents.append(parents)
        self.bars.append(bar)
        for place in reversed(range(len(jobs))):
            self._alive()
            code, _, exam = jobs[place]
            self.tried.append((code, behaviour_of(code), exam))
            behaviour = behaviour_of(code)
            if behaviour == 2:
                yield place, Tried(Outcome(State.TIMED_OUT, "5 s", 5.0), None)
            else:
                outcome = Outcome(State.MERGED, "", 0.5, "", None, f"hash {behaviour}")
                yield place, Tried(outcome, of_accuracy(behaviour))

    def examine(self, jobs: Iterable[tuple[Subject, ExamName | TaskBesides]]) -> Iterator[tuple[int, Tried]]:
        jobs = list(jobs)
        for place in reversed(range(len(jobs))):
            subject, asked = jobs[place]
            exam: Any = asked if isinstance(asked, str) else asked.title
            if isinstance(subject, tuple):
                yield from ((place, tried) for _, tried in self.try_programs([(*subject[:2], exam)]))
                continue
            self._alive()
            self.examined.append((subject.name, exam))
            yield place, Tried(Outcome(State.MERGED), of_accuracy(5))


def behaviour_of(text: str) -> int:
    """The number in `behave N ...`; built-in programs get 4 or more by their length."""
    words = text.split()
    return int(words[1]) if words[0] == "behave" else 4 + len(text) % 3


@dataclass
class FakeTrain:
    """A training that makes the next factory's folder and keeps what it was given."""

    calls: list[tuple[Path, Path, tuple[TextPair, ...], int]] = field(default_factory=list)
    dies: bool = False
    lessons: list[Lessons] = field(default_factory=list)

    def __call__(self, start: Path, out: Path, lessons: Lessons, seed: int) -> Trained:
        out.mkdir(exist_ok=True)
        if self.dies:
            raise Killed
        self.calls.append((start, out, lessons.pairs, seed))
        check = factory_check(len(lessons.pairs), len(lessons.held_out), 0, 2, 0.5, 0.25)
        self.lessons.append(lessons)
        return Trained((DpoStep(1, 0.5, 0.1, 1.0),), check)


def silent(results: Iterable[T], stage: str, total: int) -> Iterator[T]:  # noqa: ARG001
    """A progress display that shows nothing."""
    return iter(results)
