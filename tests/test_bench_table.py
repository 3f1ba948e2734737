"""The table of the benchmarks from figures made by hand, and the bare DPO step's arithmetic."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import commands
import common
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MACHINE = {"cores": 2, "torch": "2.13.0"}
FOUND: dict[str, Any] = {
    "merging": {
        "machine": MACHINE,
        "size": "small",
        "methods": {
            "linear": {
                "seconds": {"selfdev": 2.0, "mergekit": 8.0, "limit": 1.0},
                "peak GiB": {"selfdev": 1.5, "mergekit": 2.0, "limit": 1.0},
                "times as fast as mergekit": 4.0,
                "goal": 3,
                "memory of mergekit's": 0.75,
                "memory goal": 0.5,
                "times the limit": 2.0,
                "limit goal": 1.4,
            }
        },
        "loop": {"seconds": {"selfdev": 1.2, "bare": 1.0}, "times the bare one": 1.2, "goal": 1.25},
    },
    "writing": {
        "machine": MACHINE,
        "step": {
            "unit": "seconds per step", "ours": "TRL", "theirs": "bare", "ratio": 1.4, "goal": 1.3,
            "median": {"bare": 1.0, "TRL": 1.4},
        },
    },
    "sandbox_entry": {"machine": MACHINE, "1M": {"back_to_back": {"median_ms": 9.5}}},
    "attempts": {"growth": {"questions": {"exponent": 0.9}}},
    "commands": {
        "commands": {
            "selfdev --help": {"seconds": 0.3, "goal": 0.25},
            "lm_eval --help": {"seconds": 1, "goal": None},
        }
    },
    "big_archive": {"attempts": 100_000, "queries_ms": {"attempt by id": 0.01, "questions asked": 1.5}},
}  # fmt: skip


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "table.py"))


def test_every_measured_goal_has_a_line_that_says_whether_it_was_reached(table: dict[str, Any]) -> None:
    assert list(table["rows"](FOUND)) == [
        ("merge small, linear", "2.0 s", "mergekit 8.0 s", "4.0", "≥ 3", "yes"),
        ("peak memory, linear", "1.5 GiB", "mergekit 2.0 GiB", "0.75", "≤ 0.5", "no"),
        ("merge, linear", "2.0 s", "limit 1.0 s", "2.0", "≤ 1.4", "no"),
        ("merge in the loop, linear", "1.2 s", "bare torch 1.0 s", "1.2", "≤ 1.25", "yes"),
        ("seconds per step, TRL", "1.4", "bare 1.0", "1.4", "≤ 1.3", "no"),
        ("selfdev --help", "0.3 s", "", "", "≤ 0.25 s", "no"),
        ("lm_eval --help", "", "1 s", "", "", ""),
        ("program started, models of 1M", "9.5 ms", "", "", "≤ 15 ms", "yes"),
        ("seconds per attempt by questions", "exponent 0.9", "", "", "≤ 1", "yes"),
        ("slowest query of an archive of 100,000 attempts", "1.5 ms", "", "", "≤ 10 ms", "yes"),
    ]


def test_machines_are_told_once(table: dict[str, Any]) -> None:
    assert table["table"](FOUND).endswith("Machine and versions: cores 2, torch 2.13.0.")
    two = [{"cores": 2, "load": 0.5}, {"load": 1.5, "cores": 2}, {}, {"cores": 2, "trl": "1.16.0"}]
    assert table["machines"](two) == "cores 2, load 0.5 or 1.5, trl 1.16.0."


def test_nothing_measured_is_an_empty_table(table: dict[str, Any]) -> None:
    assert list(table["rows"]({})) == []


def test_the_bare_step_adds_up_labelled_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    writing = runpy.run_path(str(BENCHMARKS / "writing.py"))
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4], [1.0, 1.0, 1.0]]]))

    def model(_: object) -> SimpleNamespace:
        return SimpleNamespace(logits=logits)

    labels = torch.tensor([[-100, -100, 1, 2]])
    sums, means = writing["_log_probabilities"](model, labels, labels)
    expected = torch.log(torch.tensor(0.7 * 0.4))
    torch.testing.assert_close(sums, expected[None])
    torch.testing.assert_close(means, expected[None] / 2)


def test_commands_have_medians_and_peers_no_goal() -> None:
    found = commands.told({"selfdev --help": [0.1, 0.3, 0.2], "lm_eval --help": [1.0, 3.0, 2.0]})
    assert found["selfdev --help"] == {"seconds": 0.2, "goal": 0.25, "runs": [0.1, 0.3, 0.2]}
    assert (found["lm_eval --help"]["seconds"], found["lm_eval --help"]["goal"]) == (2.0, None)


def test_our_commands_are_those_that_are_installed() -> None:
    help_ = common.watched(commands.ours("--help"))
    assert "merge" in help_.output
