"""Layer by layer: a local program gives the bits of a whole run, in blocks; any other runs at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from conftest import Family
from test_lora import adapter

from selfdev import blocks
from selfdev.checkpoints import ModelView, open_checkpoint, tensor, views
from selfdev.errors import SelfdevError
from selfdev.library import load_program
from selfdev.locality import only, probe_sets
from selfdev.merge import merge
from selfdev.records import Program, State
from selfdev.sandbox import Limits, Sandbox, parent
from selfdev.stream import MOST_BLOCKS, Streamed, _shortened, layer_groups, run_program

LIMITS = Limits(60.0, 2.0)


@pytest.fixture(scope="module")
def shown(family: Family) -> tuple[ModelView, ...]:
    return views(*family.open(), "all")


def streamed(program: Program, shown: Sequence[ModelView]) -> tuple[Streamed, dict[str, torch.Tensor]]:
    """The result of a streamed run, put together again."""
    found: dict[str, torch.Tensor] = {}

    def put(block: Mapping[str, torch.Tensor]) -> None:
        found.update({name: value.clone() for name, value in block.items()})

    return run_program(program, shown, LIMITS, put, accept_weaker=True), found


def test_parameters_of_a_layer_stay_together() -> None:
    names = [
        "lm_head.weight",
        "model.layers.0.a.weight",
        "model.layers.0.b.weight",
        "model.layers.1.a.weight",
    ]
    assert layer_groups(names) == [names[:1], names[1:3], names[3:]]


def test_very_many_layers_join() -> None:
    names = [f"layers.{layer}.w" for layer in range(3 * MOST_BLOCKS)]
    assert [len(group) for group in layer_groups(names)] == [3] * MOST_BLOCKS
    assert [name for group in layer_groups(names) for name in group] == names


def test_any_two_groups_are_apart_in_some_part(shown: tuple[ModelView, ...]) -> None:
    names = [[slot.name] for slot in shown[0].slots]
    parts = [{s.name for s in part[0].slots} for key, part in probe_sets(shown, names).items() if " " in key]
    assert len(parts) == 2 * 5  # 21 parameters have places of five binary digits
    for (one,) in names:
        for (other,) in names:
            assert one == other or any(one in part and other not in part for part in parts)


@pytest.mark.parametrize("name", ["ties", "dare_ties"])
def test_local_program_runs_in_blocks_and_gives_the_same_bits(
    shown: tuple[ModelView, ...], name: str
) -> None:
    program = load_program(name, {"DENSITY": 0.5})
    with Sandbox({"models": shown}, LIMITS, accept_weaker=True) as sandbox:
        whole = sandbox.run(program, 0)
        assert whole.tensors is not None
        done, found = streamed(program, shown)
        assert (done.outcome.state, done.blocks) == (State.MERGED, 5)  # head, embedding, 2 layers, norm
        assert list(found) == list(whole.tensors)
        assert all(torch.equal(found[name], value) for name, value in whole.tensors.items())
        assert done.outcome.weights_hash == whole.outcome.weights_hash


def test_program_whose_random_numbers_depend_on_the_order_runs_at_once(shown: tuple[ModelView, ...]) -> None:
    program = load_program("della_linear")
    with Sandbox({"models": shown}, LIMITS, accept_weaker=True) as sandbox:
        whole = sandbox.run(program, 0)
        done, found = streamed(program, shown)
        assert done.blocks == 1
        assert whole.tensors is not None
        assert all(torch.equal(found[name], value) for name, value in whole.tensors.items())


def test_a_layer_that_depends_on_the_one_before_is_no_block(shown: tuple[ModelView, ...]) -> None:
    code = """def merge_models(models, device):
    seed, expert = models["seed"], models["add"]
    merged = dict(seed)
    for name in seed:
        before = name.replace("layers.1", "layers.0")
        merged[name] = seed[name] + 0.1 * expert[before if before in seed else name]
    return merged
