"""Checkpoints: shown as stored on disk, damage is one sentence, a merge is written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Family, build_family, tiny_llama
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfdev.checkpoints import (
    INDEX,
    check_finite,
    check_free,
    check_shard_size,
    drafted,
    open_checkpoint,
    save_merged,
    tensor,
    views,
    writing,
)
from selfdev.errors import SelfdevError

DOWN = "model.layers.0.mlp.down_proj.weight"
EMBED = "model.embed_tokens.weight"


def read(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, through the safetensors library."""
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    values = load_file(file)
    change(values)
    save_file(values, file, {"format": "pt"})


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("kind", ["family", "family_fp32"])
def test_slots_hold_the_same_bytes_as_safetensors_reads(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind).seed
    slots, expected = open_checkpoint(folder, "seed").slots, read(folder)
    assert slots.keys() == expected.keys()
    for name, value in expected.items():
        assert slots[name].shape == tuple(value.shape)
        assert torch.equal(tensor(slots[name]), value)


def test_writing_to_a_mapped_tensor_reaches_nobody(family: Family) -> None:
    slot = open_checkpoint(family.seed, "seed").slots[DOWN]
    tensor(slot).zero_()
    assert tensor(slot).abs().sum() > 0


def test_empty_tensor_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.zeros(0, 4), "b": torch.ones(2)}, tmp_path / "model.safetensors")
    slots = open_checkpoint(tmp_path, "seed").slots
    assert tensor(slots["a"]).shape == (0, 4)


def test_views_line_up_with_the_seed_first(family: Family) -> None:
    seed, experts = family.open()
    shown = views(seed, experts, "mlp", "F32")
    assert [view.name for view in shown] == ["seed", *family.experts]
    assert len({tuple(s.name for s in view.slots) for view in shown}) == 1
    assert {view.dtype for view in shown} == {"F32"}
    assert all(slot.file.parent == family.seed for slot in shown[0].slots)


@pytest.mark.parametrize(
    ("scope", "count"), [("mlp", 6), ("all", 21), (r"layers\.1\.", 9), ("embed_tokens", 1), ("lm_head", 1)]
)
def test_scope_chooses_parameters(family: Family, scope: str, count: int) -> None:
    seed, experts = family.open()
    assert len(views(seed, experts, scope)[0].slots) == count


def test_layer_two_comes_before_layer_ten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({f"layers.{i}.mlp.up": torch.ones(1) for i in (10, 2, 1)}, tmp_path / "model.safetensors")
    names = [s.name for s in views(open_checkpoint(tmp_path, "seed"), [], "mlp")[0].slots]
    assert names == ["layers.1.mlp.up", "layers.2.mlp.up", "layers.10.mlp.up"]


def test_integer_buffers_are_not_parameters(family: Family, tmp_path: Path) -> None:
    folder = copy(family.seed, tmp_path / "m")
    rewrite(folder, lambda v: v.update(steps=torch.tensor([3])))
    seed = open_checkpoint(folder, "seed")
    assert "steps" not in {s.name for s in views(seed, [], "all")[0].slots}


def test_the_copy_of_a_tied_embedding_is_not_shown(family: Family, tmp_path: Path) -> None:
    folder = copy(family.seed, tmp_path / "m")
    edit(folder / "config.json", tie_word_embeddings=True)
    seed = open_checkpoint(folder, "seed")
    assert "lm_head.weight" not in {s.name for s in views(seed, [], "all")[0].slots}


def damaged(tmp_path: Path, family: Family, change: Callable[[Path], object]) -> Path:
    folder = copy(family.seed, tmp_path / "damaged")
    change(folder)
    return folder


def shorten(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, keep if keep > 0 else file.stat().st_size + keep)


def append(folder: Path, more: bytes) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes() + more)


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "does not exist"),
    "data cut short": (lambda d: shorten(d, -1), "truncated"),
    "header cut short": (lambda d: shorten(d, 40), "truncated"),
    "length cut short": (lambda d: shorten(d, 4), "truncated"),
    "not safetensors": (lambda d: (d / "model.safetensors").write_bytes(b"x" * 400), "not safetensors"),
    "longer than its header": (lambda d: append(d, b"more"), "truncated or not safetensors"),
    "no config": (lambda d: (d / "config.json").unlink(), "config.json is missing"),
    "config no JSON": (lambda d: (d / "config.json").write_text("{"), "not valid JSON"),
    "config a list": (lambda d: (d / "config.json").write_text("[]"), "must hold a JSON object"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "neither model.safetensors nor"),
    "pickled": (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
        "save_pretrained",
    ),
    "adapter": (lambda d: (d / "model.safetensors").rename(d / "adapter_config.json"), "merge_and_unload"),
    "quantized": (lambda d: edit(d / "config.json", quantization_config={}), "is quantized"),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_damage_is_one_sentence_that_names_the_model(what: str, tmp_path: Path, family: Family) -> None:
    change, reason = BREAKAGES[what]
    folder = damaged(tmp_path, family, change)
    with pytest.raises(SelfdevError, match=reason) as caught:
        open_checkpoint(folder, "math")
    assert str(caught.value).startswith(f"math: {folder}")
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_model(family: Family) -> None:
    with pytest.raises(SelfdevError, match="is a file; a model is the folder"):
        open_checkpoint(family.seed / "model.safetensors", "seed")


