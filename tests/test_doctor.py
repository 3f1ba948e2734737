"""`selfdev doctor`: the sandbox is tried, models are held against each other, all problems come at once."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Family
from fakes import small_config
from rich.console import Console
from typer.testing import CliRunner

import selfdev
from selfdev.cli.cli import app
from selfdev.cli.terminal_doctor import hours, print_diagnosis
from selfdev.config.config import Config
from selfdev.doctor import doctor, estimate
from selfdev.doctor import measure as doctor_measure
from selfdev.doctor.doctor import Diagnosis, Gpu, Machine, Protection, examine
from selfdev.doctor.models import look_at
from selfdev.engine import vllm
from selfdev.sandbox import layers, selftest

CONFIGS = Path(__file__).parents[1] / "configs"
SEVEN = 7_000_000_000
HELD = {"computing": True, **dict.fromkeys(selftest.TRIES, True)}


def config_of(family: Family, **sections: Any) -> Config:
    experts = {name: str(path) for name, path in family.experts.items()}
    return small_config(**{"models": {"seed": str(family.seed), "experts": experts}, **sections})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox was tried already."""
    monkeypatch.setattr(selftest, "measure", lambda: HELD)


@pytest.fixture
def broken(family: Family, tmp_path: Path) -> Family:
    """A copy of the family that a test may damage."""
    shutil.copytree(family.seed, tmp_path / "seed")
    for name, path in family.experts.items():
        shutil.copytree(path, tmp_path / name)
    return Family(tmp_path / "seed", {name: tmp_path / name for name in family.experts})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere programs are not confined")
def test_the_sandbox_is_tried_and_not_guessed() -> None:
    assert selftest.measure() == HELD


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is nothing to switch off")
def test_without_layers_the_tries_do_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "ALL", ("no_new_privs",))
    held = selftest.measure()
    # No privileges still means no environment of root's processes; inputs are mapped read-only by the server.
    by_other_means = {"the environment of others", "changing its inputs"}
    assert {what for what, kept in held.items() if not kept} == set(selftest.TRIES) - by_other_means


@pytest.mark.usefixtures("quick")
def test_a_good_config_is_well(family: Family, tmp_path: Path) -> None:
    found = examine(config_of(family), tmp_path / "run")
    assert found.ok, found.problems
    assert [m.name for m in found.models] == ["seed", "add", "multiply", "compare"]
    seed, add = found.models[:2]
    assert (seed.dtypes, seed.tied, seed.chat_template) == ({"BF16": 21}, False, "own")
    assert (add.shared_tokens, add.moved_tokens, add.chat_template) == (17, 0, "the seed's")
    here, gpu = found.estimates
    assert (here.where, gpu.where) == ("this machine, measured", "one GPU of 80 GB, assumed")
    assert 0 < here.low_hours <= here.high_hours < 100
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick")
def test_every_problem_is_told_at_once(broken: Family, tmp_path: Path) -> None:
    weights = broken.experts["add"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (broken.experts["multiply"] / "config.json").unlink()
    config = broken.experts["compare"] / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 64}))
    task = {"dev": 5000, "finalist_dev": 6000, "test": 20_000}
    found = examine(config_of(broken, task=task), tmp_path)
    words = "\n".join(found.problems)
    for expected in (
        "add: ",
        "multiply: ",
        "hidden_size",
        "task.dev asks for 5000",
        "task.test asks for 20000",
    ):
        assert expected in words
    assert len(found.problems) >= 5
    assert not found.ok


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"engine": "vllm"}, "vLLM is not installed; pip install 'selfdev[vllm]'"),
        ({"device": "cuda"}, "device is cuda and torch sees no GPU here"),
    ],
)
def test_what_answering_lacks_is_a_problem(
    family: Family, tmp_path: Path, given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = examine(config_of(family).model_copy(update=given), tmp_path)
    assert [problem for problem in found.problems if expected in problem]


@pytest.mark.usefixtures("quick")
def test_a_config_of_accelerate_that_is_not_there_is_a_problem(family: Family, tmp_path: Path) -> None:
    config = config_of(family)
    dpo = config.dpo.model_copy(update={"accelerate": "none.yaml"})
    found = examine(config.model_copy(update={"dpo": dpo}), tmp_path)
    assert [problem for problem in found.problems if "dpo.accelerate none.yaml is no config" in problem]


@pytest.mark.usefixtures("quick")
def test_vllm_has_a_gpu_for_each_worker(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "lacking", lambda: None)
    found = examine(config_of(family).model_copy(update={"engine": "vllm", "workers": 2}), tmp_path)
    assert [problem for problem in found.problems if "workers is 2 and vllm takes a GPU" in problem]


@pytest.mark.usefixtures("quick")
def test_what_differs_without_harm_is_a_note(broken: Family, tmp_path: Path) -> None:
    tokenizer = broken.experts["add"] / "tokenizer.json"
    told = json.loads(tokenizer.read_text())
    told["added_tokens"] += [{**told["added_tokens"][0], "id": 17 + i, "content": f"<{i}>"} for i in range(2)]
    tokenizer.write_text(json.dumps(told))
    (broken.experts["multiply"] / "chat_template.jinja").write_text("{{ messages }}")
    found = examine(config_of(broken), tmp_path)
    assert found.ok, found.problems
    words = "\n".join(found.warnings)
    assert "add and the seed both know 17 tokens, of 19 and 17; 0 of them" in words
    assert "multiply has another chat template" in words


@pytest.mark.usefixtures("quick")
def test_nothing_is_said_of_an_adapter_whose_seed_does_not_open(broken: Family, tmp_path: Path) -> None:
    (broken.seed / "config.json").write_text("{")
    for file in broken.experts["add"].iterdir():
        file.unlink()
    (broken.experts["add"] / "adapter_config.json").write_text("{}")
    found = examine(config_of(broken), tmp_path)
    assert ["seed: " in problem for problem in found.problems] == [True]
    assert [model.name for model in found.models] == ["multiply", "compare"]


@pytest.mark.usefixtures("quick")
def test_a_machine_too_small_for_the_run_is_not_measured(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_machine", lambda _: machine(0.5, 100))
    monkeypatch.setattr(doctor_measure, "measure", None)  # called, it would fail
    found = examine(config_of(family), tmp_path)
    assert [estimate.where for estimate in found.estimates] == ["one GPU of 80 GB, assumed"]
    assert any("GiB of RAM and 0.5 GiB are free" in problem for problem in found.problems)


def test_sizes_of_a_model_within_a_model_are_read(broken: Family) -> None:
    for folder in (broken.seed, *broken.experts.values()):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"model_type": "outer", "text_config": config}))
    size = look_at(broken.seed, broken.experts, "mlp").size
    assert size is not None
    assert (size.layers, size.hidden, size.keys, size.vocabulary) == (2, 32, 16, 32)


