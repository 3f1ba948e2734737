"""The result of a run: what `selfdev run --json` prints and what the report shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from selfdev import stats
from selfdev.tasks.grading import Lead

Kind = Literal["seed", "expert", "baseline", "home baseline", "discovered"]  # home: see evidence/transfer.py


@dataclass(frozen=True, slots=True)
class DpoStep:
    """One logged optimiser step: loss, reward margin (nats x beta) and share of pairs ranked right; None
    where the objective has no margin (sft, grpo) or no pairs to rank (kto)."""

    step: int
    loss: float
    margin: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class FactoryCheck:
    """A trained factory, looked at (selfdev.factory.check). Of `held_out` pairs whose programs were in none
    of the `trained` ones it ranks `right` in the order of their scores; low and high are the Wilson 95 %
    bounds of that accuracy. `kl` is its divergence from the first factory, nats per program, estimated on
    `programs` it wrote at temperature 1, and `kl_error` the standard error. None: not measured."""

    trained: int
    held_out: int
    right: int
    accuracy: float | None
    low: float | None
    high: float | None
    programs: int
    kl: float | None
    kl_error: float | None


def factory_check(
    trained: int, held_out: int, right: int, programs: int, kl: float | None, kl_error: float | None
) -> FactoryCheck:
    """The record with what follows from its counts."""
    low, high = stats.wilson(right, held_out) if held_out else (None, None)
    accuracy = right / held_out if held_out else None
    return FactoryCheck(trained, held_out, right, accuracy, low, high, programs, kl, kl_error)


@dataclass(frozen=True, slots=True)
class Trained:
    """The log of a training and the look at what came out of it."""

    steps: tuple[DpoStep, ...]
    check: FactoryCheck


@dataclass(frozen=True, slots=True)
class IterationStats:
    """One turn of the loop. `unique` counts distinct behaviours among merged programs; dev_* are accuracies
    (0..1) over the scored programs, None when none was scored. Mean and median are over the first
    `dev_common` of the `dev_n` questions, which every one of them was asked; p90 and best over all that each
    was asked."""

    iteration: int
    temperature: float
    written: int
    states: dict[str, int]
    unique: int
    dev_mean: float | None
    dev_median: float | None
    dev_p90: float | None
    dev_best: float | None
    dev_n: int
    dev_common: int
    seconds: float
    pairs: int
    dpo: tuple[DpoStep, ...]
    failures: dict[str, int]  # most frequent reasons of programs that did not reach a score
    dev_scores: tuple[float, ...]
    printed: dict[str, str] = field(default_factory=dict)  # state -> last lines of a program that failed so
    check: FactoryCheck | None = None  # of the factory trained on this iteration; None: none was


@dataclass(frozen=True, slots=True)
class TestRow:
    """A model on the test set, opened once. `accuracy` is under the reading of answers that leads (strict
    unless the config says flexible), and both are given by name; low and high are its Wilson 95 % bounds;
    p-values are exact McNemar on the same questions, and the intervals of the differences are paired too."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    name: str
    kind: Kind
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    flexible_accuracy: float
    dev_n: int | None
    dev_accuracy: float | None
    p_vs_best_baseline: float | None
    p_vs_seed: float | None
    strict_accuracy: float | None = None
    lead: Lead = "strict"
    interval_vs_best_baseline: tuple[float, float] | None = None
    interval_vs_seed: tuple[float, float] | None = None

    @property
    def other(self) -> tuple[str, float | None]:
        """Name and accuracy of the reading that does not lead."""
        if self.lead == "flexible":
            return "strict", self.strict_accuracy
        return "flexible", self.flexible_accuracy


@dataclass(frozen=True, slots=True)
class Change:
    """A share (0..1) of the improved model's answers beside the seed's, on the same n questions: the paired
    95 % interval of the difference and the exact McNemar p-value, as it is and adjusted by Holm over the rows
    of its table. It has `moved` where the adjusted p is below 5 % and the interval leaves out zero."""

    name: str
    n: int
    seed: float
    best: float
    low: float
    high: float
    p: float
    p_holm: float
    moved: Literal["up", "down", "not shown"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean length of the replies, characters, with the paired 95 % interval of the difference."""

    n: int
    seed: float
    best: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Besides:
    """What else changed from the seed to the improved model: accuracy by kind of test question, the share of
    replies that have a mark (`selfdev.tasks.replies`), their length (None: the task grades its own replies),
    and accuracy on tasks that the search never saw."""

    kinds: tuple[Change, ...]
    replies: tuple[Change, ...]
    lengths: Lengths | None
    tasks: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Promotion:
    """Whether an iteration's winner (None: there was none) became the next seed, and why not; accuracies of
    the seed and of the winner's model on the same n finalist_dev questions, with the paired 95 % interval of
    the gain. `seed` is "seed" for that of the config, else the program that made it."""

    iteration: int
    seed: str
    program: str | None
    promoted: bool
    reason: str
    n: int = 0
    seed_accuracy: float | None = None
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Questions asked of programs in the search and of models in the final examination, and those that were
    spared: by stopping hopeless programs early, and by knowing a behaviour again. Tokens written as programs
    and as answers; `joules` of this machine's GPUs, None where they have no counter."""

    dev: int = 0
    spared_by_race: int = 0
    spared_by_behaviour: int = 0
    finalist_dev: int = 0
    test: int = 0
    tokens_of_programs: int = 0
    tokens_of_answers: int = 0
    gpu_hours: float = 0.0
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything the report prints. `notes` are sentences such as "no gain over the seed"."""

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    iterations: tuple[IterationStats, ...]
    test: tuple[TestRow, ...]
    seconds: float
    stage_seconds: dict[str, float]
    best_name: str
    best_program: str
    best_nearest: str | None
    best_distance: float | None
    notes: tuple[str, ...]
    besides: Besides | None = None  # None where the best model is the seed
    promotions: tuple[Promotion, ...] = ()
    cost: Cost = Cost()
    budget_reached: str | None = None  # the limit that ended the search
