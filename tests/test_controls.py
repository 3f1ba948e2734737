"""Controls spend a budget, no more than they say, and go on where they were interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import QUESTIONS, FakeWorkers, Killed, silent, small_config
from test_race import attempt

from selfdev.evidence.controls import Searcher, cost, random_programs, search_coefficients, write_programs
from selfdev.evidence.search import Space
from selfdev.factory import factory
from selfdev.lineage import Parents
from selfdev.records import Score
from selfdev.store.archive import Archive
from selfdev.workers.workers import Probed

CONFIG = small_config()
SPACE = Space("task_arithmetic", 2)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


class EveryText(FakeWorkers):
    """Every text behaves in a way of its own."""

    def probe(
        self, jobs: Iterable[tuple[str, int]], parents: Parents | None = None
    ) -> Iterator[tuple[int, Probed]]:
        texts = list(jobs)
        for place, probed in super().probe(texts, parents):
            yield place, replace(probed, fingerprint=texts[place][0])


def searcher(archive: Archive, workers: FakeWorkers | None = None) -> Searcher:
    return Searcher(CONFIG, Path("seed"), archive, workers or FakeWorkers(), silent, 5)


def test_cost_counts_questions_and_no_behaviour_twice() -> None:
    half = Score((True,) * 5, (True,) * 5)
    tried = [
        replace(attempt(0, 9), fingerprint="a"),
        replace(attempt(1, 4), fingerprint="b", score=half),
        replace(attempt(2, 9), fingerprint="a"),
        replace(attempt(3, 4), fingerprint="c", score=None),
    ]
    assert cost(tried, 10) == 1.5
    assert cost([], 10) == 0.0


def test_a_coefficient_search_spends_its_budget_to_the_point(archive: Archive) -> None:
    search_coefficients(searcher(archive, EveryText()), "cma", SPACE, "cma", 11)
    found = archive.attempts("cma")
    assert cost(found, QUESTIONS) == len(found) == 11
    assert all("WEIGHT = [" in a.text for a in found)


def test_behaviours_that_come_again_are_free_but_not_for_ever(archive: Archive) -> None:
    search_coefficients(searcher(archive), "cma", SPACE, "cma", 11)  # the fakes see three behaviours
    found = archive.attempts("cma")
    assert cost(found, QUESTIONS) <= 3
    assert 20 * 11 <= len(found) < 21 * 11


def test_untrained_programs_are_written_at_every_temperature(archive: Archive) -> None:
    workers = EveryText()
    write_programs(searcher(archive, workers), "untrained", 60)
    temperatures = [t for _, _, t, _ in workers.written]
    assert temperatures == sorted(temperatures, reverse=True)
    assert set(temperatures) == {factory.temperature(i, 1.2, 0.2) for i in (1, 2, 3)}
    assert {model for model, *_ in workers.written} == {Path("seed")}
    assert {prompt for _, prompt, *_ in workers.written} == {factory.prompt()}


def test_prompted_programs_see_the_best_and_the_last_errors(archive: Archive) -> None:
    workers = FakeWorkers()
    write_programs(searcher(archive, workers), "prompted", 6, prompted=True)
    first, *_, last = [prompt for _, prompt, *_ in workers.written]
    assert first == factory.prompt()
    lines = factory.prompt().rstrip("\n").split("\n")
    assert last.startswith("\n".join(lines[:-1]))
    assert last.endswith(f"{lines[-1]}\n")
    best = max(
        (a for a in archive.attempts("prompted") if a.score), key=lambda a: a.score.accuracy if a.score else 0
    )
    assert best.score is not None
    assert f"# This one reached {best.score.accuracy:.3f}:" in last
    assert "# Another failed: " in last


def test_random_programs_are_the_labs(archive: Archive) -> None:
    random_programs(searcher(archive), "generator", 1, 2)
    texts = [a.text for a in archive.attempts("generator")]
    assert len(set(texts)) > 1
    assert all(text.startswith("def merge_models(models, device):") for text in texts)


CONTROLS: dict[str, Callable[[Searcher], None]] = {
    "cma": lambda s: search_coefficients(s, "x", Space("ties", 2), "cma", 2),
    "untrained": lambda s: write_programs(s, "x", 5),
    "prompted": lambda s: write_programs(s, "x", 5, prompted=True),
    "generator": lambda s: random_programs(s, "x", 2, 2),
}


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("lives", [0, 3, 9, 17])
def test_a_killed_control_ends_as_if_it_had_not_been(tmp_path: Path, name: str, lives: int) -> None:
    ends = []
    for number, limits in enumerate(([10**9], [lives, 10**9])):
        archive = Archive(tmp_path / f"{number}.sqlite", create=True)
        for life in limits:
            try:
                CONTROLS[name](searcher(archive, FakeWorkers(lives=life)))
            except Killed:
                assert life == lives
        ends.append([replace(a, outcome=replace(a.outcome, seconds=0.0)) for a in archive.attempts("x")])
        archive.close()
    assert ends[0] == ends[1]
    assert ends[0]


def test_writers_that_never_reach_a_score_end(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakes.BEHAVIOURS", 1)  # nothing but INVALID
    write_programs(searcher(archive), "untrained", 5)
    assert 20 * 5 <= len(archive.attempts("untrained")) < 22 * 5
    assert not [a for a in archive.attempts("untrained") if a.score]
