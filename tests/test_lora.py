"""PEFT adapters as experts: the weights of peft's own merge, read lazily, refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Family, build_family, tiny_llama
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selfdev.checkpoints import Checkpoint, check_finite, open_checkpoint, tensor, views
from selfdev.errors import SelfdevError
from selfdev.merge import merge
from selfdev.records import State

DOWN = "model.layers.0.mlp.down_proj.weight"
MLP = ["gate_proj", "up_proj", "down_proj"]


def adapter(seed: Path, out: Path, **options: Any) -> Path:
    """An adapter with random weights on the model at `seed`."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": [*MLP, "q_proj"], **options})
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if value.requires_grad:
                value += 0.05 * torch.randn(value.shape).to(value.dtype)
                assert "lora" in name or "modules_to_save" in name
    wrapped.save_pretrained(out)
    return out


def merged_by_peft(seed: Path, folder: Path) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(seed), folder)
    return dict(model.merge_and_unload().state_dict())


def opened(family: Family, folder: Path) -> Checkpoint:
    return open_checkpoint(folder, "tuned", open_checkpoint(family.seed, "seed"))


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "ranks and alphas by pattern": {
        "rank_pattern": {"layers.1.mlp.down_proj": 2},
        "alpha_pattern": {"layers.0.mlp.up_proj": 1, "q_proj": 9},
    },
    "on the embedding": {"target_modules": ["embed_tokens", "down_proj"]},
    "with a module trained whole": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers.")
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_peft(family_fp32: Family, tmp_path: Path, kind: str) -> None:
    folder = adapter(family_fp32.seed, tmp_path / "a", **KINDS[kind])
    expected = merged_by_peft(family_fp32.seed, folder)
    found = opened(family_fp32, folder)
    assert found.slots.keys() == expected.keys()
    changed = [name for name, slot in found.slots.items() if slot.change is not None]
    assert changed
    for name, slot in found.slots.items():
        torch.testing.assert_close(tensor(slot), expected[name], rtol=0, atol=1e-6)


def test_bfloat16_is_rounded_once(family: Family, tmp_path: Path) -> None:
    folder = adapter(family.seed, tmp_path / "a")
    slot = opened(family, folder).slots[DOWN]
    held = load_file(folder / "adapter_model.safetensors")
    a, b = (held[f"base_model.model.{DOWN[:-7]}.lora_{half}.weight"].float() for half in "AB")
    base = load_file(family.seed / "model.safetensors")[DOWN].float()
    assert torch.equal(tensor(slot), (base + 1.5 * (b @ a)).to(torch.bfloat16))
    assert (slot.dtype, slot.shape) == ("BF16", (32, 48))


def test_an_adapter_takes_part_in_a_merge(family_fp32: Family, tmp_path: Path) -> None:
    folder = adapter(family_fp32.seed, tmp_path / "a")
    models = {"tuned": folder, "add": family_fp32.experts["add"]}
    result = merge(
        "task_arithmetic", family_fp32.seed, models, out=tmp_path / "out", parameters={"WEIGHT": [1.0, 0.0]},
        accept_weaker=True,
    )  # fmt: skip
    assert result.state is State.MERGED
    expected = merged_by_peft(family_fp32.seed, folder)
    stored = {n: v for f in (tmp_path / "out").glob("*.safetensors") for n, v in load_file(f).items()}
    for name, value in stored.items():
        if ".mlp." in name:
            torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-6)


