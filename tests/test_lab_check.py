"""The check of the arena: its grid is the demo's, and the figures of a small one follow from each other."""

from __future__ import annotations

import pytest

from selfdev.config.config import load_config
from selfdev.errors import SelfdevError
from selfdev.lab import check as lab_check
from selfdev.lab import experts
from selfdev.stats import wilson


def test_the_demos_baselines_are_those_of_the_check() -> None:
    config = load_config("configs/lab.yaml")
    shipped = {name: list(sets) for name, sets in config.baselines.items()}
    assert shipped == lab_check.grid(len(config.models.experts))


@pytest.mark.parametrize("family", ["a", "b"])
def test_the_grid_leaves_out_every_expert_once(family: str) -> None:
    sets = lab_check.grid(len(experts(family)))["task_arithmetic"]
    lists = [s["WEIGHT"] for s in sets if isinstance(s["WEIGHT"], list)]
    assert {weights.index(0.0) for weights in lists} == set(range(len(experts(family))))


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(SelfdevError, match="family 'c' does not exist; choose a or b"):
        lab_check.check("c")


def test_a_small_check_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_check, "DEV", 40)
    monkeypatch.setattr(lab_check, "TEST", 60)
    small = {"linear": [{}], "task_arithmetic": [{"WEIGHT": 0.1}, {"WEIGHT": 5.0}]}
    monkeypatch.setattr(lab_check, "grid", lambda _: small)
    result = lab_check.check("b", evaluations=16)
    assert (result.dev, result.test, result.evaluations) == (40, 60, 16)
    assert result.baseline.name in ("linear", "task_arithmetic WEIGHT=0.1")  # five times all experts is noise
    assert result.baseline_gain == pytest.approx(result.baseline.accuracy - result.seed.accuracy)
    assert result.oracle_gain == pytest.approx(result.oracle.accuracy - result.baseline.accuracy)
    assert [len(row) for row in result.oracle_coefficients] == [3] * 6  # layers of family b, six experts
    low, high = wilson(round(result.seed.accuracy * 60), 60)
    assert (result.seed.low, result.seed.high) == pytest.approx((low, high))
    assert result.a_holds == (result.baseline_gain >= 0.05)
    assert result.b_holds == (result.oracle_gain >= 0.03 and result.p_oracle_vs_baseline < 0.01)
