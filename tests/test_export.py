"""Export to mergekit: the method gives the program's weights; what is not local is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import Family
from mergekit_oracle import in_mergekit
from safetensors.torch import load_file

from selfdev.errors import SelfdevError
from selfdev.export import export
from selfdev.gate import gate
from selfdev.merge import merge
from selfdev.records import State

MEDIAN = """SCALE = 0.4


def merge_models(models, device):
    seed = models["seed"]
    experts = [models[name] for name in models if name != "seed"]
    merged = {}
    for name in seed:
        base = seed[name].to(device).float()
        vectors = torch.stack([expert[name].to(device).float() - base for expert in experts])
        merged[name] = base + SCALE * vectors.median(dim=0).values
    return merged
"""
GLOBAL_NORM = """def merge_models(models, device):
    seed, expert = list(models.values())[:2]
    size = sum(float((expert[n].float() - seed[n].float()).norm()) for n in seed)
    return {n: seed[n] + (expert[n] - seed[n]) / size for n in seed}
"""
COUNTING = """def merge_models(models, device):
    seed = models["seed"]
    return {n: seed[n] * (1 - place / len(seed)) for place, n in enumerate(seed)}
"""


def written(path: Path, code: str) -> str:
    path.write_text(code)
    return str(path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {n: v for file in folder.glob("*.safetensors") for n, v in load_file(file).items()}


@pytest.mark.parametrize("scope", ["all", "mlp"])
def test_mergekit_writes_the_weights_that_merge_writes(
    family_fp32: Family, tmp_path: Path, scope: str
) -> None:
    program = written(tmp_path / "median-merge.py", MEDIAN)
    result = export(program, "mergekit", tmp_path / "method.py", scope=scope, accept_weaker=True)
    config = {
        "merge_method": result.method,
        "base_model": str(family_fp32.seed),
        "models": [{"model": str(folder)} for folder in family_fp32.experts.values()],
        "dtype": "float32",
    }
    (tmp_path / "config.yml").write_text(json.dumps(config))
    words = ["--no-write-model-card", "--quiet"]
    in_mergekit(tmp_path / "method.py", tmp_path / "config.yml", tmp_path / "theirs", *words)
    merge(
        program, family_fp32.seed, family_fp32.experts, out=tmp_path / "ours", scope=scope, accept_weaker=True
    )
    ours, theirs = weights(tmp_path / "ours"), weights(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_file_is_python_with_the_program_in_it(tmp_path: Path) -> None:
    result = export("ties", "mergekit", tmp_path / "t.py", parameters={"DENSITY": 0.7}, accept_weaker=True)
    text = (tmp_path / "t.py").read_text()
    compile(text, "t.py", "exec")
    assert (result.method, result.parameters["DENSITY"]) == ("selfdev_ties", 0.7)
    assert "DENSITY = 0.7" in text
    assert "selfdev_ties" in text
    assert "import selfdev" not in text


def test_program_for_two_experts_is_measured_with_two(tmp_path: Path) -> None:
    export(
        "task_arithmetic",
        "mergekit",
        tmp_path / "t.py",
        parameters={"WEIGHT": [0.5, 0.2]},
        accept_weaker=True,
    )
    assert (tmp_path / "t.py").exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (GLOBAL_NORM, "changes when other parameters are left out"),
        (COUNTING, "changes when other parameters are left out"),
        ("def merge_models(models, device):\n    return {}\n", "BAD_WEIGHTS on probes"),
    ],
    ids=["norm over all", "counts parameters", "no weights"],
)
def test_program_that_is_not_local_is_refused(tmp_path: Path, code: str, reason: str) -> None:
    program = written(tmp_path / "p.py", code)
    with pytest.raises(SelfdevError, match=f"is not local: .*{reason}.*one parameter at a time") as caught:
        export(program, "mergekit", tmp_path / "out.py", accept_weaker=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.py").exists()


def test_random_numbers_drawn_in_order_are_not_local(tmp_path: Path) -> None:
    code = """
import torch

def merge_models(models, device):
    return {name: value + torch.rand(value.shape) for name, value in models["seed"].items()}
"""
    program = written(tmp_path / "p.py", code)
    with pytest.raises(SelfdevError, match="is not local"):
        export(program, "mergekit", tmp_path / "out.py", accept_weaker=True)


def test_random_numbers_of_each_tensor_alone_are_local(tmp_path: Path) -> None:
    export("dare_linear", "mergekit", tmp_path / "out.py", accept_weaker=True)
    assert "dare_linear" in (tmp_path / "out.py").read_text()


def test_wrong_use_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "kept.py").write_text("kept")
    program = written(tmp_path / "p.py", "import os\n")
    for words, reason in (
        (("ties", "fusionbench", tmp_path / "a.py"), "choose mergekit"),
        (("ties", "mergekit", tmp_path / "kept.py"), "is there already"),
        ((program, "mergekit", tmp_path / "a.py"), "refused by the gate"),
        (("ties", "mergekit", tmp_path / "no" / "a.py"), "could not be written"),
    ):
        with pytest.raises(SelfdevError, match=reason):
            export(*words, accept_weaker=True)
    assert (tmp_path / "kept.py").read_text() == "kept"


def test_a_whole_merge_of_a_program_that_is_not_local_gives_its_own_numbers(
    family_fp32: Family, tmp_path: Path
) -> None:
    program = written(tmp_path / "p.py", GLOBAL_NORM)
    result = merge(
        program, family_fp32.seed, family_fp32.experts, out=tmp_path / "out", scope="all", accept_weaker=True
    )
    assert (result.state, result.blocks) == (State.MERGED, 1)
    seed, expert = weights(family_fp32.seed), weights(family_fp32.experts["add"])
    space: dict[str, object] = {}
    exec(gate.check(GLOBAL_NORM).code, space)
    function = space["merge_models"]
    assert callable(function)
    expected = function({"seed": seed, "add": expert}, torch.device("cpu"))
    found = weights(tmp_path / "out")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
