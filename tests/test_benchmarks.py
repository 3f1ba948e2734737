"""The benchmark: turns are fair, and its figures come from the real engine and sandbox."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from conftest import Family

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "merge_and_score.py"


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_rivals_take_turns_in_another_order_each_round(bench: dict[str, Any]) -> None:
    order: list[str] = []
    rivals = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = bench["take_turns"](rivals, 3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"  # the first round does not count
    assert [len(values) for values in seconds.values()] == [3, 3, 3]


def test_median_is_the_middle_value(bench: dict[str, Any]) -> None:
    assert bench["medians"]({"a": [5.0, 1.0, 2.0]}) == {"a": 2.0}


def test_shares(bench: dict[str, Any]) -> None:
    assert bench["share_equal"](["x", "y", "z", "w"], ["x", "y", "z", "v"]) == 0.75


def test_both_parts_are_measured_on_real_models(bench: dict[str, Any], family: Family) -> None:
    found = bench["measure"](family.seed, family.experts, 3, 2, 1, 1)
    answered = found["answering"]
    assert set(answered["median"]) == {
        "engine with drafts",
        "engine without drafts",
        "transformers generate",
    }
    assert min(answered["median"].values()) > 0
    assert answered["replies equal to generate's"]["engine without drafts"] == 1.0
    isolated = found["sandbox"]
    assert isolated["overhead"] == isolated["median"]["in the sandbox"] - isolated["median"]["plain call"]
    assert isolated["values per model"] == 2 * 3 * 32 * 48  # layers x projections x sides of the tiny family
    assert isolated["models"] == 4
