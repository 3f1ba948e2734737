"""The simulation of many workers, and a large archive in its short form."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import small_config

from selfdev.records import Outcome, Score, State
from selfdev.store.archive import Archive

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARKS / "scale.py"))


@pytest.fixture
def times(scale: dict[str, Any]) -> Any:
    return scale["Times"](write=8.0, probe=0.3, attempt=10.0, train=100.0, limit=60.0, programs=400, batch=8)


def test_one_worker_takes_the_sum_of_all_times_and_what_deaths_cost(
    scale: dict[str, Any], times: Any
) -> None:
    alone = scale["turn"](times, 1)
    assert 0.8 < alone["efficiency_attempts"] < 1
    whole = scale["turn"](times, 1, stragglers=0.0, failures=0.0)
    assert whole["efficiency_attempts"] > 0.98  # but for the driver's share
    assert alone["turn_h"] * 3600 == pytest.approx(
        sum(alone[part] for part in ("write_s", "probes_s", "attempts_s", "dpo_s"))
    )


def test_more_workers_are_faster_and_never_more_than_efficient(scale: dict[str, Any], times: Any) -> None:
    rows = scale["study"](times, (1, 4, 16, 64))["rows"]
    seconds = [row["attempts_s"] for row in rows]
    assert seconds == sorted(seconds, reverse=True)
    assert all(0 < row[key] <= 1 for row in rows for key in scale["CURVES"])
    assert rows[-1]["efficiency_turn"] < rows[0]["efficiency_turn"]  # one GPU trains while all others wait


def test_the_papers_times_keep_64_workers_busy(scale: dict[str, Any]) -> None:
    found = scale["study"](scale["paper_times"](), (64,))
    assert found["times_s"]["programs"] == 3000
    assert found["failures"] == 0.01
    assert found["rows"][0]["efficiency_without_stragglers"] >= 0.9
    assert found["rows"][0]["efficiency_attempts"] >= 0.7  # whoever meets the 600 s limit last is waited for


def test_a_simulated_worker_that_dies_is_replaced_after_its_loading(scale: dict[str, Any]) -> None:
    clock = scale["Clock"]()
    staff = scale["Staff"](clock, 0)
    (first,) = staff.hire(1)
    first.give(print, (0, (10.0, 1.0)))
    assert staff.wait([first], 0.5) == [first]
    died = clock.now
    assert 0 < died < 10
    with pytest.raises(scale["Died"]):
        first.take()
    (second,) = staff.hire(1)
    second.give(print, (0, (1.0, 0.0)))
    staff.wait([second], 0.5)
    assert clock.now == pytest.approx(died + scale["LOAD"] + 1.0)


def test_the_plot_is_a_drawing_of_its_own(scale: dict[str, Any], times: Any) -> None:
    drawn = ET.fromstring(scale["plot"](scale["study"](times, (1, 2, 8))["rows"]))
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(drawn.findall(".//{*}path")) == len(scale["CURVES"])


def test_a_large_archive_is_resumed_and_reported(tmp_path: Path) -> None:
    big = runpy.run_path(str(BENCHMARKS / "big_archive.py"))
    found = big["measure"](tmp_path, 2000)
    assert found["attempts"] == 2000
    assert found["resume"]["mb_of_archive"] < big["LIMITS"]["resume_mb"]
    assert set(found["queries_ms"]) >= {"attempt by id", "questions asked"}
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_recorded_run_gives_its_own_times_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    replay = runpy.run_path(str(BENCHMARKS / "scale_replay.py"))
    config = small_config(workers=2, factory={"programs": 4, "iterations": 1, "batch": 2})
    archive = Archive(tmp_path / "archive.sqlite", create=True)
    archive.add_written("factory", 1, [""] * 4, ["a", "b", "c", "d"], [0] * 4)
    for ident in (1, 2, 3):
        probed = replace(archive.attempt(ident), fingerprint=f"print {ident}")
        archive.set_probe(replace(probed, outcome=Outcome(State.MERGED)))
    merged, ten, five = Outcome(State.MERGED, seconds=1.0), (True,) * 10, (True,) * 5
    archive.set_result(1, merged, Score(ten, ten))
    archive.set_result(2, merged, Score(five, five))
    archive.set_result(3, Outcome(State.TIMED_OUT, seconds=4.0), None)
    archive.set_probe(replace(archive.attempt(4), outcome=Outcome(State.INVALID)))
    for name, seconds in (("write", 3.0), ("gate and probes", 2.0), ("run and score", 18.0), ("DPO", 7.0)):
        archive.log("stage", name=f"iteration 1: {name}", seconds=seconds)
    # 18 s of two workers less 6 s of programs are 30 s for 15 questions.
    (work,) = replay["recorded"](config, archive)
    assert (work.batches, work.probes, work.train) == ([3.0, 3.0], [1.0] * 4, 7.0)
    assert work.attempts == [1.0 + 20.0, 1.0 + 10.0, 4.0]
    found = replay["study"](config, archive)
    assert found["recorded_s"] == 18.0
    assert found["again_s"] == pytest.approx(21.0, abs=0.1)  # the longest attempt alone takes as long
    archive.close()
