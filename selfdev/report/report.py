"""report.html: what a run found, on one page that opens offline, also on paper and on a phone."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from selfdev.report import figures
from selfdev.report.besides import besides_section
from selfdev.report.figures import section, table
from selfdev.report.findings import Findings, Gain, duration, findings, p_words, percent, points, scored
from selfdev.report.line import line_section
from selfdev.report.scores import dev_test, scores_section
from selfdev.report.training import training_section
from selfdev.results import RunResult

BADGES = {
    "gain": "Gain over seed and baselines",
    "no gain": "No gain",
    "worse": "Worse",
    "empty": "Nothing to claim",
}


def write_report(result: RunResult, path: Path) -> None:
    """Write the report of a run as one HTML file; the old file stays until the new one is whole."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(render(result), encoding="utf-8")
    draft.replace(path)


def render(result: RunResult) -> str:
    """The whole page as text."""
    found = findings(result)
    parts = (
        _header(result, found),
        _notes(result.notes),
        _tiles(result, found),
        scores_section(result, found),
        besides_section(result.besides),
        _search(result, found),
        line_section(result.promotions),
        training_section(result),
        _program(result),
        _cost(result),
        _settings(result),
    )
    return page(f"{result.name} · selfdev report", "".join(parts))


def page(title: str, body: str) -> str:
    """A whole HTML page with the report's style."""
    style = files("selfdev.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )


def _header(result: RunResult, found: Findings) -> str:
    gained = [g.over for g in (found.over_baseline, found.over_seed) if g and g.verdict == "gain"]
    words = f"Gain over {gained[0]} only" if found.verdict == "partial" else BADGES[found.verdict]
    badge = f'<span class="badge badge-{found.verdict.replace(" ", "-")}">{words}</span>'
    return (
        f'<header><p class="run">{badge}<span>{escape(result.name)}</span></p>'
        f'<h1>{escape(found.headline)}</h1><p class="detail">{escape(found.detail)}</p>'
        f"<p>{escape(_about(result))}</p></header>\n"
    )


def _about(result: RunResult) -> str:
    """The experiment in one line, from the config."""
    models, task = result.config.get("models", {}), result.config.get("task", {})
    words = [f"Seed {models['seed']}"] if "seed" in models else []
    words += [f"experts {', '.join(models['experts'])}"] if "experts" in models else []
    words += [f"task {task['name']}"] if "name" in task else []
    words += [f"skills {', '.join(task['skills'])}"] if task.get("skills") else []
    words += [f"random seed {result.config['seed']}"] if "seed" in result.config else []
    return " · ".join([*words, duration(result.seconds)])


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<aside aria-label="Notes"><ul>{items}</ul></aside>\n' if items else ""


def _tiles(result: RunResult, found: Findings) -> str:
    first, last = (result.iterations[0], result.iterations[-1]) if result.iterations else (None, None)
    tiles = []
    if found.best:
        interval = f"{percent(found.best.low)} to {percent(found.best.high)}, n = {found.best.n:,}"
        tiles.append(_tile("Best program, test", percent(found.best.accuracy), interval))
    tiles += [_gain_tile(g) for g in (found.over_baseline, found.over_seed) if g]
    if first and last:
        shares = [percent(t.states.get("SCORED", 0) / max(t.written, 1), 0) for t in (first, last)]
        means = [percent(t.dev_mean) for t in (first, last)]
        tiles.append(_tile("Yield", _change(shares), "programs that reached a score"))
        tiles.append(_tile("Mean dev score", _change(means), f"first {last.dev_common:,} questions of each"))
    written = sum(turn.written for turn in result.iterations)
    behaviours = sum(turn.unique for turn in result.iterations)
    tiles.append(
        _tile("Programs written", f"{written:,}", f"{scored(result):,} scored, {behaviours:,} distinct")
    )
    return f'<section class="tiles" aria-label="Key figures">{"".join(tiles)}</section>\n'


def _tile(label: str, value: str, small: str) -> str:
    return (
        f'<div class="tile"><h2>{escape(label)}</h2><p class="value">{value}</p><p>{escape(small)}</p></div>'
    )


def _gain_tile(g: Gain) -> str:
    verdict = " · no gain" if g.verdict == "no gain" else ""
    small = f"points, {points(g.low)} to {points(g.high)}, {p_words(g.p)}{verdict}"
    return _tile(f"Over {g.over}", points(g.difference), small)


def _change(values: list[str]) -> str:
    """The first and the last value; one alone where the run had one iteration."""
    first, last = (escape(value) for value in values)
    return last if first == last else f'{first.removesuffix(" %")} <span aria-label="to">→</span> {last}'


def _search(result: RunResult, found: Findings) -> str:
    turns = result.iterations
    if not turns:
        return section("The search", lead="No iteration was finished.")
    charts = (
        figures.distribution(turns, found.seed, found.baseline),
        dev_test(result.test, result.best_name),
        figures.outcomes(turns),
        figures.temperature(turns),
    )
    lead = f"{len(turns)} iterations." if len(turns) > 1 else "One iteration: nothing to compare it with."
    return section("The search", f'<div class="charts">{"".join(charts)}</div>', lead=lead)


def _program(result: RunResult) -> str:
    if not result.best_program:
        return ""
    near = "It was not compared with the human-designed methods."
    if result.best_nearest is not None and result.best_distance is not None:
        near = (
            f"Nearest human-designed method: {result.best_nearest}, at distance {result.best_distance:.3g} in"
            " behaviour on the same probe tensors (0: the same)."
        )
    code = highlight(result.best_program)
    return section(
        f"Best program: {result.best_name}", f'<div class="code" tabindex="0">{code}</div>', lead=near
    )


def highlight(code: str) -> str:
    """Python text as HTML whose classes style.css colours."""
    from pygments import highlight as paint
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return str(paint(code, PythonLexer(), HtmlFormatter()))


def _cost(result: RunResult) -> str:
    total = sum(result.stage_seconds.values())
    rows = [
        (stage, duration(seconds), percent(seconds / total if total else 0, 0))
        for stage, seconds in sorted(result.stage_seconds.items(), key=lambda item: -item[1])
    ]
    if not rows:
        return ""
    cost = result.cost
    asked = [
        ("asked of programs in the search", f"{cost.dev:,}"),
        ("spared by stopping hopeless programs early", f"{cost.spared_by_race:,}"),
        ("spared by knowing a behaviour again", f"{cost.spared_by_behaviour:,}"),
        ("asked on fresh dev questions at the end", f"{cost.finalist_dev:,}"),
        ("asked on test", f"{cost.test:,}"),
    ]
    used = [
        ("tokens of programs", f"{cost.tokens_of_programs:,}"),
        ("tokens of answers", f"{cost.tokens_of_answers:,}"),
        *([("GPU hours", f"{cost.gpu_hours:,.2f}")] if cost.gpu_hours else []),
        *([("energy of the GPUs", f"{cost.joules / 3.6e6:,.2f} kWh")] if cost.joules is not None else []),
    ]
    tables = table(("stage", "time", "share"), rows) + table(("questions", "count"), asked)
    tables += table(("used", "amount"), used)
    return section("Cost", tables, lead=f"Whole run: {duration(result.seconds)}.")


def _settings(result: RunResult) -> str:
    return section(
        "To repeat it",
        _folded("Config", result.config),
        _folded("Environment", result.environment),
        lead=str(result.environment.get("confinement", "")),
    )


def _folded(title: str, values: dict[str, Any]) -> str:
    words = yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else "not recorded"
    return f"<details><summary>{title}</summary><pre>{escape(words)}</pre></details>"
