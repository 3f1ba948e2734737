"""What `explain` found out about a program: the records that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from selfdev.explain.variants import Kind
from selfdev.records import Score, State
from selfdev.report.findings import SIGNIFICANT
from selfdev.stats import holm, mcnemar, paired_difference

Verdict = Literal[
    "same behaviour", "same weights", "no measurable change", "lower", "lower, perhaps by chance", "higher",
    "higher, perhaps by chance", "behaves differently", "fails",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers to n dev questions (0..1); low and high are the Wilson 95 % bounds."""

    n: int
    correct: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of a variant less the program's (-1..1) on the same questions, with its paired 95 % interval
    and exact paired p-value, alone and over all variants that were scored (Holm)."""

    points: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What one change does. `moved` is how far it moves the program's change of the probes, relative to the
    size of that change (0: not at all); None where the variant fails."""

    kind: Kind
    what: str
    where: str
    line: int
    verdict: Verdict
    state: State
    reason: str = ""
    moved: float | None = None
    score: Accuracy | None = None
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Distance:
    """A human-designed method. `distance` is the sine of the angle between both changes of the probes (0:
    equal up to a factor, 1: nothing in common), `factor` by how much its change is to be multiplied."""

    method: str
    distance: float
    factor: float


@dataclass(frozen=True, slots=True)
class ProbeDistance:
    """The same for one parameter: its nearest method, and the distance to the one nearest on the whole."""

    parameter: str
    method: str
    distance: float
    to_nearest: float


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """The weighted sum of the experts' task vectors that is nearest to the change, in a group of layers;
    `rest` is the share of the change's length that it leaves (0..1)."""

    group: str
    weights: dict[str, float]
    rest: float


@dataclass(frozen=True, slots=True)
class Simplified:
    """A program with what could go taken out. `by` is the check: behaviour (fingerprint, and hash of the
    weights where there are models), or score (paired on dev)."""

    by: Literal["behaviour", "score"]
    code: str
    statements: int
    steps: tuple[str, ...]
    score: Accuracy | None = None
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A program, explained. `words` are sentences made from the other fields; `questions` is 0 where it was
    explained without models, and there are no scores then. `seconds` is the program's wall time on the
    models, or on probes."""

    program: str
    words: tuple[str, ...]
    experts: tuple[str, ...]
    questions: int
    statements: int
    seconds: float
    local: bool
    not_local_because: str
    score: Accuracy | None
    seed_score: Accuracy | None
    over_seed: Difference | None
    nearest: tuple[Distance, ...]
    per_probe: tuple[ProbeDistance, ...]
    weighted_sums: tuple[WeightedSum, ...]
    effects: tuple[Effect, ...]
    simplified: Simplified
    simplified_by_score: Simplified | None
    notes: tuple[str, ...]
    code: str
    out: str | None = None
    page: str | None = None

    def of(self, kind: Kind) -> list[Effect]:
        """The effects of one kind of change."""
        return [effect for effect in self.effects if effect.kind == kind]


def accuracy_of(score: Score) -> Accuracy:
    """A score as it is printed."""
    return Accuracy(score.n, score.correct, score.accuracy, *score.interval)


def difference_of(score: Score, program: Score) -> Difference:
    """A score less the program's; Holm's p is that of a single comparison."""
    low, high = paired_difference(score.leading, program.leading)
    p = mcnemar(score.leading, program.leading)
    return Difference(score.accuracy - program.accuracy, low, high, p, p)


def differences(scores: Mapping[str, Score], program: Score) -> dict[str, Difference]:
    """Each score less the program's, with Holm's p over all of them."""
    found = {name: difference_of(score, program) for name, score in scores.items()}
    adjusted = holm([difference.p for difference in found.values()])
    return {name: replace(d, p_holm=p) for (name, d), p in zip(found.items(), adjusted, strict=True)}


def verdict_of(difference: Difference) -> Verdict:
    """A change inside its interval is none; one outside may still be the luck of many comparisons."""
    if difference.low <= 0 <= difference.high:
        return "no measurable change"
    surely = difference.p_holm < SIGNIFICANT
    if difference.points < 0:
        return "lower" if surely else "lower, perhaps by chance"
    return "higher" if surely else "higher, perhaps by chance"