def test_sizes_that_are_no_numbers_are_passed_over(broken: Family) -> None:
    config = json.loads((broken.seed / "config.json").read_text())
    odd = {"hidden_size": "wide", "num_hidden_layers": [2], "architectures": 5}
    (broken.seed / "config.json").write_text(json.dumps(config | odd))
    looked = look_at(broken.seed, {}, "mlp")
    assert looked.size is not None
    assert (looked.size.layers, looked.size.hidden) == (1, 1)


@pytest.mark.usefixtures("quick")
def test_an_expert_that_is_the_seed_itself_is_a_note(broken: Family, tmp_path: Path) -> None:
    shutil.rmtree(broken.experts["add"])
    broken.experts["add"].symlink_to(broken.seed)
    found = examine(config_of(broken), tmp_path)
    assert [said for said in found.warnings if "itself" in said] == [
        "add is the seed itself, by the same files; leave it out"
    ]


def test_an_unconfined_machine_is_a_problem_unless_accepted(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "protections", lambda: dict.fromkeys(layers.ALL, False))
    monkeypatch.setattr(selftest, "measure", lambda: HELD | {"reading files": False})
    refused = examine(config_of(family), tmp_path)
    assert any("kept from files and network" in problem for problem in refused.problems)
    assert any("not kept from reading files" in problem for problem in refused.problems)
    accepted = examine(config_of(family, sandbox={"accept_weaker": True}), tmp_path)
    assert accepted.ok, accepted.problems
    assert accepted.sandbox.weaker_accepted


def test_the_papers_config_without_models_says_what_is_missing_and_estimates() -> None:
    words = [sys.executable, "-m", "selfdev", "doctor", str(CONFIGS / "paper.yaml"), "--json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    problems = "\n".join(found["problems"])
    for model in ("openchat/openchat-3.5-1210", "Abel-7B-002", "OpenHermes-2.5", "SciPhi-Mistral-7B-32k"):
        assert model in problems
    (gpu,) = found["estimates"]
    assert 1 < gpu["low_hours"] < gpu["high_hours"] < 1000
    assert 14 < max(gpu["memory_gib"].values()) < 80
    assert any(
        "7 billion parameters are read off the name GAIR/Abel-7B-002" in a for a in found["assumptions"]
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("GAIR/Abel-7B-002", SEVEN),
        ("SciPhi/SciPhi-Mistral-7B-32k", SEVEN),
        ("Qwen/Qwen2.5-0.5B-Instruct", 500_000_000),
        ("models/tiny_125m", 125_000_000),
        ("openchat/openchat-3.5-1210", None),
        ("microsoft/Phi-3-mini-4k-instruct", None),
    ],
)
def test_parameters_are_read_off_names(name: str, parameters: int | None) -> None:
    assert estimate.parameters_in(name) == parameters


