"""The six claims of EVIDENCE.md in words and tables, from what `scripts/evidence.py` measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfdev.evidence.comparison import Comparison
from selfdev.evidence.learning import Estimate, Fresh, Learned
from selfdev.evidence.transfer_result import TransferResult
from selfdev.records import Score
from selfdev.report.findings import p_value, percent, points
from selfdev.results import RunResult, TestRow
from selfdev.stats import holm, mcnemar

ALPHA, ENOUGH, GAP = 0.01, 0.8, 0.02  # p of claim 2, the share of searches it must hold in, claim 6
OPEN = "Open: not measured yet."


@dataclass(frozen=True, slots=True)
class Search:
    """One search: its result, its per-question test answers, and what was set beside it (None: not yet)."""

    seed: int
    result: RunResult
    answers: Mapping[str, Score]
    learning: tuple[tuple[Fresh, ...], tuple[Learned, ...]] | None
    comparison: Comparison | None
    transfer: TransferResult | None

    @property
    def best(self) -> TestRow:
        """The discovered program on test, or the seed where nothing was found."""
        return next(row for row in self.result.test if row.name == self.result.best_name)


@dataclass(frozen=True, slots=True)
class Evidence:
    """`arena` is the result of selfdev lab check (None: not run)."""

    arena: dict[str, Any] | None
    searches: tuple[Search, ...]
    machine: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A heading, whether it holds (None: open), a sentence with the figures, and a table."""

    title: str
    holds: bool | None
    words: str
    table: str = ""


def page(evidence: Evidence, date: str) -> str:
    """The whole page in Markdown."""
    makers: tuple[Callable[[Evidence], Claim], ...] = (headroom, beats, learns, controls, moves, gap)
    claims = [make(evidence) for make in makers]
    verdict = {True: "holds", False: "does not hold", None: "open"}
    summary = [f"| {i}. {c.title} | {verdict[c.holds]} |" for i, c in enumerate(claims, 1)]
    parts = [
        "# Evidence\n",
        f"Made by `python scripts/evidence.py --out DIR` (`make evidence`) on {date}: {evidence.machine}.",
        f"{len(evidence.searches)} searches of `configs/lab.yaml`, which differ in their random seed alone."
        " Test questions were opened once per search, at its end; intervals are 95 %, comparisons paired on"
        " the same questions, and a gain inside its interval is called no gain.\n",
        "| claim | verdict |\n| --- | --- |\n" + "\n".join(summary) + "\n",
    ]
    for number, claim in enumerate(claims, 1):
        parts.append(
            f"## {number}. {claim.title}\n\n**{verdict[claim.holds].capitalize()}.** {claim.words}\n"
        )
        parts += [claim.table + "\n"] if claim.table else []
    return "\n".join(parts)


def headroom(evidence: Evidence) -> Claim:
    """The arena leaves something to find."""
    title, a = "The arena has headroom", evidence.arena
    if a is None:
        return Claim(title, None, OPEN)
    words = (
        f"`selfdev lab check`, n = {a['test']:,} test questions: seed {_measured(a['seed'])}; best tuned"
        f" baseline ({a['baseline']['name']}) {_measured(a['baseline'])}, {points(a['baseline_gain'])}"
        f" points; oracle (CMA-ES, {a['evaluations']:,} evaluations on {a['dev']:,} dev questions)"
        f" {_measured(a['oracle'])}, {points(a['oracle_gain'])} points over that baseline,"
        f" p {a['p_oracle_vs_baseline']:.0e}."
    )
    return Claim(title, a["a_holds"] and a["b_holds"], words)


def beats(evidence: Evidence) -> Claim:
    """The discovered program beats every tuned baseline."""
    title = "What is discovered beats every tuned baseline"
    if not evidence.searches:
        return Claim(title, None, OPEN)
    rows, won = [], 0
    for s in evidence.searches:
        rivals = [row for row in s.result.test if row.kind == "baseline"]
        against = [mcnemar(s.answers[s.best.name].leading, s.answers[r.name].leading) for r in rivals]
        worst = max(holm(against), default=1.0)
        first = max(rivals, key=lambda row: row.accuracy)
        holds = worst < ALPHA and s.best.accuracy > first.accuracy
        won += holds
        seed = next(row for row in s.result.test if row.kind == "seed")
        rows.append(
            (str(s.seed), percent(seed.accuracy), f"{first.name}: {percent(first.accuracy)}", _row(s.best),
             f"{s.best.n:,}", p_value(worst), "yes" if holds else "no")
        )  # fmt: skip
    head = ("search", "seed model", "best tuned baseline", "discovered", "n", "highest p, Holm", "beats all")
    words = (
        f"In {won} of {len(rows)} searches p < {ALPHA} against every baseline after Holm's correction over"
        " the baselines (exact McNemar)."
    )
    return Claim(title, won >= ENOUGH * len(rows), words, _table(head, rows))


