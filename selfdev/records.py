"""Frozen records with the paper's nouns: programs, outcomes, scores and attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from selfdev import stats
from selfdev.tasks.grading import Lead

# What a program may be given at most: beyond any machine, and no number overflows.
MOST_SECONDS = 1_000_000
MOST_GIB = 1_000_000


class State(StrEnum):
    """How an attempt ended. A program's failure is a stored state, never an exception."""

    INVALID = "INVALID"  # the gate refused the text; nothing was executed
    CRASHED = "CRASHED"
    TIMED_OUT = "TIMED_OUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    FORBIDDEN = "FORBIDDEN"  # a confinement layer fired
    BAD_WEIGHTS = "BAD_WEIGHTS"  # wrong names, shapes, dtype or values
    MERGED = "MERGED"
    SCORED = "SCORED"
    UNSCORED = "UNSCORED"  # a fault of ours kept it from being tried: no failure of the program


@dataclass(frozen=True, slots=True)
class Program:
    """A merging algorithm as text, accepted by the gate.

    `code` is runnable Python that defines `merge_models(models, device)`.
    """

    code: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of a program ended; `reason` has at most 300 characters, `seconds` is wall time."""

    state: State
    reason: str = ""
    seconds: float = 0.0
    stderr: str = ""
    copy_of: str | None = None  # "seed" or an expert's name when the result equals that model
    weights_hash: str | None = None  # of the merged tensors in the seed's stored dtype


@dataclass(frozen=True, slots=True)
class Score:
    """Per-question results, in question order, under both readings of the answers; `lead` is the one that
    ranks models. `tokens` of the replies, 0 where a task asks its questions itself."""

    strict: tuple[bool, ...]
    flexible: tuple[bool, ...]
    lead: Lead = "strict"
    tokens: int = 0

    @property
    def n(self) -> int:
        return len(self.strict)

    @property
    def leading(self) -> tuple[bool, ...]:
        """Results under the reading that ranks models."""
        return self.strict if self.lead == "strict" else self.flexible

    @property
    def correct(self) -> int:
        return sum(self.leading)

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def strict_accuracy(self) -> float:
        return sum(self.strict) / self.n

    @property
    def flexible_accuracy(self) -> float:
        return sum(self.flexible) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the accuracy."""
        return stats.wilson(self.correct, self.n)

    def __add__(self, other: Score) -> Score:
        tokens = self.tokens + other.tokens
        return Score(self.strict + other.strict, self.flexible + other.flexible, self.lead, tokens)


@dataclass(frozen=True, slots=True)
class Replies:
    """What is kept of an exam's replies beside right and wrong, in question order: the kind of each question
    ("" where it has none), lengths in characters, and marks as bits, see `selfdev.tasks.replies`. Lengths and
    marks are empty where the task grades its own replies."""

    kinds: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One program tried once. `score` is on the dev questions of the loop; `same_as` names the earlier
    attempt whose score was reused because both programs behave alike."""

    id: int
    kind: str  # "factory" or "baseline"; in a transfer also "home baseline" and "discovered"
    iteration: int  # 0 for all but the factory's
    index: int  # place within its iteration
    name: str  # a baseline's name and parameters; "" for the factory's programs
    text: str  # what the model wrote
    code: str  # what the gate made of it; "" when INVALID
    seed: int
    outcome: Outcome
    fingerprint: str | None = None
    same_as: int | None = None
    nearest: str | None = None
    distance: float | None = None
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: attempt ids of the chosen and the rejected program."""

    chosen: int
    rejected: int


@dataclass(frozen=True, slots=True)
class TextPair:
    """A preference in words: what the factory should rather and rather not write."""

    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a factory learns from after one iteration.

    No program of `held_out` is in `pairs` or `rewarded`. The latter are the iteration's texts as they were
    written, at `temperature` and of at most `longest` tokens, each with its dev accuracy, 0.0 where it failed
    by its own fault.
    """

    pairs: tuple[TextPair, ...]
    held_out: tuple[TextPair, ...] = ()
    rewarded: tuple[tuple[str, float], ...] = ()
    temperature: float = 1.0
    longest: int = 1024


def fully_scored(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Attempts scored on as many questions as any: not stopped early, so that they can be chosen."""
    most = max((a.score.n for a in attempts if a.score), default=0)
    return [a for a in attempts if a.score and a.score.n == most]


def best_first(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Scored attempts by accuracy, best first; the earlier attempt wins a tie."""
    scored = [a for a in attempts if a.score is not None]
    return sorted(scored, key=lambda a: (-a.score.accuracy if a.score else 0.0, a.id))
