"""The verb `merge`: a real program on real models in the real sandbox, and a checkpoint anyone can load."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Family
from huggingface_hub import metadata_load
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selfdev.errors import SelfdevError
from selfdev.merge import MergeResult, merge
from selfdev.records import State

DOWN = "model.layers.0.mlp.down_proj.weight"


def on(family: Family, program: str, **options: Any) -> MergeResult:
    """Merge the family; the tests run on kernels that may lack a confinement layer."""
    return merge(program, family.seed, family.experts, accept_weaker=True, timeout=60, memory=4, **options)


def written(path: Path, body: str) -> str:
    path.write_text(f"def merge_models(models, device):\n    {body}\n")
    return str(path)


@pytest.fixture(scope="module")
def merged(family: Family, tmp_path_factory: pytest.TempPathFactory) -> tuple[MergeResult, Path]:
    """Task arithmetic written to a new folder, once for the tests that look at it."""
    out = tmp_path_factory.mktemp("merged") / "model"
    return on(family, "task_arithmetic", out=out, parameters={"WEIGHT": [0.5, 0.25, -0.5]}), out


def test_result_says_what_ran(merged: tuple[MergeResult, Path]) -> None:
    result, out = merged
    assert (result.state, result.reason, result.copy_of) == (State.MERGED, "", None)
    assert (result.program, result.out) == ("task_arithmetic", str(out))
    own = {"WEIGHT": [0.5, 0.25, -0.5]}
    assert result.parameters == own | {"LAYERS_EACH": 1, "LAMBDA": 1.0, "NORMALIZE": False}
    assert result.seconds > 0
    assert result.weights_hash
    assert json.loads(json.dumps(asdict(result)))["state"] == "MERGED"


def test_weights_are_the_formulas(merged: tuple[MergeResult, Path], family: Family) -> None:
    seed = load_file(family.seed / "model.safetensors")
    experts = [load_file(folder / "model.safetensors") for folder in family.experts.values()]
    for name, value in load_file(merged[1] / "model.safetensors").items():
        base = seed[name].float()
        deltas = [expert[name].float() - base for expert in experts]
        expected = base + 0.5 * deltas[0] + 0.25 * deltas[1] - 0.5 * deltas[2] if ".mlp." in name else base
        assert value.dtype == torch.bfloat16
        torch.testing.assert_close(value, expected.to(torch.bfloat16), rtol=2**-7, atol=1e-6)


def test_checkpoint_loads_with_transformers(merged: tuple[MergeResult, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(merged[1])
    stored = load_file(merged[1] / "model.safetensors")
    assert torch.equal(model.get_parameter(DOWN), stored[DOWN])


def test_card_and_program_lie_beside_the_weights(merged: tuple[MergeResult, Path]) -> None:
    program = (merged[1] / "program.py").read_text()
    card = (merged[1] / "README.md").read_text()
    assert "WEIGHT = [0.5, 0.25, -0.5]" in program
    assert program.strip() in card
    assert (metadata_load(merged[1] / "README.md") or {})["tags"] == ["merge", "selfdev"]


def test_written_program_gives_the_same_weights_again(
    merged: tuple[MergeResult, Path], family: Family
) -> None:
    again = on(family, str(merged[1] / "program.py"))
    assert again.weights_hash == merged[0].weights_hash
    assert again.out is None


def test_scope_and_shards(family_fp32: Family, tmp_path: Path) -> None:
    result = on(family_fp32, "linear", scope="all", out=tmp_path / "out")
    assert result.state is State.MERGED
    files = sorted(p.name for p in family_fp32.seed.glob("*.safetensors"))
    assert sorted(p.name for p in (tmp_path / "out").glob("*.safetensors")) == files
    for file in files:
        models = [load_file(d / file) for d in (family_fp32.seed, *family_fp32.experts.values())]
        for name, value in load_file(tmp_path / "out" / file).items():
            torch.testing.assert_close(value, torch.stack([m[name] for m in models]).mean(0))


def test_program_sees_float32_on_wish(family: Family, tmp_path: Path) -> None:
    body = f"assert models['seed']['{DOWN}'].element_size() == 4; return dict(models['seed'])"
    program = written(tmp_path / "p.py", body)
    assert on(family, program).state is State.CRASHED
    assert on(family, program, dtype="F32").state is State.MERGED


def test_copy_of_a_model_is_said(family: Family, tmp_path: Path) -> None:
    program = written(tmp_path / "p.py", "return {n: v.clone() for n, v in models['multiply'].items()}")
    assert on(family, program).copy_of == "multiply"


def test_program_that_crashes_is_a_state_and_writes_nothing(family: Family, tmp_path: Path) -> None:
    program = written(tmp_path / "p.py", "return models['nobody']")
    result = on(family, program, out=tmp_path / "out")
    assert (result.state, result.out, result.weights_hash) == (State.CRASHED, None, None)
    assert "nobody" in result.reason
    assert not (tmp_path / "out").exists()


def test_what_a_program_printed_is_kept(family: Family, tmp_path: Path) -> None:
    program = written(tmp_path / "p.py", "print('half way'); return models['nobody']")
    lines = on(family, program).stderr.splitlines()
    assert lines[0] == "half way"
    assert lines[-1] == "KeyError: 'nobody'"


def test_program_the_gate_refuses_never_runs(family: Family, tmp_path: Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("import os\nos.remove('x')\n")
    result = on(family, str(program), out=tmp_path / "out")
    assert result.state is State.INVALID
    assert result.reason
    assert not (tmp_path / "out").exists()


def test_models_by_relative_paths(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(family.seed.parent)
    result = merge("linear", "seed", {"a": "add"}, out=tmp_path / "out", accept_weaker=True, timeout=60)
    assert result.state is State.MERGED, result.reason
    assert (tmp_path / "out" / "model.safetensors").is_file()


def refused(reason: str, **change: Any) -> None:
    """No sandbox starts for input that is wrong."""
    with pytest.raises(SelfdevError, match=reason) as caught:
        merge(**change)
    assert "\n" not in str(caught.value)


def test_no_expert(family: Family) -> None:
    refused("no expert is given", program="linear", seed=family.seed, experts={})


def test_two_experts_with_one_name(family: Family) -> None:
    pair = ("math", family.experts["add"])
    refused("two experts are named math", program="linear", seed=family.seed, experts=[pair, pair])


@pytest.mark.parametrize("name", ["seed", "", "a b", "../x"])
def test_name_an_expert_cannot_have(family: Family, name: str) -> None:
    experts = {name: family.experts["add"]}
    refused("expert name .* must be letters", program="linear", seed=family.seed, experts=experts)


def test_path_that_is_not_there(family: Family, tmp_path: Path) -> None:
    refused(
        "math: .*/none does not exist",
        program="linear",
        seed=family.seed,
        experts={"math": tmp_path / "none"},
    )


def test_output_folder_in_use_is_refused_before_any_work(family: Family, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("data")
    refused("is not empty", program="linear", seed=family.seed, experts=family.experts, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_unknown_program_and_parameter(family: Family) -> None:
    refused("neither a file nor built in", program="lienar", seed=family.seed, experts=family.experts)
    refused(
        "DENSITY is no parameter of this program; it has WEIGHT",
        program="linear",
        seed=family.seed,
        experts=family.experts,
        parameters={"DENSITY": 1},
    )


def test_expert_with_nan(family: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family.experts["add"], tmp_path / "m"))
    values = load_file(folder / "model.safetensors")
    values[DOWN][0, 0] = float("nan")
    save_file(values, folder / "model.safetensors", {"format": "pt"})
    refused(f"add: {DOWN} has NaN", program="linear", seed=family.seed, experts={"add": folder})
