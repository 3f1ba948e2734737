"""A program beside its variants: which of them behave as it does, and what the others score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selfdev.checkpoints import ModelView
from selfdev.explain.behaviour import Behaviour, Bench
from selfdev.explain.explanation import Difference, Effect, accuracy_of, differences, verdict_of
from selfdev.explain.subject import Subject
from selfdev.explain.variants import Variant, change_constants, change_experts, change_layers, delete_each
from selfdev.progress import Bars
from selfdev.records import Outcome, Score, State
from selfdev.tasks.questions import ExamName
from selfdev.workers.workers import Tried, Workers

EXAM: ExamName = "finalist_dev"  # dev questions; those of the test set are never asked


@dataclass(frozen=True, slots=True)
class Work:
    """The program on the bench: its behaviour, and how it ends on the models (on probes, without any)."""

    subject: Subject
    bench: Bench
    base: Behaviour
    on_models: Outcome | None
    bars: Bars

    @property
    def outcome(self) -> Outcome:
        return self.on_models or self.base.outcome

    def same(self, behaviour: Behaviour) -> bool:
        """Whether a program behaves as this one does, on the real models too."""
        if behaviour.fingerprint is None or behaviour.fingerprint != self.base.fingerprint:
            return False
        outcome = self.bench.on_models(behaviour.code)
        return outcome is None or self.same_weights(outcome)

    def same_weights(self, outcome: Outcome) -> bool:
        return outcome.state is State.MERGED and outcome.weights_hash == self.outcome.weights_hash


@dataclass(frozen=True, slots=True)
class Seen:
    """A variant of the program, what it does, and whether that is the same."""

    variant: Variant
    behaviour: Behaviour
    same: bool


def look(work: Work, shown: Sequence[ModelView]) -> list[Seen]:
    """Every variant of the program on the bench."""
    code = work.subject.code
    made = [
        *delete_each(code),
        *change_constants(code),
        *change_experts(code, [view.name for view in shown[1:]]),
        *change_layers(code, [slot.name for slot in shown[0].slots]),
    ]
    found = []
    for variant in work.bars(made, "variants: gate and probes", len(made)):
        behaviour = work.bench.behave(variant.code)
        found.append(Seen(variant, behaviour, work.same(behaviour)))
    return found


def try_variants(work: Work, workers: Workers, seen: Sequence[Seen]) -> dict[str, Tried]:
    """How each different behaviour ends on the models, by fingerprint."""
    different = [one.behaviour for one in seen if not one.same]
    first = {b.fingerprint: b.code for b in reversed(different) if b.fingerprint}
    asked = workers.try_programs([(code, work.subject.seed, EXAM) for code in first.values()])
    done = dict(work.bars(asked, "variants: run and score", len(first)))
    return {name: done[place] for place, name in enumerate(first)}


def effects_of(
    work: Work, seen: Sequence[Seen], tried: Mapping[str, Tried],
    own: Score | None,
) -> list[Effect]:  # fmt: skip
    """What each variant does, from what was measured."""
    scores = {name: t.score for name, t in tried.items() if t.score and not work.same_weights(t.outcome)}
    found = differences(scores, own) if own else {}
    effects = []
    for one in seen:
        variant, behaviour = one.variant, one.behaviour
        end = Effect(
            variant.kind, variant.what, variant.where, variant.line, "fails", behaviour.outcome.state,
            behaviour.outcome.reason, _moved(work, behaviour),
        )  # fmt: skip
        if one.same:
            end = replace(end, verdict="same behaviour")
        elif behaviour.fingerprint is not None and own is None:
            end = replace(end, verdict="behaves differently")
        elif behaviour.fingerprint is not None:
            end = _scored(end, tried[behaviour.fingerprint], found.get(behaviour.fingerprint))
        effects.append(end)
    return effects


def _scored(end: Effect, tried: Tried, difference: Difference | None) -> Effect:
    """An effect with what came out on the models."""
    if tried.score is None:
        return replace(end, state=tried.outcome.state, reason=tried.outcome.reason, moved=None)
    score = accuracy_of(tried.score)
    if difference is None:
        return replace(end, verdict="same weights", score=score)
    return replace(end, verdict=verdict_of(difference), score=score, difference=difference)


def _moved(work: Work, behaviour: Behaviour) -> float | None:
    import numpy as np

    if behaviour.change is None or work.base.change is None:
        return None
    size = float(np.linalg.norm(work.base.change))
    return float(np.linalg.norm(behaviour.change - work.base.change)) / size if size else None