def edit(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def drop(folder: Path, key: str) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "adapter_model.safetensors"
    values = load_file(file)
    change(values)
    save_file(values, file)


def rename(values: dict[str, torch.Tensor]) -> None:
    for name in [n for n in values if "layers.1." in n]:
        values[name.replace("layers.1.", "layers.7.")] = values.pop(name)


UP = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another method": (lambda d: edit(d, peft_type="IA3"), "an adapter of type IA3; only plain LoRA"),
    "DoRA": (lambda d: edit(d, use_dora=True), "an adapter with DoRA; .*merge_and_unload"),
    "PiSSA": (lambda d: edit(d, init_lora_weights="pissa"), "initialised by pissa"),
    "pickled": (
        lambda d: (d / "adapter_model.safetensors").rename(d / "adapter_model.bin"),
        "has no adapter_model.safetensors; .*save_pretrained",
    ),
    "truncated": (
        lambda d: (d / "adapter_model.safetensors").write_bytes(b"x" * 50),
        "is truncated or not safetensors",
    ),
    "other layers": (lambda d: rewrite(d, rename), "layers.7.*the seed lacks"),
    "other width": (lambda d: rewrite(d, lambda v: v.update({UP: v[UP][:, :8].contiguous()})), r"\[4, 8\]"),
    "no alpha": (lambda d: drop(d, "lora_alpha"), "lora_alpha in .* is None and must be a number"),
    "alpha a word": (lambda d: edit(d, lora_alpha="x"), "lora_alpha in .* is 'x' and must be a number"),
    "alpha of no size": (lambda d: edit(d, lora_alpha=float("nan")), "lora_alpha in .* is nan"),
    "pattern that is none": (
        lambda d: edit(d, alpha_pattern={"(": 1}),
        "alpha_pattern in .* must give regular",
    ),
    "pattern a list": (lambda d: edit(d, alpha_pattern=["q"]), r"alpha_pattern in .* is \['q'\] and must"),
    "pattern with a word": (lambda d: edit(d, alpha_pattern={"q": "x"}), "alpha_pattern in .* their numbers"),
    "halves of two ranks": (
        lambda d: rewrite(d, lambda v: v.update({UP: v[UP][:2].contiguous()})),
        r"\[2, 32\]",
    ),
    "nested": (
        lambda d: (d / "adapter_config.json").write_text("[" * 100_000),
        "adapter_config.json is not valid JSON",
    ),
    "half a pair": (lambda d: rewrite(d, lambda v: v.pop(UP)), "has half of what"),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_what_does_not_fit_is_one_sentence(what: str, family: Family, tmp_path: Path) -> None:
    folder = adapter(family.seed, tmp_path / "a")
    change, reason = BREAKAGES[what]
    change(folder)
    with pytest.raises(SelfdevError, match=reason) as caught:
        opened(family, folder)
    assert str(caught.value).startswith("tuned: ")
    assert "\n" not in str(caught.value)


def test_an_adapter_cannot_be_the_seed(family: Family, tmp_path: Path) -> None:
    folder = adapter(family.seed, tmp_path / "a")
    with pytest.raises(SelfdevError, match=r"which only an expert can be; .*merge_and_unload"):
        open_checkpoint(folder, "seed")


def test_nan_in_an_adapter_is_found(family: Family, tmp_path: Path) -> None:
    folder = adapter(family.seed, tmp_path / "a")
    rewrite(folder, lambda v: v[UP].fill_(float("nan")))
    seed = open_checkpoint(family.seed, "seed")
    with pytest.raises(SelfdevError, match=r"tuned: model.layers.0.mlp.up_proj.weight has NaN"):
        check_finite(views(seed, [opened(family, folder)], "mlp"))


def test_tied_seed_keeps_its_one_embedding(tmp_path: Path) -> None:
    family = build_family(tmp_path / "f", torch.float32, tied=True)
    folder = adapter(family.seed, tmp_path / "a")
    assert "lm_head.weight" not in opened(family, folder).slots


def test_whole_checkpoint_beside_an_adapter_is_read_as_checkpoint(family: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family.experts["add"], tmp_path / "m"))
    (folder / "adapter_config.json").write_text("{}")
    assert all(slot.change is None for slot in opened(family, folder).slots.values())


def test_tiny_llama_is_what_peft_sees() -> None:
    assert {n.split(".")[-2] for n, _ in tiny_llama(torch.float32).named_parameters() if "mlp" in n} == set(
        MLP
    )
