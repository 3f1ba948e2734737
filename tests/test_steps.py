"""Decoding in buffers that stay where they are: the same answers as in buffers that grow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_engine import answers, lively_model, prompts

from selfdev.engine.engine import Engine
from selfdev.engine.steps import COLUMNS, ROWS, Steps


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively_model(tmp_path_factory.mktemp("steps"), 0)


@pytest.fixture(scope="module")
def plain(path: Path) -> Engine:
    return Engine(path)


@pytest.fixture
def fixed(path: Path) -> Engine:
    return Engine(path, fixed=True)


def steps_of(engine: Engine) -> Steps:
    assert engine.steps is not None
    return engine.steps


def test_rows_that_move_together_go_on_as_before(
    plain: Engine, fixed: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(fixed)
    moves: list[list[int]] = []
    gather = steps.gather

    def noted(at: torch.Tensor, longest: int) -> torch.Tensor:
        moves.append(at[:, 0].tolist())
        return gather(at, longest)

    monkeypatch.setattr(steps, "gather", noted)
    assert answers(fixed, prompts(70), size=70) == answers(plain, prompts(70), size=70)
    assert moves  # some of 70 rows ended early
    assert any(at != list(range(len(at))) for at in moves)


def test_batches_of_any_size_follow_each_other(plain: Engine, fixed: Engine) -> None:
    for count in (3, 40, 17, 70, 1):
        assert answers(fixed, prompts(count), size=count) == answers(plain, prompts(count), size=count)


def test_batches_of_unlike_width_lie_below_each_other(plain: Engine, fixed: Engine) -> None:
    asked = [*prompts(5), *(" ".join(["7", "plus"] * n) for n in (12, 20, 30))]
    assert answers(fixed, asked, size=3, rows=8) == answers(plain, asked, size=3)


def test_a_broken_model_leaves_nothing_behind(plain: Engine, fixed: Engine) -> None:
    name = "model.layers.0.self_attn.v_proj.weight"
    fixed.swap({name: torch.full_like(fixed.model.get_parameter(name), torch.inf)})
    answers(fixed, prompts(40), size=40)
    fixed.swap({})
    assert answers(fixed, prompts(), size=16, limit=3) == answers(plain, prompts(), size=16, limit=3)


def test_a_larger_layout_stays_for_smaller_batches(fixed: Engine) -> None:
    steps = steps_of(fixed)
    answers(fixed, prompts(40), size=40)
    buffers = [flat.data_ptr() for flat in steps._flat]
    answers(fixed, prompts(3), size=3)
    assert [flat.data_ptr() for flat in steps._flat] == buffers


def test_a_step_reads_only_as_many_columns_as_it_must(fixed: Engine) -> None:
    text = " ".join(["7"] * 80)
    answers(fixed, [text] * 2, size=2)
    assert set(steps_of(fixed)._runs) == {(ROWS, COLUMNS, COLUMNS)}


def test_a_gpu_reads_long_prompts_in_small_batches(fixed: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfdev.engine.engine.READ", 100)
    batches = fixed.prepare([" ".join(["7"] * n) for n in (5, 40, 6, 30)], [None] * 4, 64)
    assert [len(batch.places) for batch in batches] == [2, 2]


def test_samples_are_the_same(plain: Engine, fixed: Engine) -> None:
    numbers = torch.rand(20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert fixed.sample("7 plus", 1.0, numbers) == plain.sample("7 plus", 1.0, numbers)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_as_a_cpu_does(path: Path, plain: Engine) -> None:
    # In float32; bfloat16 has ties. Batches of several sizes take several graphs, swaps leave them valid.
    engine = Engine(path, "cuda")
    steps_of(engine)
    weights = {name: value.detach().clone() for name, value in engine.model.named_parameters()}
    for count in (3, 70, 17):
        engine.swap(weights)
        assert answers(engine, prompts(count), size=count) == answers(plain, prompts(count), size=count)
    assert any(key[0] > ROWS for key in steps_of(engine)._runs)