def test_header_that_does_not_fit_its_shape(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(SelfdevError, match="not safetensors"):
        open_checkpoint(tmp_path, "seed")


def test_missing_shard_is_named(family_fp32: Family, tmp_path: Path) -> None:
    folder = copy(family_fp32.seed, tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SelfdevError, match=r"shard model-00002-of-00002\.safetensors of 2 is missing"):
        open_checkpoint(folder, "seed")


def test_index_that_names_an_absent_tensor(family_fp32: Family, tmp_path: Path) -> None:
    folder = copy(family_fp32.seed, tmp_path / "m")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    edit(folder / INDEX, **index)
    with pytest.raises(SelfdevError, match="lacks ghost"):
        open_checkpoint(folder, "seed")


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", 3])
def test_index_that_leaves_the_folder_is_refused(family_fp32: Family, tmp_path: Path, shard: object) -> None:
    folder = copy(family_fp32.seed, tmp_path / "m")
    edit(folder / INDEX, weight_map={"a": shard})
    with pytest.raises(SelfdevError, match="no valid weight_map"):
        open_checkpoint(folder, "seed")


@pytest.mark.parametrize(
    ("scope", "reason"),
    [("(", "is no regular expression"), ("nothing_here", "matches none of the seed's 21")],
)
def test_scope_that_cannot_work(family: Family, scope: str, reason: str) -> None:
    seed, experts = family.open()
    with pytest.raises(SelfdevError, match=reason):
        views(seed, experts, scope)


def test_missing_parameter_is_named(family: Family, tmp_path: Path) -> None:
    folder = copy(family.seed, tmp_path / "m")
    rewrite(folder, lambda v: v.pop(DOWN))
    seed, lacking = open_checkpoint(family.seed, "seed"), open_checkpoint(folder, "math")
    with pytest.raises(SelfdevError, match=f"math lacks {DOWN}, which seed has"):
        views(seed, [lacking], "mlp")
    with pytest.raises(SelfdevError, match=f"math lacks {DOWN}, which seed has"):
        views(lacking, [seed], "mlp")


def test_other_shape_is_named(family: Family, tmp_path: Path) -> None:
    folder = copy(family.seed, tmp_path / "m")
    rewrite(folder, lambda v: v.update({DOWN: v[DOWN][:, :40].contiguous()}))
    seed, other = open_checkpoint(family.seed, "seed"), open_checkpoint(folder, "math")
    with pytest.raises(SelfdevError, match=r"has shape \[32, 40\] in math and \[32, 48\] in seed"):
        views(seed, [other], "mlp")


def test_dtype_that_cannot_merge(family: Family, tmp_path: Path) -> None:
    folder = copy(family.seed, tmp_path / "m")
    rewrite(folder, lambda v: v.update({DOWN: v[DOWN].to(torch.float8_e4m3fn)}))
    with pytest.raises(SelfdevError, match="is F8_E4M3; only BF16, F16, F32 merge"):
        views(open_checkpoint(folder, "seed"), [], "mlp")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_found(family: Family, tmp_path: Path, value: float) -> None:
    folder = copy(family.seed, tmp_path / "m")
    rewrite(folder, lambda v: v[DOWN][3, 4].fill_(value))
    shown = views(open_checkpoint(family.seed, "seed"), [open_checkpoint(folder, "math")], "mlp")
    check_finite(shown[:1])
    with pytest.raises(SelfdevError, match=f"math: {DOWN} has NaN"):
        check_finite(shown)


@pytest.mark.parametrize("kind", ["family", "family_fp32"])
def test_saved_checkpoint_has_merged_values_and_the_seeds_other_bytes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    seed = open_checkpoint(request.getfixturevalue(kind).seed, "seed")
    before = read(seed.path)
    merged = {name: value.float() + 0.1 for name, value in before.items() if ".mlp." in name}
    save_merged(seed, merged, tmp_path / "out")
    after = read(tmp_path / "out")
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        assert torch.equal(after[name], merged[name].to(value.dtype) if name in merged else value)


def test_saved_checkpoint_keeps_files_layout_and_metadata(family_fp32: Family, tmp_path: Path) -> None:
    seed = open_checkpoint(family_fp32.seed, "seed")
    save_merged(seed, {DOWN: torch.zeros(32, 48)}, tmp_path / "out", card="# m\n", program="x = 1\n")
    expected = {file.name for file in seed.path.iterdir()} | {"README.md", "program.py"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == expected
    for file in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (seed.path / name).read_bytes()
    assert (tmp_path / "out" / "program.py").read_text() == "x = 1\n"


def test_other_files_of_the_seed_stay_behind(family: Family, tmp_path: Path) -> None:
    folder = copy(family.seed, tmp_path / "m")
    (folder / "README.md").write_text("the seed's own card")
    (folder / "modeling_custom.py").write_text("print('code')")
    save_merged(open_checkpoint(folder, "seed"), {}, tmp_path / "out")
    assert not {"README.md", "modeling_custom.py"} & {f.name for f in (tmp_path / "out").iterdir()}


def test_saved_checkpoint_loads_with_transformers(family: Family, tmp_path: Path) -> None:
    seed = open_checkpoint(family.seed, "seed")
    merged = {DOWN: torch.full((32, 48), 0.5, dtype=torch.bfloat16)}
    save_merged(seed, merged, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.get_parameter(DOWN), merged[DOWN])
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")("1 plus 2", return_tensors="pt")
    assert model(**tokens).logits.shape == (1, 3, 32)


def test_merged_embedding_stays_tied(tmp_path: Path) -> None:
    seed = open_checkpoint(build_family(tmp_path, torch.float32, tied=True).seed, "seed")
    merged = {EMBED: torch.full((32, 32), 0.25)}
    save_merged(seed, merged, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, merged[EMBED])


def test_stored_copy_of_a_tied_embedding_is_merged_too(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    tiny_llama(torch.float32, tied=True).save_pretrained(folder)
    rewrite(folder, lambda v: v.update({"lm_head.weight": v[EMBED].clone()}))
    save_merged(open_checkpoint(folder, "seed"), {EMBED: torch.zeros(32, 32)}, tmp_path / "out")
    assert read(tmp_path / "out")["lm_head.weight"].abs().sum() == 0


@pytest.mark.parametrize("name", ["nothing_of_the_seed", DOWN])
def test_tensor_without_a_place_is_refused(family: Family, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="has no place"):
        save_merged(open_checkpoint(family.seed, "seed"), {name: torch.zeros(2)}, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_out_that_holds_something_is_refused_and_kept(family: Family, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("data")
    with pytest.raises(SelfdevError, match="is not empty"):
        save_merged(open_checkpoint(family.seed, "seed"), {}, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["precious"]


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("data")
    with pytest.raises(SelfdevError, match="is a file"):
        check_free(tmp_path / "out")


def test_empty_folder_and_new_parents_are_filled(family: Family, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new" / "deep"):
        save_merged(open_checkpoint(family.seed, "seed"), {}, out)
        assert (out / "config.json").exists()


def test_nothing_is_left_when_writing_fails(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SelfdevError, match=r"could not be written \(No space left on device\)"):
        save_merged(open_checkpoint(family.seed, "seed"), {}, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_interrupted_write_leaves_nothing(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.Draft, "put", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_merged(open_checkpoint(family.seed, "seed"), {}, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_shards_of_another_size_hold_the_same(family: Family, tmp_path: Path) -> None:
    seed = open_checkpoint(family.seed, "seed")
    before = read(seed.path)
    with drafted(seed, tmp_path / "out", "8KB") as draft:
        draft.put({DOWN: torch.full((32, 48), 0.5)})
        draft.appear({})
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert all(file.stat().st_size < 8_000 + 2_000 for file in files)
    expected = before | {DOWN: torch.full((32, 48), 0.5, dtype=torch.bfloat16)}
    after = read(tmp_path / "out")
    assert after.keys() == expected.keys()
    assert all(torch.equal(after[name], value) for name, value in expected.items())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(model.get_parameter(DOWN), expected[DOWN])


def test_shards_become_one_file_without_an_index(family_fp32: Family, tmp_path: Path) -> None:
    seed = open_checkpoint(family_fp32.seed, "seed")
    with drafted(seed, tmp_path / "out", "1GB") as draft:
        draft.appear({})
    assert [f.name for f in (tmp_path / "out").glob("model*")] == ["model.safetensors"]
    after = read(tmp_path / "out")
    assert all(torch.equal(after[name], value) for name, value in read(seed.path).items())


@pytest.mark.parametrize("size", ["5", "big", "5XB", "GB"])
def test_shard_size_that_is_none(size: str) -> None:
    with pytest.raises(SelfdevError, match=r"is no size; .* as in 5GB"):
        check_shard_size(size)


def test_draft_that_never_appears_leaves_nothing(family: Family, tmp_path: Path) -> None:
    with drafted(open_checkpoint(family.seed, "seed"), tmp_path / "out") as draft:
        assert [path.name for path in tmp_path.iterdir()] == [draft.folder.name]
    assert not any(tmp_path.iterdir())


def test_folders_above_a_draft_go_with_it_unless_they_were_there(family: Family, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with drafted(open_checkpoint(family.seed, "seed"), tmp_path / "here" / "new" / "deep" / "out"):
        assert (tmp_path / "here" / "new" / "deep").is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.mark.parametrize("size", ["0KB", "-5KB", "0.0GB", "infGB"])
def test_shard_size_of_nothing(size: str) -> None:
    with pytest.raises(SelfdevError, match="a number above 0"):
        check_shard_size(size)


def test_an_opened_model_has_an_absolute_path_and_keeps_links(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "linked").symlink_to(family.seed)
    monkeypatch.chdir(tmp_path)
    opened = open_checkpoint("linked", "seed")
    assert opened.path == tmp_path / "linked"
    assert {slot.file.parent for slot in opened.slots.values()} == {tmp_path / "linked"}
