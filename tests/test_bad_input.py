"""Bad input as a user gives it to each verb: one sentence, exit code 1, no traceback, nothing written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Family
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from selfdev.cli.cli import app
from selfdev.engine.engine import Engine

DOWN = "model.layers.0.mlp.down_proj.weight"
Damage = Callable[[Path], object]


def told(out: Path, seed: Path, experts: list[tuple[str, Path | str]]) -> str:
    """The sentence a failing merge ends with; the output's folder must be as it was."""
    words = ["merge", "linear", "--seed", str(seed), "--out", str(out), "--accept-weaker"]
    for name, expert in experts:
        words += ["--expert", f"{name}={expert}"]
    return failing(words, out)


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - names are enough


def config(folder: Path, seed: Path, expert: Path, **sections: Any) -> Path:
    """A config in a folder of its own, for the verbs that take one."""
    (folder / "configs").mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "name": "bad",
        "models": {"seed": str(seed), "experts": {"maths": str(expert)}},
        "task": {"name": "lab", "shots": 0, "dev": 2, "finalist_dev": 2, "test": 2},
        "sandbox": {"accept_weaker": True},
        "workers": 1,
    }
    file = folder / "configs" / "bad.yaml"
    file.write_text(json.dumps(values | sections))
    return file


def failing(words: list[str], out: Path | None = None) -> str:
    """The sentence a failing command ends with."""
    before = listing(out.parent) if out else []
    done = CliRunner().invoke(app, words)
    said = done.stderr.strip()
    assert (done.exit_code, done.stdout) == (1, ""), (done.exit_code, said, done.exception)
    assert said.startswith("selfdev: ")
    assert "\n" not in said
    assert "report" not in said
    assert out is None or listing(out.parent) == before
    return said


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def poison(folder: Path) -> None:
    values = load_file(folder / "model.safetensors")
    values[DOWN][0, 0] = float("nan")
    save_file(values, folder / "model.safetensors", {"format": "pt"})


def other_words(folder: Path) -> None:
    told: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    vocab = {f"wort{row}": row for row in told["model"]["vocab"].values()}
    told["model"]["vocab"], told["added_tokens"] = vocab, []
    (folder / "tokenizer.json").write_text(json.dumps(told))


def wider(folder: Path) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"hidden_size": 64}))


