"""Work in processes of its own: result, progress, endings; several processes by a config of accelerate."""

from __future__ import annotations

import os
import time
from pathlib import Path

import apart_jobs as jobs
import pytest
import torch
from conftest import Family
from test_dpo import PAIRS, PROMPT, RULE, weights

from selfdev.errors import SelfdevError
from selfdev.factory import dpo
from selfdev.factory.apart import apart, cut_up, launched_by
from selfdev.factory.objectives import arguments, shares
from selfdev.interrupt import Stop
from selfdev.records import Lessons

TWO_ON_CPU = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
use_cpu: true
num_machines: 1
num_processes: 2
machine_rank: 0
mixed_precision: 'no'
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    file = tmp_path / "two.yaml"
    file.write_text(TWO_ON_CPU)
    return file


def silent(done: int, total: int) -> None: ...


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_result_and_progress_come_back() -> None:
    told: list[tuple[int, int]] = []
    assert apart(jobs.double, (4,), lambda *step: told.append(step)) == 8
    assert told == [(1, 2), (2, 2)]


def test_environment_is_that_of_here_with_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "here")
    assert apart(jobs.variable, ("ONE",), silent) == "here"
    assert apart(jobs.variable, ("ONE",), silent, environment={"ONE": "changed"}) == "changed"


def test_a_sentence_for_the_user_stays_one() -> None:
    with pytest.raises(SelfdevError, match=r"^the thing is wrong; mend it\.$"):
        apart(jobs.refuse, (), silent)


def test_memory_that_is_full_is_said_with_what_to_lower() -> None:
    with pytest.raises(SelfdevError, match=r"ran out of memory; lower dpo\.micro_batch"):
        apart(jobs.fill, (), silent)


def test_any_other_end_is_a_fault_with_its_last_words() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1: .*nothing to divide by") as fault:
        apart(jobs.fail, (), silent)
    assert not isinstance(fault.value, SelfdevError)


@pytest.mark.parametrize("several", [False, True])
def test_a_stop_ends_all_processes(tmp_path: Path, two: Path, several: bool) -> None:
    started = tmp_path / "started"

    def stop(done: int, total: int) -> None:  # noqa: ARG001
        raise Stop

    with pytest.raises(Stop):
        apart(jobs.never_end, (started,), stop, two if several else None)
    pids = [int(file.name.removeprefix("started")) for file in tmp_path.glob("started*")]
    assert pids
    assert all(is_gone(pid) for pid in pids)


def test_accelerate_starts_as_many_as_its_config_says(tmp_path: Path, two: Path) -> None:
    assert apart(jobs.who, (tmp_path,), silent, two) != os.getpid()
    assert sorted(file.name for file in tmp_path.glob("2 *")) == ["2 False 1", "2 True 0"]


def test_a_sentence_of_several_processes_is_told_once(two: Path) -> None:
    with pytest.raises(SelfdevError, match=r"^the thing is wrong; mend it\.$"):
        apart(jobs.refuse, (), silent, two)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_the_factory_that_one_trains(
    family_fp32: Family, tmp_path: Path, two: Path, method: str
) -> None:
    changes = {"method": method, "lora_rank": 4, "lora_alpha": 8.0, "epochs": 3}
    settings = RULE.model_copy(update=changes)
    found = {}
    for name, file in (("one", None), ("two", two)):
        out = tmp_path / name
        told = (family_fp32.seed, out, PROMPT, Lessons(PAIRS), settings, 0, "cpu")
        log = dpo.train(*told) if file is None else apart(dpo.train, told, silent, file)
        found[name] = [step.loss for step in log], weights(out)
    assert found["two"][0] == pytest.approx(found["one"][0], abs=1e-4)
    start = weights(family_fp32.seed)
    assert any(not torch.equal(start[key], found["one"][1][key]) for key in start)
    for key, value in found["one"][1].items():
        torch.testing.assert_close(found["two"][1][key], value, atol=2e-4, rtol=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two", "two.yaml"]


def test_a_batch_in_several_goes_is_the_same_step(family_fp32: Family, tmp_path: Path) -> None:
    logs = []
    for name, at_once in (("whole", None), ("parts", 1)):
        settings = RULE.model_copy(update={"micro_batch": at_once, "epochs": 3})
        logs.append(dpo.train(family_fp32.seed, tmp_path / name, PROMPT, Lessons(PAIRS), settings, 0))
    assert len(logs[1]) == 3
    assert [s.loss for s in logs[0]] == pytest.approx([s.loss for s in logs[1]], abs=1e-4)


@pytest.mark.parametrize(
    ("batch", "at_once", "number", "expected"),
    [(8, None, 1, (8, 1)), (8, None, 4, (2, 1)), (8, 2, 1, (2, 4)), (8, 2, 2, (2, 2)), (8, 1, 8, (1, 1))],
)
def test_a_batch_is_shared(batch: int, at_once: int | None, number: int, expected: tuple[int, int]) -> None:
    assert shares(RULE.model_copy(update={"batch": batch, "micro_batch": at_once}), number) == expected


@pytest.mark.parametrize(("batch", "at_once", "number"), [(8, None, 3), (2, None, 4), (8, 4, 4)])
def test_a_batch_that_cannot_be_shared_is_refused(batch: int, at_once: int | None, number: int) -> None:
    settings = RULE.model_copy(update={"batch": batch, "micro_batch": at_once})
    with pytest.raises(SelfdevError, match=f"dpo.batch is {batch}, which {number} processes .* make it"):
        shares(settings, number)


def test_the_reference_is_computed_before_unless_the_model_is_cut_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert arguments(RULE, 0, "cpu", tmp_path).precompute_ref_log_probs
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not cut_up()  # a setting that lies about for other programs
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cut_up()
    assert not arguments(RULE, 0, "cpu", tmp_path).precompute_ref_log_probs


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_example_configs_can_be_read(name: str) -> None:
    assert launched_by(Path(__file__).parents[1] / "configs" / "accelerate" / f"{name}.yaml") == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no config of accelerate with num_processes .*No such file"),
        ("a: [", "is no config of accelerate with num_processes"),
        ("just words", "is no config of accelerate with num_processes"),
        ("num_machines: 1", "is no config of accelerate with num_processes .*KeyError"),
        ("num_processes: 8\nnum_machines: 2", "has 8 processes on 2 machines, and training starts on"),
        ("num_processes: 0", "has 0 processes on 1 machines"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "given.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SelfdevError, match=said):
        launched_by(file)
