"""Built-in programs run in this process, with the numbers, the states and the checks of the sandbox."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from conftest import Family

from selfdev import blocks, merge
from selfdev.checkpoints import ModelView, views
from selfdev.fingerprint import make_probes
from selfdev.library import BUILTIN, builtin_names, load_program
from selfdev.locality import dependence, probe_sets
from selfdev.records import Program, State
from selfdev.sandbox import Limits, Sandbox
from selfdev.stream import layer_groups, run_program
from selfdev.trusted import IN_ORDER, InProcess

LIMITS = Limits(60.0, 2.0)
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "task_arithmetic": ({"WEIGHT": [[0.1, 0.2], 0.3, 0.4]}, {"NORMALIZE": True}),
    "ties": ({"WEIGHT": [[0.1, 0.2], 0.3, 0.4], "NORMALIZE": False},),
    "dare_ties": ({"RESCALE": "norm"},),
    "model_stock": ({"FILTER_WISE": True}, {"FILTER_WISE": False}),
}
ONE_EXPERT = {"slerp", "nearswap"}


@pytest.fixture(scope="module")
def shown(family: Family) -> tuple[ModelView, ...]:
    return views(*family.open(), "all")


def models(name: str, shown: tuple[ModelView, ...]) -> tuple[ModelView, ...]:
    return shown[:2] if name in ONE_EXPERT else shown


@pytest.fixture(scope="module")
def walled(shown: tuple[ModelView, ...]) -> dict[str, Any]:
    """Outcome and tensors of every built-in program in the sandbox, whole."""
    found = {}
    for count in (2, len(shown)):
        with Sandbox({"models": shown[:count]}, LIMITS, accept_weaker=True) as sandbox:
            for name in builtin_names():
                if len(models(name, shown)) == count:
                    run = sandbox.run(load_program(name), 7)
                    assert run.tensors is not None, run.outcome
                    found[name] = run.outcome, {n: value.clone() for n, value in run.tensors.items()}
    return found


@pytest.mark.parametrize("name", builtin_names())
def test_every_built_in_program_gives_the_bits_of_the_sandbox(
    shown: tuple[ModelView, ...], walled: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_helpers", lambda: 2)
    outcome, expected = walled[name]
    found: dict[str, torch.Tensor] = {}

    def put(block: Mapping[str, torch.Tensor]) -> None:
        found.update({name: value.clone() for name, value in block.items()})

    done = run_program(load_program(name), models(name, shown), LIMITS, put, random_seed=7, trusted=True)
    assert done.outcome.state is State.MERGED
    assert done.outcome.weights_hash == outcome.weights_hash
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], value) for n, value in expected.items())
    assert done.layers == frozenset()


@pytest.mark.parametrize(
    ("body", "limit", "state", "reason"),
    [
        ("raise ValueError('no idea')", None, State.CRASHED, r"ValueError: no idea \(line 2"),
        ("return {n: t / 0 for n, t in models['seed'].items()}", None, State.BAD_WEIGHTS, "hold NaN or infi"),
        ("return dict(models['seed'])", None, State.MERGED, ""),
        ("return dict(models['seed'])", 0.0, State.TIMED_OUT, "not finished after 0 s"),
    ],
)
def test_states_are_those_of_the_sandbox(
    shown: tuple[ModelView, ...], body: str, limit: float | None, state: State, reason: str
) -> None:
    program = Program(f"def merge_models(models, device):\n    {body}")
    run = InProcess({"models": shown}, LIMITS).run(program, 0, timeout=limit)
    assert run.outcome.state is state
    assert re.search(reason, run.outcome.reason)
    assert (run.tensors is None) == (state is not State.MERGED)


def test_torch_has_one_thread_inside_and_its_own_again_after(shown: tuple[ModelView, ...]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with InProcess({"models": shown}, LIMITS):
            inside = torch.get_num_threads()
            with InProcess({"models": shown}, LIMITS):  # as a helper does
                pass
            after_helper = torch.get_num_threads()
        assert (inside, after_helper, torch.get_num_threads()) == (1, 1, 2)
    finally:
        torch.set_num_threads(before)


def test_only_programs_without_shared_random_numbers_run_side_by_side(shown: tuple[ModelView, ...]) -> None:
    here = InProcess({"models": shown}, LIMITS)
    here.run(load_program("dare_ties"), 0)
    assert here.pays == 0.0
    here.run(load_program("della"), 0)
    assert here.pays == float("inf")


def test_no_process_is_started_for_a_name_and_one_is_for_the_same_text_in_a_file(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise InterruptedError

    monkeypatch.setattr(merge, "ServerProcess", refuse)
    assert merge.merge("linear", family.seed, family.experts).state is State.MERGED
    copied = tmp_path / "linear"
    copied.write_text((BUILTIN / "linear.py").read_text())
    with pytest.raises(InterruptedError):
        merge.merge(str(copied), family.seed, family.experts)


@pytest.mark.parametrize("name", builtin_names())
def test_which_built_in_programs_are_local_is_known(
    shown: tuple[ModelView, ...], name: str, tmp_path: Path
) -> None:
    groups = layer_groups([slot.name for slot in shown[0].slots])
    sets = probe_sets(make_probes(models(name, shown), tmp_path), groups)
    for parameters in VARIANTS.get(name, ({},)):
        program = load_program(name, parameters)
        found = dependence(InProcess(sets, LIMITS), program, sets)
        assert (found is not None) == (name in IN_ORDER), parameters


def test_a_program_that_is_known_to_be_local_is_not_tried_on_probes(
    shown: tuple[ModelView, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    run = InProcess.run

    def noted(self: InProcess, *given: Any, **more: Any) -> Any:
        runs.append(given[2])
        return run(self, *given, **more)

    monkeypatch.setattr(InProcess, "run", noted)
    done = run_program(load_program("linear"), shown, LIMITS, lambda _: None, trusted=True, known_local=True)
    assert done.outcome.state is State.MERGED
    assert done.blocks > 1
    assert all(name.startswith("block") for name in runs)
