"""A real search over coefficients on a tiny family, and what it says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from writing_family import build
from writing_run import settings

from selfdev.checkpoints import open_checkpoint
from selfdev.errors import SelfdevError
from selfdev.evidence import tune
from selfdev.evidence.tune import TuneResult, verdict
from selfdev.finish import test_table as rows_of
from selfdev.gate import gate
from selfdev.records import Score
from selfdev.store.archive import Archive

EVALUATIONS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def found(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TuneResult]:
    folder = tmp_path_factory.mktemp("searches") / "tiny"
    return folder, tune.tune(settings(root), folder, evaluations=EVALUATIONS)


def test_every_point_is_scored_in_full_and_the_budget_kept(found: tuple[Path, TuneResult]) -> None:
    folder, result = found
    archive = Archive(folder / "archive.sqlite")
    tried = archive.attempts("search")
    archive.close()
    assert {a.score.n for a in tried if a.score} == {10}
    assert result.evaluations <= EVALUATIONS <= len(tried)
    assert list(result.curve) == sorted(result.curve)
    assert len(result.curve) == len(tried)


def test_the_best_program_has_the_parameters_that_are_told(found: tuple[Path, TuneResult]) -> None:
    folder, result = found
    code = (folder / "best" / "program.py").read_text()
    assert gate.parameters(code) == result.parameters
    assert len(result.parameters["WEIGHT"]) == 2  # type: ignore[arg-type]
    assert open_checkpoint(folder / "best" / "model", "best").slots


def test_the_tuned_grid_stands_beside_it_on_test(found: tuple[Path, TuneResult]) -> None:
    rows = {row.name: row for row in found[1].test}
    assert rows[found[1].best_name].kind == "discovered"
    assert {row.n for row in rows.values()} == {30}
    assert rows["task_arithmetic WEIGHT=0.3"].kind == "baseline"
    assert any(note.startswith("The search ") for note in found[1].notes)


def test_a_finished_search_is_read_back(
    found: tuple[Path, TuneResult], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "staffed", None)  # nothing is left to do
    assert tune.tune(settings(root), found[0], evaluations=EVALUATIONS) == found[1]


def test_another_search_needs_another_folder(found: tuple[Path, TuneResult], root: Path) -> None:
    with pytest.raises(SelfdevError, match=r"holds another search .* give another --out"):
        tune.tune(settings(root), found[0], strategy="random", evaluations=EVALUATIONS)


def test_a_method_without_a_grid_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match=r"baselines.ties is not in the config; give it the grid"):
        tune.tune(settings(root), tmp_path / "x", "ties")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("right", "words"), [(40, "beats"), (20, "is no gain over"), (2, "stays below")])
def test_the_verdict_is_paired(right: int, words: str) -> None:
    def score(correct: int) -> Score:
        bits = tuple(i < correct for i in range(50))
        return Score(bits, bits)

    scores = {"seed": score(10), "ties X=1": score(20), "search 1.0": score(right)}
    kinds = [("seed", "seed"), ("ties X=1", "baseline"), ("search 1.0", "discovered")]
    (said,) = verdict(rows_of(kinds, scores, {}), "search 1.0")  # type: ignore[arg-type]
    assert said.startswith(f"The search {words} ties X=1: ")
    assert "n = 50" in said


def test_nothing_found_is_no_verdict(found: tuple[Path, TuneResult]) -> None:
    rows = [replace(row, kind="seed") if row.kind == "discovered" else row for row in found[1].test]
    assert verdict(rows, found[1].best_name) == []


def test_the_run_folder_is_that_of_a_run(found: tuple[Path, TuneResult]) -> None:
    names = {path.name for path in found[0].iterdir()}
    assert {"config.yaml", "environment.json", "archive.sqlite", "best"} <= names
    archive = Archive(found[0] / "archive.sqlite")
    assert json.loads(archive.get("search") or "") == {
        "method": "task_arithmetic", "by_layer": False, "strategy": "cma",
    }  # fmt: skip
    archive.close()
