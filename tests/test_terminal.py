"""What the terminal shows of a run and of other results."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console
from sample_result import nothing_scored, result, row

from selfdev.cli.terminal import print_mapping, print_record, print_run, print_transfer
from selfdev.evidence.transfer_result import Claim, Failed, TransferResult
from selfdev.records import State
from selfdev.results import RunResult
from selfdev.stats import Correlation


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=140)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def show(made: RunResult, console: Console) -> str:
    print_run(made, console)
    return shown(console)


def test_run_shows_headline_tables_and_time(console: Console) -> None:
    words = show(result(), console)
    assert "beats the best tuned baseline by 4.2 points (95 % interval +2.3 to +6.1)." in words
    assert "Search (320 dev questions)" in words
    assert "Test (5,000 questions)" in words
    assert "Nearest human-designed method: task_arithmetic, distance 0.137." in words
    assert "Time: 5 min 31 s." in words


def test_where_programs_were_stopped_the_questions_of_all_are_named(console: Console) -> None:
    turns = tuple(replace(turn, dev_common=48) for turn in result().iterations)
    assert "320 dev questions; mean and median: the first 48" in show(
        replace(result(), iterations=turns), console
    )


def test_chosen_program_is_marked_and_rows_are_sorted(console: Console) -> None:
    lines = show(result(), console).splitlines()
    kinds = ("discovered", "baseline", "seed", "expert")
    names = [line.split("  ")[0] for line in lines if any(f"  {kind}  " in line for kind in kinds)]
    assert names[:3] == ["program 3.117 *", "program 2.041", "program 1.200"]
    assert names[-3:] == ["seed", "sum", "difference"]


def test_iteration_row_has_its_numbers(console: Console) -> None:
    row = next(line for line in show(result(), console).splitlines() if line.split()[:1] == ["1"])
    assert row.split()[:5] == ["1", "1.20", "256", "164", "(64"]


def test_run_without_a_score_or_a_test(console: Console) -> None:
    words = show(nothing_scored(), console)
    assert "No program could be scored." in words
    assert "Test (" not in words


def test_names_with_brackets_are_shown_as_they_are(console: Console) -> None:
    assert "slerp[red]" in show(result(notes=("slerp[red] was best",)), console)


def test_a_run_without_iterations(console: Console) -> None:
    assert "0 were written" in show(result(iterations=(), test=(), best_name=""), console)


def transferred(correlation: Correlation | None) -> TransferResult:
    """Three models away and a program that failed there, made up."""
    tested = (
        row("seed", "seed", 0.41),
        row("linear (home)", "home baseline", 0.44),
        row("program 3.117", "discovered", 0.52),
    )
    failed = (Failed("slerp EXPERT=5 (home)", "home baseline", State.CRASHED, "ValueError: EXPERT is 5"),)
    claim = Claim("gain", "The home winner, program 3.117, beats it.", "In full.", None, None, None)
    return TransferResult(
        "runs/demo",
        "away",
        {},
        {},
        "program 3.117",
        tested,
        failed,
        claim,
        correlation,
        12,
        ("A note.",),
        61.0,
    )


def test_transfer_shows_table_failures_and_claim(console: Console) -> None:
    print_transfer(transferred(Correlation(0.8537, 0.4357, 1.0, 10)), console)
    words = shown(console)
    assert "program 3.117 *" in words
    assert "- slerp EXPERT=5 (home) (home baseline) ended in CRASHED: ValueError: EXPERT is 5" in words
    assert "home dev and away test: +0.85 (95 % interval +0.44 to +1.00, n = 10)." in words
    assert "The home winner, program 3.117, beats it." in words
    assert "Time: 1 min 01 s." in words


def test_transfer_says_that_there_is_no_rank_correlation(console: Console) -> None:
    print_transfer(transferred(None), console)
    assert "none, it takes three of different scores" in shown(console)


@dataclass(frozen=True)
class Ended:
    state: str
    seconds: float
    reason: str = ""
    out: Path | None = None
    parameters: dict[str, object] = field(default_factory=dict)


def test_record_shows_what_it_has(console: Console) -> None:
    print_record(Ended("MERGED", 1.23456, parameters={"WEIGHT": [0.1, 0.2]}), console)
    assert [line.split() for line in shown(console).splitlines()] == [
        ["state", "MERGED"],
        ["seconds", "1.235"],
        ["parameters", "WEIGHT:", "0.1,", "0.2"],
    ]


def test_mapping_in_mapping(console: Console) -> None:
    print_mapping({"a": {"seed": "/x", "experts": {"sum": "/y"}}}, console)
    assert "seed: /x" in shown(console)
    assert "sum: /y" in shown(console)
