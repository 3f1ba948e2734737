"""The model card: metadata the Hub accepts, the program whole, parents and scores as given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, metadata_load

from selfdev.checkpoints import Checkpoint
from selfdev.records import Program
from selfdev.report.card import model_card, parent
from selfdev.results import TestRow

CODE = "SCALE = 0.5\n\ndef merge_models(models, device):\n    return dict(models['seed'])"
ROW = TestRow(
    name="ties",
    kind="baseline",
    n=2000,
    correct=1240,
    accuracy=0.62,
    low=0.5985,
    high=0.641,
    flexible_accuracy=0.63,
    dev_n=400,
    dev_accuracy=0.64,
    p_vs_best_baseline=None,
    p_vs_seed=0.00123,
)


def checkpoint(folder: Path, name: str, license: str | None = None) -> Checkpoint:
    folder.mkdir(parents=True)
    if license is not None:
        (folder / "README.md").write_text(f"---\nlicense: {license}\n---\nhello")
    return Checkpoint(name, folder, {}, {})


def hub_folder(root: Path, owner: str, name: str) -> Path:
    return root / "hub" / f"models--{owner}--{name}" / "snapshots" / "0123abcd"


def card(seed: Checkpoint, *experts: Checkpoint, **more: Any) -> str:
    return model_card("merged", Program(CODE), seed, experts, scope="mlp", **more)


def metadata(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / "CARD.md").write_text(text)
    return metadata_load(tmp_path / "CARD.md") or {}


def test_hub_parents_are_base_models(tmp_path: Path) -> None:
    seed = checkpoint(hub_folder(tmp_path, "ann", "base"), "seed")
    expert = checkpoint(hub_folder(tmp_path, "bob", "math-7b"), "math")
    found = metadata(tmp_path, card(seed, expert))
    assert found["base_model"] == ["ann/base", "bob/math-7b"]
    assert found["base_model_relation"] == "merge"
    assert found["library_name"] == "transformers"


def test_local_parents_show_their_folder_name_and_no_path(tmp_path: Path) -> None:
    text = card(checkpoint(tmp_path / "base", "seed"), checkpoint(tmp_path / "adder", "add"))
    assert str(tmp_path) not in text
    assert "base_model" not in metadata(tmp_path, text)
    assert "| add | adder | local | not stated |" in text


def test_revision_and_licence_of_a_parent(tmp_path: Path) -> None:
    found = parent(checkpoint(hub_folder(tmp_path, "ann", "base"), "seed", "mit"))
    assert (found.model, found.revision, found.license) == ("ann/base", "0123abcd", "mit")


def test_damaged_parent_card_means_no_known_licence(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "base", "seed")
    (tmp_path / "base" / "README.md").write_text("---\n: [\n---\n")
    assert parent(model).license is None


@pytest.mark.parametrize(("second", "expected"), [("mit", "mit"), ("apache-2.0", None), (None, None)])
def test_licence_only_where_all_parents_agree(
    tmp_path: Path, second: str | None, expected: str | None
) -> None:
    seed = checkpoint(tmp_path / "base", "seed", "mit")
    expert = checkpoint(tmp_path / "adder", "add", second)
    assert metadata(tmp_path, card(seed, expert)).get("license") == expected


def test_scores_show_count_and_interval(tmp_path: Path) -> None:
    text = card(checkpoint(tmp_path / "base", "seed"), scores=[ROW, replace(ROW, p_vs_seed=None)], task="lab")
    assert "| ties | baseline | 2000 | 62.0% | 59.9% to 64.1% | 0.0012 |" in text
    assert "| ties | baseline | 2000 | 62.0% | 59.9% to 64.1% |  |" in text
    assert "test questions of lab" in text


def test_no_scores_no_table(tmp_path: Path) -> None:
    assert "## Scores" not in card(checkpoint(tmp_path / "base", "seed"))


def test_program_stands_whole_and_cannot_leave_its_fence(tmp_path: Path) -> None:
    code = CODE + '\n# """\n```\n# a heading of its own'
    text = model_card("m", Program(code), checkpoint(tmp_path / "base", "seed"), [], scope="all")
    assert f"````python\n{code}\n````" in text


def test_command_names_every_model_and_quotes_the_scope(tmp_path: Path) -> None:
    seed, expert = checkpoint(tmp_path / "base", "seed"), checkpoint(tmp_path / "adder", "add")
    text = model_card("m", Program(CODE), seed, [expert], scope=r"layers\.0\.", random_seed=7)
    command = r"selfdev merge program.py --seed base --expert add=adder --scope 'layers\.0\.'"
    assert f"{command} --random-seed 7 --out merged" in text
    assert "random seed 7, tensors shown as stored" in text


def test_float32_views_are_said(tmp_path: Path) -> None:
    assert "shown as float32" in card(checkpoint(tmp_path / "base", "seed"), dtype="F32")


def test_hub_library_reads_the_card(tmp_path: Path) -> None:
    read = ModelCard(card(checkpoint(tmp_path / "base", "seed"), scores=[ROW], task="lab"))
    assert read.data.get("tags") == ["merge", "selfdev"]
