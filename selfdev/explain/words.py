"""A program in words, made from what was measured and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfdev.explain.explanation import Difference, Effect, Explanation, Simplified, Verdict, verdict_of
from selfdev.explain.variants import Kind
from selfdev.report.findings import duration, percent, points

LIKE = ((0.001, "has the direction of"), (0.1, "is close to"), (0.5, "resembles"))
SUM = 0.001  # share of a change that may be left of a weighted sum


def words_of(found: Explanation, margin: float) -> list[str]:
    """The sentences, most telling first."""
    return [
        *_behaviour(found),
        *_score(found),
        *_parts(found, "expert", "Experts"),
        *_parts(found, "layers", "Layers"),
        *_statements(found),
        *_constants(found),
        _shorter(found.simplified, found),
        *([_by_score(found.simplified_by_score, margin)] if found.simplified_by_score else []),
        _locality(found),
        _cost(found),
        *_caution(found),
    ]


def _behaviour(found: Explanation) -> Iterator[str]:
    """What is it like, and is it a weighted sum?"""
    if not found.nearest:
        yield "On probes it changes nothing: it gives back the seed."
        return
    near = found.nearest[0]
    verb = next(
        (words for most, words in LIKE if near.distance < most), "is unlike any built-in method, even"
    )
    far = max(found.per_probe, key=lambda one: one.to_nearest)
    most = f"; at most {far.to_nearest:.2g} in one parameter, {far.parameter}" if far.to_nearest else ""
    yield (
        f"What it changes on probes {verb} {near.method}, times {near.factor:.3g} (distance"
        f" {near.distance:.2g}, where 0 is the same direction and 1 nothing in common{most})."
    )
    total = found.weighted_sums[0]
    terms = ", ".join(f"{weight:+.2g} {name}".replace("-", "−") for name, weight in total.weights.items())
    if total.rest < SUM:
        yield f"It is the seed plus a weighted sum of task vectors: {terms}."
    else:
        yield (
            f"The nearest weighted sum of task vectors ({terms}) leaves {percent(total.rest)} of the length"
            " of its change."
        )


def _score(found: Explanation) -> Iterator[str]:
    if found.score is None or found.seed_score is None or found.over_seed is None:
        return
    one = found.score
    yield (
        f"It answers {percent(one.accuracy)} of {one.n:,} dev questions (95 % interval {percent(one.low)} to"
        f" {percent(one.high)}), the seed {percent(found.seed_score.accuracy)}: {_change(found.over_seed)}."
    )


def _change(difference: Difference) -> str:
    interval = f"{points(difference.points)} points, {points(difference.low)} to {points(difference.high)}"
    verdict = verdict_of(difference)
    return f"{verdict} ({interval})"


def _parts(found: Explanation, kind: Kind, title: str) -> Iterator[str]:
    """Which experts, or layers, matter: by what the program is without them."""
    effects = [effect for effect in found.of(kind) if effect.what.startswith("without ")]
    said = []
    for words, group in _sorted(effects):
        names = [f"{_name(e)}{_by(e)}" for e in group]
        said.append(f"{words}: {', '.join(names)}")
    if said:
        yield f"{title}, each with the seed's weights in its place: {'; '.join(said)}."


def _name(effect: Effect) -> str:
    return effect.what.removeprefix("without ")


def _by(effect: Effect) -> str:
    if effect.verdict in ("same behaviour", "same weights", "fails"):
        return ""
    if effect.difference is not None:
        d = effect.difference
        return f" ({points(d.points)} points, {points(d.low)} to {points(d.high)})"
    return f" (moves the change by {percent(effect.moved, 0)})"


def _sorted(effects: Sequence[Effect]) -> Iterator[tuple[str, list[Effect]]]:
    """The effects by verdict, those that matter first, the largest of them first."""
    order = (
        "lower", "higher", "behaves differently", "lower, perhaps by chance", "higher, perhaps by chance",
        "no measurable change", "same weights", "same behaviour", "fails",
    )  # fmt: skip
    for verdict in order:
        group = [effect for effect in effects if effect.verdict == verdict]
        if group:
            yield verdict, sorted(group, key=_size)


def _size(effect: Effect) -> float:
    if effect.difference is not None:
        return -abs(effect.difference.points)
    return -(effect.moved or 0.0)


def _statements(found: Explanation) -> Iterator[str]:
    effects = found.of("statement")
    if not effects:
        return
    tally = ", ".join(f"{len(group)} {_GROUP[verdict]}" for verdict, group in _sorted(effects))
    yield f"Of {len(effects)} statements, each deleted alone: {tally}."


_GROUP = {
    "fails": "are needed for it to run",
    "lower": "lower the score",
    "higher": "raise the score",
    "lower, perhaps by chance": "lower it, perhaps by chance",
    "higher, perhaps by chance": "raise it, perhaps by chance",
    "no measurable change": "make no measurable change",
    "same weights": "leave the merged weights as they are",
    "same behaviour": "change nothing at all",
    "behaves differently": "change what it does",
}


def _constants(found: Explanation) -> Iterator[str]:
    """For each constant the simplest value that changes least."""
    by_constant: dict[str, list[Effect]] = {}
    for effect in found.of("constant"):
        name = f"{effect.what.split(' → ')[0]} in line {effect.line}"
        by_constant.setdefault(name, []).append(effect)
    free, held = [], []
    for name, effects in by_constant.items():
        best = min(effects, key=lambda effect: _rank(effect.verdict))
        if best.verdict in FREE:
            free.append(f"{name} can be {best.what.split(' → ')[1]} ({best.verdict}{_by(best)})")
        else:
            held.append(name)
    if free:
        yield f"Constants that can be simpler, each alone: {'; '.join(free)}."
    if held:
        yield f"Constants that matter: {', '.join(held)}."


FREE: tuple[Verdict, ...] = ("same behaviour", "same weights", "no measurable change")


def _rank(verdict: Verdict) -> int:
    return FREE.index(verdict) if verdict in FREE else len(FREE)


def _shorter(simple: Simplified, found: Explanation) -> str:
    same = "same fingerprint and same weights" if found.questions else "same fingerprint"
    if not simple.steps:
        return f"Nothing can be taken out of its {found.statements} statements without another behaviour."
    return (
        f"Simplified by behaviour it has {simple.statements} of {found.statements} statements and does the"
        f" same ({same})."
    )


def _by_score(simple: Simplified, margin: float) -> str:
    assert simple.score is not None
    assert simple.difference is not None
    d = simple.difference
    return (
        f"Simplified by score it has {simple.statements} statements and behaves differently: on the same"
        f" {simple.score.n:,} dev questions {points(d.points)} points (95 % interval {points(d.low)} to"
        f" {points(d.high)}; at most {100 * margin:g} points were to be lost)."
    )


def _locality(found: Explanation) -> str:
    if found.local:
        return "It is local: what it makes of a parameter depends on that parameter alone."
    return f"It is not local: {found.not_local_because}."


def _cost(found: Explanation) -> str:
    where = "on the models" if found.questions else "on probes"
    time = duration(found.seconds) if found.seconds >= 1 else f"{found.seconds:.2g} s"
    return f"It takes {time} {where} in the sandbox."


def _caution(found: Explanation) -> Iterator[str]:
    scored = len({effect.difference for effect in found.effects if effect.difference is not None})
    if found.questions:
        yield (
            "All scores are on dev questions, by which the program may have been chosen. Of"
            f" {scored} intervals some, about {scored / 20:.0f}, leave out zero by chance alone;"
            " `perhaps by chance` says of which that may be so (Holm's p over all of them)."
        )
    yield from found.notes
