"""A finished run beside its controls: who is tested, what is said, and that nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeTrain, FakeWorkers, Killed, silent, small_config
from test_finish import MODELS
from test_race import attempt

from selfdev.errors import SelfdevError
from selfdev.evidence.compare import CONTROLS, checked_names, examine_all, search_all
from selfdev.evidence.comparison import Comparison, Examined, Searched, gather, leaders, notes
from selfdev.evidence.controls import Searcher, cost
from selfdev.finish import final_examination, tune_baselines
from selfdev.loop import run_loop
from selfdev.report.compare import write_comparison
from selfdev.store.archive import Archive

CONFIG = small_config()
NAMES = ("untrained", "generator", "cma ties")
PARAMETERS = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Archive]:
    """A finished run."""
    archive = Archive(tmp_path / "run.sqlite", create=True)
    workers = FakeWorkers()
    run_loop(CONFIG, Path("seed"), tmp_path, archive, workers, FakeTrain(), silent)
    tune_baselines(CONFIG, archive, workers, silent)
    best = final_examination(CONFIG, MODELS[0], MODELS[1:], archive, workers, silent)
    archive.put("best", best.name)
    yield archive
    archive.close()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "controls.sqlite", create=True)
    yield opened
    opened.close()


def work(run: Archive, archive: Archive, workers: FakeWorkers | None = None, repeats: int = 1) -> Comparison:
    s = Searcher(CONFIG, Path("seed"), archive, workers or FakeWorkers(), silent, 1)
    budget = 0.5 * cost(
        run.attempts("factory"), CONFIG.task.dev
    )  # the fakes have few behaviours to spend it on
    search_all(s, NAMES, repeats, budget, PARAMETERS)
    kinds = [n if r == 0 else f"{n}, repeat {r + 1}" for n in NAMES for r in range(repeats)]
    examine_all(s, run, kinds)
    return gather(CONFIG, Path("runs/x"), run, archive, NAMES, repeats)


def test_every_control_has_its_best_on_test(run: Archive, archive: Archive) -> None:
    found = work(run, archive)
    assert [row.control for row in found.controls] == list(NAMES)
    best = run.examined("test")[run.get("best") or ""]
    assert found.discovered.chosen is not None
    assert found.discovered.chosen.accuracy == best.accuracy
    for row in found.controls:
        assert row.chosen is not None
        assert row.chosen.n == 20
        assert row.p_holm is not None
        assert row.p is not None
        assert row.p_holm >= row.p


def test_the_second_look_is_at_finalists_of_each_control(run: Archive, archive: Archive) -> None:
    work(run, archive)
    looked = archive.examined("finalist_dev")
    assert {name.rsplit(" ", 1)[0] for name in looked} == set(NAMES)
    assert len(looked) <= CONFIG.finalists * len(NAMES)


def test_test_questions_are_asked_once_and_noted(run: Archive, archive: Archive) -> None:
    first = FakeWorkers()
    found = work(run, archive, first)
    again = FakeWorkers()
    assert work(run, archive, again) == found
    assert (again.written, again.probed, again.tried) == ([], [], [])
    (opened,) = archive.events("test opened")
    assert set(opened["for_"]) == set(archive.examined("test"))


def test_repeats_have_random_numbers_of_their_own(run: Archive, archive: Archive) -> None:
    found = work(run, archive, repeats=2)
    assert [(r.control, r.repeat) for r in found.controls] == [(n, r) for n in NAMES for r in (0, 1)]
    texts = [[a.text for a in archive.attempts(kind)] for kind in ("untrained", "untrained, repeat 2")]
    assert texts[0] != texts[1]


def test_a_killed_comparison_goes_on(run: Archive, archive: Archive, tmp_path: Path) -> None:
    other = Archive(tmp_path / "other.sqlite", create=True)
    expected = work(run, other)
    other.close()
    for lives in (4, 15, 30):
        with pytest.raises(Killed):
            work(run, archive, FakeWorkers(lives=lives))
    assert work(run, archive) == expected


def test_leaders_are_those_of_each_quarter_of_the_budget() -> None:
    tried = [
        replace(attempt(i, right), fingerprint=str(i)) for i, right in enumerate((5, 7, 6, 7, 9, 1, 2, 3))
    ]
    assert [a.id if a else None for a in leaders(tried, 10)] == [1, 1, 4, 4]


def one(accuracy: float) -> Examined:
    return Examined("x", 0.5, 100, accuracy, accuracy - 0.1, accuracy + 0.1, accuracy)


def searched(control: str, accuracy: float | None, p: float) -> Searched:
    chosen = None if accuracy is None else one(accuracy)
    return Searched(control, 0, 5.0, 9, 8, 7, ((5.0, 0.5),), (None,) * 4, chosen, p, p)


@pytest.mark.parametrize(
    ("accuracy", "p", "said"),
    [
        (0.6, 0.001, "Beats cma: 60.0 % on test, discovered +20.0 points (Holm's p 0.001, n = 100)."),
        (0.6, 0.2, "No gain over cma: 60.0 % on test, discovered +20.0 points (Holm's p 0.200, n = 100)."),
        (0.9, 0.01, "Stays below cma: 90.0 % on test, discovered −10.0 points (Holm's p 0.010, n = 100)."),
        (None, 1.0, "cma: nothing could be chosen in 1 of 1 searches."),
    ],
)
def test_what_is_said_of_a_control(accuracy: float | None, p: float, said: str) -> None:
    assert notes(searched("discovered", 0.8, 1.0), [searched("cma", accuracy, p)]) == [said]


def test_equal_results_are_no_claim() -> None:
    (said,) = notes(searched("discovered", 0.8, 1.0), [searched("cma", 0.8, 1.0)])
    assert said.startswith("No gain over cma")


def test_a_name_that_is_no_control_is_refused() -> None:
    assert checked_names([]) == CONTROLS
    with pytest.raises(SelfdevError, match=r"control 'magic' does not exist; choose from untrained, "):
        checked_names(["magic"])


def test_page_and_json_hold_every_search(run: Archive, archive: Archive, tmp_path: Path) -> None:
    write_comparison(work(run, archive, repeats=2), tmp_path)
    page = (tmp_path / "comparison.html").read_text()
    assert all(f">{name}, repeat 2<" in page for name in NAMES)
    assert "http" not in page
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["control"] for row in written["controls"]] == [n for n in NAMES for _ in (0, 1)]
