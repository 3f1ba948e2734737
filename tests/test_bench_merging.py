"""The benchmarks of merging, scoring and attempts: short runs on tiny models, and their arithmetic."""

from __future__ import annotations

import sys
from pathlib import Path

import attempts
import common
import merging
import plain_loop
import pytest
import scoring
import torch
from checkpoints import SIZES, write_models
from common import GIB, Ran
from conftest import Family
from merge_limit import merge as bare_merge
from safetensors.torch import load_file

from selfdev.engine.engine import Engine


def test_a_watched_command_has_time_memory_and_output() -> None:
    code = "import time; kept = b'x' * 200_000_000; time.sleep(1); print('done')"
    ran = common.watched([sys.executable, "-c", code])
    assert ran.output == "done\n"
    assert ran.seconds > 1
    assert 200e6 < ran.beyond_files <= ran.memory < 300e6


def test_a_command_that_fails_tells_why() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        common.watched([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_our_merge_equals_the_bare_one(tmp_path: Path) -> None:
    models = write_models(tmp_path, SIZES["tiny"], 3)
    ran = merging.ours("linear", models, tmp_path / "ours")
    bare_merge(str(tmp_path / "bare"), [str(path) for path in models])
    found, expected = load_file(tmp_path / "ours" / "model.safetensors"), load_file(tmp_path / "bare")
    assert ran.seconds > 0
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].float(), value.float(), rtol=2**-7)


def test_recipes_name_seed_and_experts() -> None:
    models = [Path(name) for name in ("s", "a", "b", "c")]
    ties = merging.recipe("ties", models)
    assert [one["model"] for one in ties["models"]] == ["a", "b", "c"]
    assert ties["models"][0]["parameters"] == {"weight": 0.3, "density": 0.5}
    assert (ties["base_model"], ties["parameters"]) == ("s", {"normalize": True})
    assert [one["model"] for one in merging.recipe("linear", models)["models"]] == ["s", "a", "b", "c"]
    assert [one["model"] for one in merging.recipe("slerp", models)["models"]] == ["s", "a"]


def test_ratios_are_of_medians_and_peaks() -> None:
    ours = [Ran(s, 1 * GIB, GIB // 2, "") for s in (1.0, 2.0, 9.0)]
    theirs = [Ran(s, 4 * GIB, 4 * GIB, "") for s in (8.0, 7.0, 80.0)]
    bare = [Ran(1.0, GIB, GIB, "0.5\n")] * 3
    found = merging.told("linear", {"selfdev": ours, "mergekit": theirs, "limit": bare})
    assert (found["times as fast as mergekit"], found["memory of mergekit's"]) == (4.0, 0.25)
    assert (found["times the limit"], found["limit without its imports"]) == (2.0, 0.5)


def test_the_plain_loop_writes_what_the_engine_writes(family: Family) -> None:
    engine = Engine(family.seed)
    engine.ends = frozenset()
    prompts = ["1 plus 2 is", "3", "4 times 5 is 6"]
    (batch,) = engine.prepare(prompts, [None] * 3, 3)
    weights = dict(engine.model.named_parameters())
    written = plain_loop.PlainLlama(weights, engine.model.config).generate(batch.ids, batch.mask, 8)
    replies = engine.answer([batch], 8, rows=3)
    for place, row in zip(batch.places, written, strict=True):
        assert engine.tokenizer.decode(row, skip_special_tokens=True) == replies[place]


def test_attempts_are_made_on_models_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attempts.SIZES, 1, (64, 1))
    models = attempts.random_models(tmp_path, 1)
    assert attempts.attempts_per_minute(4, workers=1, models=models, attempts=1) > 0


def test_the_exponent_is_that_of_the_larger_half() -> None:
    assert attempts.exponent({1: 1.0, 10: 1.0, 100: 10.0, 1000: 100.0}) == pytest.approx(1.0)
    assert attempts.exponent({10: 5.0, 100: 5.0}) == pytest.approx(0.0)


def test_growth_is_drawn_with_its_exponent() -> None:
    svg = attempts.plot({"questions": attempts.grown({50: 1.0, 100: 2.0, 200: 4.0})})
    assert "exponent 1.00" in svg
    assert svg.count("<circle") == 3


def test_comparison_has_ratio_and_goal() -> None:
    found = scoring.compared({"a": [3.0, 30.0, 6.0], "b": [2.0, 2.0, 2.0]}, "a", "b", "tokens", "x")
    assert (found["ratio"], found["goal"]) == (3.0, 1.0)