def test_the_assumed_shape_is_that_of_a_seven_billion_llama() -> None:
    size = estimate.assumed_size(SEVEN, "mlp")
    assert (size.layers, size.hidden) == (33, 4224)
    assert size.scope == SEVEN * 3 // 4


def test_hours_are_what_a_pencil_says() -> None:
    config = small_config(
        task={"dev": 10, "finalist_dev": 20, "test": 30, "batch": 10, "max_new_tokens": 5},
        factory={"programs": 20, "iterations": 2, "batch": 10, "max_new_tokens": 4},
        pairs={"max_pairs": 8},
    )
    rates = estimate.Rates("here", read=0.1, answer=1.0, write=2.0, merge=3.0, train=0.5, workers=2)
    found = estimate.estimate(config, estimate.Load(prompt=6, question=2, test=30), rates, {})
    # write: 2 iterations x 2 batches x (6 x 0.1 + 4 x 2); dev exam: 10 x 2 x 0.1 + 1 x 5 x 1 = 7
    # tried: 2 x 20 x a tenth x (3 + 7); baselines: 3 sets x (3 + 7); finalists 3 + 5 + 1 at 3 + 4 + 10;
    # test: 2 experts + 2 baselines + 2 at 3 + 6 + 15; DPO: 1 x 8 pairs x 2 x (6 + 2) tokens x 0.5
    seconds = {"write programs": 34.4, "merge and score": 40, "baselines": 30, "finalists and test": 297}
    for part, value in seconds.items():
        assert found.hours[part] == pytest.approx(value / 2 / 3600), part
    assert found.hours["DPO"] == pytest.approx(64 / 3600)
    assert found.high_hours - found.low_hours == pytest.approx(9 * 40 / 2 / 3600)


def machine(ram: float, disk: float) -> Machine:
    return Machine(2, 2 * ram, ram, disk, (Gpu("a card", 80.0, 79.0),))


def test_too_little_disk_and_memory_are_problems() -> None:
    found = doctor._too_little(small_config(), machine(16, 1), 30.0, 5.0)
    assert "about 5.0 GiB and 1.0 GiB of disk are free" in found[0]
    assert "needs about 30.0 GiB of RAM and 16.0 GiB are free" in found[1]
    assert doctor._too_little(small_config(), machine(31, 6), 30.0, 5.0) == []
    assert "programs may use 8 GiB together" in doctor._tight(small_config(), machine(7, 1))[0]


DIAGNOSIS = Diagnosis(
    False,
    ("the [seed] is missing; fetch it",),
    ("tokens differ",),
    Protection({"seccomp": True, "uid": False}, HELD),
    machine(8, 100),
    (),
    (estimate.Estimate("here", 0.01, 30.0, {"DPO": 0.5}, {"DPO": 1.5}),),
    2.0,
    ("a 7B name",),
)


def shown(found: Diagnosis) -> str:
    file = io.StringIO()
    print_diagnosis(found, Console(file=file, width=100))
    return file.getvalue()


def test_the_terminal_shows_it_all() -> None:
    words = shown(DIAGNOSIS)
    for expected in (
        "seccomp; NOT: uid",
        "a card with 80 GiB",
        "36 s to 30 h (DPO 30 min at the low end)",
        "assumed: a 7B name",
        "note: tokens differ",
        "problem: the [seed] is missing; fetch it",
        "1 to solve.",
    ):
        assert expected in words
    assert "All is well" in shown(dataclasses.replace(DIAGNOSIS, ok=True, problems=()))


@pytest.mark.parametrize(
    ("value", "words"), [(0.01, "36 s"), (0.5, "30 min"), (1.9, "114 min"), (30, "30 h")]
)
def test_hours_in_words(value: float, words: str) -> None:
    assert hours(value) == words


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_tells_whether_all_is_well(
    monkeypatch: pytest.MonkeyPatch, ok: bool, code: int
) -> None:
    calls: list[tuple[Any, ...]] = []

    def answer(*given: Any) -> Diagnosis:
        calls.append(given)
        return dataclasses.replace(DIAGNOSIS, ok=ok)

    monkeypatch.setattr(selfdev, "api", SimpleNamespace(doctor=answer), raising=False)
    done = CliRunner().invoke(app, ["doctor", "c.yaml", "--set", "seed=1", "--json"])
    assert done.exit_code == code
    assert json.loads(done.stdout)["ok"] is ok
    assert calls == [(Path("c.yaml"), None, ["seed=1"])]
