"""What changed besides the score: the improved model beside the seed on the test questions of the run.

No question is asked for this, the archive has every answer; tasks that the search never saw come on top. A
change is claimed only where the paired test, adjusted by Holm over the rows of its table, is below 5 % and
the paired interval leaves out zero.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from selfdev import stats
from selfdev.records import Replies, Score
from selfdev.report.findings import SIGNIFICANT, p_value, percent, points
from selfdev.results import Besides, Change, Lengths
from selfdev.store.archive import Archive
from selfdev.tasks.replies import MARKS, marked

OTHER_FORM = "right in another form only"  # by the flexible reading and not by the strict one
Pair = tuple[Sequence[bool], Sequence[bool]]  # of the improved model and of the seed


def split_of(title: str) -> str:
    """Under which name the archive keeps the answers to a task that the search never saw."""
    return f"besides {title}"


def what_changed(archive: Archive, best: str, titles: Sequence[str] = ()) -> Besides | None:
    """What the archive says of the improved model beside the seed; None where it is the seed.

    `titles` are those of the tasks that the search never saw.
    """
    test = archive.examined("test")
    if best == "seed" or best not in test:
        return None
    pair = test[best], test["seed"]
    noted = archive.replies(best, "test"), archive.replies("seed", "test")
    kinds = noted[0].kinds if noted[0] else ()
    forms: dict[str, Pair] = {OTHER_FORM: (_other_form(pair[0]), _other_form(pair[1]))}
    lengths = None
    if noted[0] and noted[1] and noted[0].lengths:
        forms |= {mark: (marked(noted[0], mark), marked(noted[1], mark)) for mark in MARKS}
        lengths = _lengths(noted[0], noted[1])
    asked = {title: archive.examined(split_of(title)) for title in titles}
    tasks = {t: (scores[best].leading, scores["seed"].leading) for t, scores in asked.items()}
    return Besides(changes(by_kind(pair, kinds)), changes(forms), lengths, changes(tasks))


def by_kind(pair: tuple[Score, Score], kinds: Sequence[str]) -> dict[str, Pair]:
    """Answers to the questions of each kind; nothing where there are not two kinds to compare."""
    found: dict[str, Pair] = {}
    for name in sorted(set(kinds)):
        best, seed = ([r for r, k in zip(s.leading, kinds, strict=True) if k == name] for s in pair)
        found[name or "no kind given"] = best, seed
    return found if len(found) > 1 else {}


def changes(pairs: Mapping[str, Pair]) -> tuple[Change, ...]:
    """One row per name, with p-values adjusted over all of them."""
    exact = [stats.mcnemar(best, seed) for best, seed in pairs.values()]
    rows = zip(pairs.items(), exact, stats.holm(exact), strict=True)
    return tuple(_change(name, *pair, p, adjusted) for (name, pair), p, adjusted in rows)


def warnings(found: Besides | None) -> list[str]:
    """A sentence for everything that surely got worse."""
    if found is None:
        return []
    said = [
        f"Besides: worse than the seed on {c.name} ({percent(c.best)} right after {percent(c.seed)},"
        f" {_test(c)})."
        for c in (*found.kinds, *found.tasks)
        if c.moved == "down"
    ]
    return said + [
        f"Besides: more replies are {c.name} ({percent(c.best)} after {percent(c.seed)}, {_test(c)})."
        for c in found.replies
        if c.moved == "up"
    ]


def _change(name: str, best: Sequence[bool], seed: Sequence[bool], p: float, adjusted: float) -> Change:
    low, high = stats.paired_difference(best, seed)
    surely = adjusted < SIGNIFICANT
    moved = "up" if surely and low > 0 else "down" if surely and high < 0 else "not shown"
    n = len(best)
    return Change(name, n, sum(seed) / n, sum(best) / n, low, high, p, adjusted, moved)  # type: ignore[arg-type]


def _lengths(best: Replies, seed: Replies) -> Lengths:
    low, high = stats.paired_mean(best.lengths, seed.lengths)
    means = statistics.fmean(seed.lengths), statistics.fmean(best.lengths)
    return Lengths(len(best.lengths), *means, low, high)


def _other_form(score: Score) -> list[bool]:
    return [flexible and not strict for strict, flexible in zip(score.strict, score.flexible, strict=True)]


def _test(c: Change) -> str:
    p = p_value(c.p_holm)
    return f"{points(c.low)} to {points(c.high)} points, Holm p {p if p[0] == '<' else f'= {p}'}, n = {c.n:,}"