"""
    assert streamed(Program(code), shown)[0].blocks == 1


@pytest.mark.parametrize("dtype", [None, "F32"])
def test_adapters_and_float32_are_made_block_by_block(
    family: Family, tmp_path: Path, dtype: str | None
) -> None:
    seed = open_checkpoint(family.seed, "seed")
    tuned = open_checkpoint(adapter(family.seed, tmp_path / "a"), "tuned", seed)
    shown = views(seed, [tuned], "all", dtype)
    done, found = streamed(load_program("task_arithmetic", {"WEIGHT": 1.0}), shown)
    assert (done.outcome.state, done.blocks, done.outcome.copy_of) == (State.MERGED, 5, "tuned")
    for slot in shown[1].slots:
        assert found[slot.name].dtype == torch.bfloat16
        assert torch.equal(found[slot.name], tensor(slot))


def test_float32_result_that_does_not_fit_float16_is_bad_weights(tmp_path: Path) -> None:
    from conftest import build_family

    half = build_family(tmp_path, torch.float16)
    shown = views(*half.open(), "mlp", "F32")
    code = "def merge_models(models, device):\n    return {n: v + 1e6 for n, v in models['seed'].items()}\n"
    done, _ = streamed(Program(code), shown)
    assert done.outcome.state is State.BAD_WEIGHTS


def test_copy_must_hold_in_every_block(shown: tuple[ModelView, ...]) -> None:
    code = """def merge_models(models, device):
    seed = models["seed"]
    return {n: (models["add"] if "layers.0" in n else seed)[n].clone() for n in seed}
"""
    done, _ = streamed(Program(code), shown)
    assert (done.blocks, done.outcome.copy_of) == (5, None)


def test_helpers_take_blocks_and_change_nothing(
    shown: tuple[ModelView, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load_program("ties", {"DENSITY": 0.5})
    alone, found = streamed(program, shown)
    monkeypatch.setattr(parent, "PAYS", -1.0)
    monkeypatch.setattr(blocks, "_helpers", lambda: 2)
    together, again = streamed(program, shown)
    assert together.outcome.weights_hash == alone.outcome.weights_hash
    assert list(again) == list(found)
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_what_cannot_be_written_ends_the_merge_at_once(shown: tuple[ModelView, ...]) -> None:
    def put(_: Mapping[str, torch.Tensor]) -> None:
        raise SelfdevError("the disk is full; make room")

    with pytest.raises(SelfdevError, match="the disk is full"):
        run_program(load_program("linear"), shown, LIMITS, put, accept_weaker=True)


def test_an_abandoned_sandbox_runs_nothing_more(shown: tuple[ModelView, ...]) -> None:
    with Sandbox({"models": shown}, LIMITS, accept_weaker=True) as sandbox:
        sandbox.abandon()
        with pytest.raises(SelfdevError, match="given up"):
            sandbox.run(load_program("linear"), 0)


def test_program_that_fails_in_a_late_block_writes_nothing(family: Family, tmp_path: Path) -> None:
    # On the probes, whose longest side is 8, it works.
    code = """def merge_models(models, device):
    seed = models["seed"]
    return {n: v / (0 if "layers.1" in n and v.numel() > 100 else 1) for n, v in seed.items()}
"""
    (tmp_path / "p.py").write_text(code)
    result = merge(
        str(tmp_path / "p.py"), family.seed, family.experts, out=tmp_path / "out", accept_weaker=True
    )
    assert result.state is not State.MERGED
    assert [path.name for path in tmp_path.iterdir()] == ["p.py"]


def test_only_keeps_order(shown: tuple[ModelView, ...]) -> None:
    names = [slot.name for slot in shown[0].slots]
    assert [slot.name for slot in only(shown, names[::-2])[1].slots] == sorted(names[::-2], key=names.index)


def test_the_time_limit_holds_over_probes_and_the_run(shown: tuple[ModelView, ...]) -> None:
    endless = Program(
        "def merge_models(models, device):\n    while models:\n        pass\n    return models['seed']\n"
    )
    done = run_program(endless, shown, Limits(1.0, 2.0), lambda _: None, accept_weaker=True)
    assert done.outcome.state is State.TIMED_OUT
    assert done.outcome.reason.startswith("not finished after 1 s")
    assert 1 <= done.outcome.seconds < 1 + 2


@pytest.mark.parametrize(("waited", "left"), [(0.0, 4.0), (1.3, 4.0), (2.3, 3.0), (60.0, 1.0)])
def test_a_slow_start_takes_from_the_limit_but_leaves_a_quarter(waited: float, left: float) -> None:
    assert _shortened(Limits(4.0, 2.0), waited) == Limits(left, 2.0)


def test_a_program_without_end_gets_what_a_slow_start_left(family: Family) -> None:
    endless = (
        "def merge_models(models, device):\n    while len(models):\n        pass\n    return models['seed']"
    )
    begin = time.monotonic()
    shown = views(*family.open(), "mlp")
    done = run_program(
        Program(endless), shown, Limits(2.0, 2.0), lambda _: None, accept_weaker=True, started=begin - 60
    )
    assert done.outcome.state is State.TIMED_OUT
    assert done.outcome.reason.startswith("not finished after 0.5 s")