def learns(evidence: Evidence) -> Claim:
    """DPO helps at equal temperature."""
    title = "DPO improves the factory at equal temperature"
    measured = [(s.seed, s.learning) for s in evidence.searches if s.learning and s.learning[1]]
    if not measured:
        return Claim(title, None, OPEN)
    rows, last, one = [], [], measured[0][1][0][0]
    for seed, (fresh, learned) in measured:
        by = {(f.iteration, f.factory): f for f in fresh}
        for row in learned:
            after, before = by[row.iteration, "trained"], by[row.iteration, "untrained"]
            rows.append(
                (str(seed), str(row.iteration), f"{row.temperature:.2f}", _both(after.yield_, before.yield_),
                 _gain(row.yield_), _both(after.mean, before.mean), _gain(row.mean),
                 _both(after.top_decile, before.top_decile), _gain(row.top_decile),
                 f"{after.distinct.value:.0f} / {before.distinct.value:.0f}")
            )  # fmt: skip
        last.append(learned[-1])
    better, more = (
        sum(e.low is not None and e.low > 0 for e in side)
        for side in ([r.mean for r in last], [r.yield_ for r in last])
    )
    fewer = sum(r.yield_.high is not None and r.yield_.high < 0 for r in last)
    head = (
        "search", "iteration", "T", "yield, trained / untrained", "difference", "mean on dev", "difference",
        "top decile", "difference", "distinct per 100",
    )  # fmt: skip
    words = (
        f"Of {one.written:,} fresh programs per factory, each asked all {one.questions:,} dev questions:"
        f" after the last training the mean is higher beyond its bootstrap interval in {better} of"
        f" {len(last)} searches; the yield is higher in {more}, lower in {fewer}, and inside its interval in"
        " the others."
    )
    return Claim(title, better == len(last) and fewer == 0, words, _table(head, rows))


def controls(evidence: Evidence) -> Claim:
    """The loop against searches without learning at the same budget."""
    title = "The loop beats searches without learning at the same budget"
    measured = [(s, s.comparison) for s in evidence.searches if s.comparison]
    if not measured:
        return Claim(title, None, OPEN)
    rows, lost = [], 0
    for name in dict.fromkeys(row.control for _, c in measured for row in c.controls):
        won = other = 0
        shown = []
        for s, comparison in measured:
            row = next(r for r in comparison.controls if r.control == name)
            if row.chosen is None or row.p_holm is None:
                shown.append("nothing found")
                won += 1
                continue
            surely = row.p_holm < 0.05
            won += surely and s.best.accuracy > row.chosen.accuracy
            other += surely and s.best.accuracy < row.chosen.accuracy
            shown.append(f"{percent(row.chosen.accuracy)} ({p_value(row.p_holm)})")
        lost += won < len(measured)
        rows.append((name, *shown, f"{won} / {len(measured) - won - other} / {other}"))
    found = ("discovered", *(percent(s.best.accuracy) for s, _ in measured), "")
    head = ("search", *(f"seed {s.seed}" for s, _ in measured), "better / no gain / worse")
    budget = statistics.fmean(c.budget for _, c in measured)
    words = (
        f"Accuracy on test of the best of each search, {budget:,.0f} full scores each on average, and Holm's"
        f" p against what the loop discovered (n = {measured[0][0].best.n:,}). {lost} of {len(rows)} controls"
        " are not beaten in every search."
    )
    return Claim(title, lost == 0, words, _table(head, [found, *rows]))


def moves(evidence: Evidence) -> Claim:
    """The winner on family b, unchanged."""
    title = "What is discovered transfers to models it never saw"
    measured = [(s.seed, s.transfer) for s in evidence.searches if s.transfer]
    if not measured:
        return Claim(title, None, OPEN)
    rows, verdicts = [], []
    for seed, moved in measured:
        claim = moved.claim
        over = (claim.over_seed, claim.over_home_baseline, claim.over_baseline)
        verdicts.append([g.verdict if g else "empty" for g in over])
        cells = [
            f"{points(g.difference)} [{points(g.low)}, {points(g.high)}]" if g else claim.headline
            for g in over
        ]
        rho = moved.correlation
        rank = f"{rho.rho:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}], n = {rho.n}" if rho else "–"
        rows.append((str(seed), *cells, rank))
    seed_gains, home, tuned = (sum(v[i] == "gain" for v in verdicts) for i in range(3))
    head = (
        "search", "points over the seed", "over the baseline as tuned at home",
        "over the baseline tuned again there", "rank correlation, home and away",
    )  # fmt: skip
    words = (
        f"The home winner, unchanged, on family b: a gain over the seed in {seed_gains} of {len(rows)}"
        f" searches, over the best baseline as tuned at home in {home}, over the best one tuned again there"
        f" in {tuned}."
    )
    return Claim(title, home >= ENOUGH * len(rows), words, _table(head, rows))


def gap(evidence: Evidence) -> Claim:
    """The winner's score on fresh dev questions is not far above its test score."""
    title = "The winner's dev score is honest: at most 2 points above test"
    rows, gaps = [], []
    for s in evidence.searches:
        if s.best.dev_accuracy is None:
            continue
        gaps.append(s.best.dev_accuracy - s.best.accuracy)
        rows.append((str(s.seed), f"{percent(s.best.dev_accuracy)} (n = {s.best.dev_n:,})", _row(s.best),
                     points(gaps[-1])))  # fmt: skip
    if not rows:
        return Claim(title, None, OPEN)
    words = (
        f"On the fresh dev questions that chose it, less on test: {points(statistics.fmean(gaps))} points on"
        f" average, {points(max(gaps))} at most."
    )
    return Claim(title, max(gaps) <= GAP, words, _table(("search", "fresh dev", "test", "gap"), rows))


def _measured(m: Mapping[str, Any]) -> str:
    return f"{percent(m['accuracy'])} [{percent(m['low'])}, {percent(m['high'])}]"


def _row(row: TestRow) -> str:
    return f"{percent(row.accuracy)} [{percent(row.low)}, {percent(row.high)}]"


def _both(after: Estimate, before: Estimate) -> str:
    return f"{percent(after.value)} / {percent(before.value)}"


def _gain(e: Estimate) -> str:
    if e.value is None or e.low is None or e.high is None:
        return "–"
    return f"{points(e.value)} [{points(e.low)}, {points(e.high)}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
