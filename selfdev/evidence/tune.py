"""The verb `tune`: the best coefficients of a human-designed method, where no program is to be found.

The method's grid in the config is tuned first, on the same dev questions; the search must beat that on test.
Every point is scored in full. The archive is that of a run, so an interrupted search goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfdev.besides import warnings, what_changed
from selfdev.collect import tested
from selfdev.config.config import Config
from selfdev.cost import bars_of
from selfdev.errors import SelfdevError
from selfdev.evidence.controls import Searcher, cost, search_coefficients
from selfdev.evidence.search import Method, Space, Strategy, space_of
from selfdev.finish import final_examination, notes, test_table, tune_baselines
from selfdev.gate import gate
from selfdev.report.findings import SIGNIFICANT, best_baseline, gain, p_words, points
from selfdev.results import Besides, TestRow
from selfdev.run import (
    Models,
    check_confinement,
    check_questions,
    open_models,
    questions_of,
    settle_config,
    staffed,
)
from selfdev.saving import save_best
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.store.inputs import settle_inputs

KIND = "search"


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What the search found: the method's parameters, the test rows, and the best on dev after each point."""

    method: Method
    strategy: Strategy
    dimension: int
    evaluations: float
    best_name: str
    parameters: dict[str, object]
    curve: tuple[float, ...]
    test: tuple[TestRow, ...]
    notes: tuple[str, ...]
    out: str
    besides: Besides | None = None


def tune(
    config: Config, folder: Path, method: Method = "task_arithmetic", *, by_layer: bool = False,
    strategy: Strategy = "cma", evaluations: int = 300,
) -> TuneResult:  # fmt: skip
    """Search in `folder`, going on with what its archive holds; the best model is written to best/ there."""
    if method not in config.baselines:
        raise SelfdevError(
            f"baselines.{method} is not in the config; give it the grid that the search must beat."
        )
    config = config.model_copy(update={"task": config.task.model_copy(update={"first_block": 0})})
    check_confinement(config)
    models = open_models(config)
    check_questions(config)
    space = space_of(method, len(models.experts), [s.name for s in models.shown[0].slots], by_layer)
    with open_archive(folder) as archive:
        settle_config(config, folder, archive)
        _settle_search(archive, folder, {"method": method, "by_layer": by_layer, "strategy": strategy})
        if archive.get("best") is None:
            _work(config, models, space, strategy, evaluations, folder, archive)
        return _result(config, space, strategy, folder, archive)


def _settle_search(archive: Archive, folder: Path, asked: dict[str, object]) -> None:
    kept = archive.get("search")
    if kept is None:
        archive.put("search", json.dumps(asked))
    elif json.loads(kept) != asked:
        raise SelfdevError(f"{folder} holds another search ({kept}); give another --out.")


def _work(
    config: Config, models: Models, space: Space, strategy: Strategy, evaluations: int, folder: Path,
    archive: Archive,
) -> None:  # fmt: skip
    bars = bars_of(config, archive)
    settle_inputs(questions_of(config), [models.seed, *models.experts], archive)
    with staffed(config, models) as (laid, workers):
        tune_baselines(config, archive, workers, bars)
        s = Searcher(config, laid.factory, archive, workers, bars, config.seed)
        search_coefficients(s, KIND, space, strategy, evaluations)
        best = final_examination(config, laid.seed, laid.experts, archive, workers, bars, KIND)
        save_best(config, laid.seed, laid.experts, best, folder, archive)
    archive.put("best", best.name)


def _result(config: Config, space: Space, strategy: Strategy, folder: Path, archive: Archive) -> TuneResult:
    best = archive.get("best") or "seed"
    rows = test_table(*tested(config, archive, best))
    attempts = archive.attempts(KIND)
    code = folder / "best" / "program.py"
    found = gate.parameters(code.read_text(encoding="utf-8")) if code.is_file() else {}
    besides = what_changed(archive, best, [task.title for task in config.besides])
    said = (*verdict(rows, best), *notes(rows, best), *warnings(besides))
    return TuneResult(
        space.method, strategy, space.dimension, cost(attempts, config.task.dev), best, found,
        tuple(_best_so_far(archive)), rows, said, str(folder), besides,
    )  # fmt: skip


def _best_so_far(archive: Archive) -> list[float]:
    best, curve = 0.0, []
    for attempt in archive.attempts(KIND):
        best = max(best, attempt.score.accuracy if attempt.score else 0.0)
        curve.append(best)
    return curve


def verdict(rows: Sequence[TestRow], best: str) -> list[str]:
    """Whether the search beats the tuned grid on test, in one sentence; none where nothing was found."""
    found, rival = next((r for r in rows if r.name == best), None), best_baseline(tuple(rows))
    if found is None or rival is None or found.kind != "discovered":
        return []
    g = gain(rival.name, found, rival, found.p_vs_best_baseline, found.interval_vs_best_baseline)
    surely = g.p is not None and g.p < SIGNIFICANT
    words = "beats" if surely and g.difference > 0 else "stays below" if surely else "is no gain over"
    interval = f"95 % interval {points(g.low)} to {points(g.high)}"
    test = f"{interval}, {p_words(g.p)}, n = {found.n:,}"
    return [f"The search {words} {g.over}: {points(g.difference)} points ({test})."]