def header(folder: Path, text: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "truncated safetensors": (truncate, "model.safetensors is truncated"),
    "NaN": (poison, f"maths: {DOWN} has NaN"),
    "wrong vocabulary": (other_words, "maths: its vocabulary has 0 of seed's"),
    "other size": (wider, "maths: hidden_size is 64 and seed's is 32"),
    "pickled": (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pickled weights"),
    "header a list": (lambda d: header(d, b"[1, 2]"), "is truncated or not safetensors"),
    "header nested": (lambda d: header(d, b"[" * 100_000), "is truncated or not safetensors"),
    "config cut short": (lambda d: (d / "config.json").write_text("{"), "config.json is not valid JSON"),
    "config nested": (
        lambda d: (d / "config.json").write_text("[" * 100_000),
        "config.json is not valid JSON",
    ),
    "config of another kind": (
        lambda d: (d / "config.json").write_text('{"text_config": 5}'),
        "text_config in .* is 5 and must be a JSON object",
    ),
}
VERBS = ("merge", "run", "doctor", "score")
# A model alone has nothing to differ from; doctor reads headers only.
ELSEWHERE = {"wrong vocabulary": ("score",), "other size": ("score",), "NaN": ("doctor",)}
CASES = [(verb, what) for what in DAMAGES for verb in VERBS if verb not in ELSEWHERE.get(what, ())]


def refusal(verb: str, seed: Path, model: Path, place: Path) -> str:
    """What a verb says of a damaged model, an expert where there is one."""
    out = place / "out"
    if verb == "merge":
        return told(out, seed, [("maths", model)])
    if verb == "score":
        return failing(["score", str(model), "--limit", "1"], out).replace("model: ", "maths: ")
    words = [verb, str(config(place, seed, model)), "--out", str(out)]
    if verb == "run":
        return failing(words, out)
    done = CliRunner().invoke(app, [*words, "--json"])
    assert (done.exit_code, done.stderr, out.exists()) == (1, "", False)
    (problem,) = json.loads(done.stdout)["problems"]
    return str(problem)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox was tried already."""
    from selfdev.sandbox import selftest

    held = {"computing": True, **dict.fromkeys(selftest.TRIES, True)}
    monkeypatch.setattr(selftest, "measure", lambda: held)


@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize(("verb", "what"), CASES)
def test_damaged_model(verb: str, what: str, family: Family, tmp_path: Path) -> None:
    change, reason = DAMAGES[what]
    folder = Path(shutil.copytree(family.experts["add"], tmp_path / "m"))
    change(folder)
    assert re.search(reason, refusal(verb, family.seed, folder, tmp_path))


@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize("verb", VERBS)
def test_missing_shard(verb: str, family_fp32: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family_fp32.experts["add"], tmp_path / "m"))
    (folder / "model-00002-of-00002.safetensors").unlink()
    said = refusal(verb, family_fp32.seed, folder, tmp_path)
    assert "maths: shard model-00002-of-00002.safetensors of 2 is missing" in said


def test_score_unpickles_nothing(family: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family.seed, tmp_path / "m"))
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    assert "unpickling can run code" in failing(["score", str(folder), "--limit", "1"])
    with pytest.raises(OSError, match=r"model\.safetensors"):
        Engine(folder)


def test_a_model_without_tokenizer(family: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family.seed, tmp_path / "m"))
    for file in folder.glob("tokenizer*"):
        file.unlink()
    said = failing(["score", str(folder), "--limit", "1"])
    assert said.startswith(f"selfdev: {folder} has no tokenizer that transformers can read")


def test_an_architecture_that_transformers_does_not_know(family: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family.seed, tmp_path / "m"))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"model_type": "unheard"}))
    assert "cannot be loaded by transformers" in failing(["score", str(folder), "--limit", "1"])
    file = config(tmp_path, folder, folder)
    assert "does not know the model_type 'unheard'" in CliRunner().invoke(app, ["doctor", str(file)]).stdout


@pytest.mark.parametrize(("shots", "words"), [("100000", "must be from 0 to 100"), ("100", "does not fit")])
def test_more_examples_than_fit(shots: str, words: str, family: Family) -> None:
    assert words in failing(["score", str(family.seed), "--task", "lab", "--limit", "1", "--shots", shots])


def test_two_experts_with_one_name(family: Family, tmp_path: Path) -> None:
    pair = ("maths", family.experts["add"])
    assert "two experts are named maths" in told(tmp_path / "out", family.seed, [pair, pair])


def test_path_that_is_not_there(family: Family, tmp_path: Path) -> None:
    assert "maths: " in told(tmp_path / "out", family.seed, [("maths", tmp_path / "none")])


def test_path_that_cannot_be_read(family: Family, tmp_path: Path) -> None:
    too_long = tmp_path / ("x" * 300)  # refused by the file system for root too
    assert "cannot be read (File name too long)" in told(tmp_path / "out", family.seed, [("maths", too_long)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_weights_without_permission(family: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family.experts["add"], tmp_path / "m"))
    (folder / "model.safetensors").chmod(0)
    assert "check its permissions" in told(tmp_path / "out", family.seed, [("maths", folder)])


def test_hub_id_offline(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    said = told(tmp_path / "out", family.seed, [("maths", "GAIR/Abel-7B-002")])
    assert "model GAIR/Abel-7B-002 is no folder here and could not be fetched" in said


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a tmpfs with options; skips where that is not allowed."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / "small"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode != 0:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


def test_full_disk(family: Family, mounted: Callable[[str], Path]) -> None:
    size = (family.seed / "model.safetensors").stat().st_size
    place = mounted(f"size={size // 2}")
    said = told(place / "out", family.seed, [("maths", family.experts["add"])])
    assert "could not be written (No space left on device)" in said


def test_no_write_permission(family: Family, mounted: Callable[[str], Path]) -> None:
    place = mounted("ro,size=1m")
    said = told(place / "out", family.seed, [("maths", family.experts["add"])])
    assert "could not be written (Read-only file system)" in said


def test_out_in_use(family: Family, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("data")
    assert "is not empty" in told(tmp_path / "out", family.seed, [("maths", family.experts["add"])])
    assert (tmp_path / "out" / "kept").read_text() == "data"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--shard-size", "huge", "shard size 'huge' is no size"),
        ("--shard-size", "0KB", "shard size '0KB' is no size; give a number above 0"),
        ("--shard-size", "-5KB", "shard size '-5KB' is no size; give a number above 0"),
        ("--shard-size", "infGB", "shard size 'infGB' is no size"),
        ("--timeout", "inf", "timeout is inf and must be above 0 and at most 1,000,000 seconds"),
        ("--timeout", "1e300", "timeout is 1e+300 and must be above 0"),
        ("--memory", "inf", "memory is inf and must be above 0 and at most 1,000,000 GiB"),
        ("--param", f"WEIGHT={'[' * 25}{']' * 25}", "nested at most 20 times"),
        ("--param", f"WEIGHT={'[' * 900}{']' * 900}", "nested at most 20 times"),
    ],
)
def test_an_option_of_no_use(option: str, value: str, words: str, family: Family, tmp_path: Path) -> None:
    given = ["merge", "linear", "--seed", str(family.seed), "--expert", f"a={family.experts['add']}"]
    assert words in failing([*given, "--out", str(tmp_path / "out"), option, value], tmp_path / "out")


@pytest.mark.parametrize("verb", ["merge", "export"])
def test_a_parameter_nested_too_deeply_is_wrong_usage(verb: str, tmp_path: Path) -> None:
    words = [verb, "linear", "--out", str(tmp_path / "out"), "--param", f"WEIGHT={'[' * 5000}"]
    done = CliRunner().invoke(app, [*words, *(["--seed", "s", "--expert", "a=b"] if verb == "merge" else [])])
    assert (done.exit_code, "nested too deeply" in done.stderr) == (2, True)


@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize("verb", ["run", "doctor"])
def test_out_that_is_a_file(verb: str, family: Family, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    file = config(tmp_path, family.seed, family.experts["add"])
    done = CliRunner().invoke(app, [verb, str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert re.search(r"run folder \S+out (cannot be made \(it is a file\)|is a file); choose another", said)
    assert (tmp_path / "out").read_text() == "kept"
