"""Different vocabularies: rows of tokens both models know come by token, the rest stays the seed's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfdev.checkpoints import Checkpoint, open_checkpoint, shared_tokens, tensor, views, vocabulary
from selfdev.errors import SelfdevError

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WORDS = ["<unk>", "the", "cat", "sat", "mat"]


def model(folder: Path, tokens: dict[str, int] | None, rows: int, first: float, **config: Any) -> Path:
    """Embeddings alone: row r of the input one holds first + r, of the output one minus that."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 2} | config))
    values = (first + torch.arange(rows, dtype=torch.float32)).repeat(2, 1).T.contiguous()
    held = {EMBED: values} if config.get("tie_word_embeddings") else {EMBED: values, HEAD: -values}
    save_file(held, folder / "model.safetensors")
    if tokens is not None:
        added = [{"id": row, "content": token} for token, row in tokens.items() if token.startswith("<")]
        core = {token: row for token, row in tokens.items() if not token.startswith("<")}
        told = {"model": {"type": "BPE", "vocab": core}, "added_tokens": added}
        (folder / "tokenizer.json").write_text(json.dumps(told))
    return folder


def rows(words: list[str]) -> dict[str, int]:
    return {word: row for row, word in enumerate(words)}


def pair(seed: Path, expert: Path) -> tuple[Checkpoint, Checkpoint]:
    opened = open_checkpoint(seed, "seed")
    return opened, open_checkpoint(expert, "chat", opened)


def first_column(checkpoint: Checkpoint, name: str = EMBED) -> list[float]:
    return [float(v) for v in tensor(checkpoint.slots[name])[:, 0]]


def test_added_tokens_of_an_expert_are_left_out(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", rows(WORDS), 5, 0)
    expert = model(tmp_path / "e", rows([*WORDS, "<im_start>", "<im_end>"]), 7, 100)
    opened, found = pair(seed, expert)
    assert first_column(found) == [100, 101, 102, 103, 104]
    assert first_column(found, HEAD) == [-100, -101, -102, -103, -104]
    assert len(views(opened, [found], "all")) == 2


def test_rows_come_by_token_where_numbers_moved(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", rows(WORDS), 5, 0)
    moved = {"<unk>": 0, "the": 3, "cat": 4, "sat": 1, "new": 2}
    _, found = pair(seed, model(tmp_path / "e", moved, 5, 100))
    # unk, the, cat, sat from rows 0, 3, 4, 1; mat is unknown there.
    assert first_column(found) == [100, 103, 104, 101, 4]


def test_padding_rows_stay_the_seeds(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", rows(WORDS), 8, 0)
    _, found = pair(seed, model(tmp_path / "e", rows(WORDS), 6, 100))
    assert first_column(found) == [100, 101, 102, 103, 104, 5, 6, 7]


def test_equal_vocabularies_are_left_as_they_are(tmp_path: Path) -> None:
    seed, expert = (model(tmp_path / n, rows(WORDS), 6, f) for n, f in (("s", 0), ("e", 100)))
    _, found = pair(seed, expert)
    assert found.slots[EMBED].change is None
    assert first_column(found)[-1] == 105


def test_tokens_without_a_row_are_passed_over(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", rows(WORDS), 4, 0)  # "mat" has no row: an embedding that was never resized
    _, found = pair(seed, model(tmp_path / "e", rows([*WORDS, "<pad>"]), 6, 100))
    assert first_column(found) == [100, 101, 102, 103]


def test_sentencepiece_and_old_vocabularies_are_read(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", None, 5, 0)
    pieces = {"model": {"type": "Unigram", "vocab": [[word, -1.0] for word in WORDS]}}
    (seed / "tokenizer.json").write_text(json.dumps(pieces))
    expert = model(tmp_path / "e", None, 6, 100)
    (expert / "vocab.json").write_text(json.dumps(rows(WORDS)))
    (expert / "added_tokens.json").write_text(json.dumps({"<x>": 5}))
    opened, found = pair(seed, expert)
    assert vocabulary(opened) == rows(WORDS)
    assert vocabulary(found) == rows([*WORDS, "<x>"])
    assert shared_tokens(rows(WORDS), rows([*WORDS, "<x>"])) == 5
    assert first_column(found) == [100, 101, 102, 103, 104]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", rows(WORDS), 5, 0)
    expert = model(tmp_path / "e", rows(["<unk>", "der", "Hund", "sat", "dort"]), 5, 100)
    with pytest.raises(SelfdevError, match=r"chat: its vocabulary has 2 of seed's 5 tokens; .*no relative"):
        pair(seed, expert)


def test_other_rows_without_a_vocabulary_are_refused_only_where_embeddings_merge(tmp_path: Path) -> None:
    seed, expert = model(tmp_path / "s", rows(WORDS), 5, 0), model(tmp_path / "e", None, 7, 100)
    for folder in (seed, expert):
        file = folder / "model.safetensors"
        save_file(load_file(file) | {"model.layers.0.mlp.up_proj.weight": torch.ones(2, 2)}, file)
    opened, found = pair(seed, expert)
    assert len(views(opened, [found], "mlp")) == 2
    with pytest.raises(SelfdevError, match=r"has 7 rows, seed's has 5, and no tokenizer\.json tells"):
        views(opened, [found], "all")
    same = model(tmp_path / "f", None, 5, 100)
    assert first_column(pair(seed, same)[1]) == [100, 101, 102, 103, 104]


def test_damaged_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    seed, expert = (model(tmp_path / n, rows(WORDS), 5, 0) for n in "se")
    (expert / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(SelfdevError, match=r"chat: .* holds no vocabulary"):
        pair(seed, expert)


def test_output_embedding_of_a_tied_expert_is_its_embedding(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", rows(WORDS), 5, 0)
    _, found = pair(seed, model(tmp_path / "e", rows(WORDS), 5, 100, tie_word_embeddings=True))
    assert first_column(found, HEAD) == [100, 101, 102, 103, 104]


def test_untied_expert_of_a_tied_seed_is_refused_only_where_it_matters(tmp_path: Path) -> None:
    seed = model(tmp_path / "s", rows(WORDS), 5, 0, tie_word_embeddings=True)
    opened, found = pair(seed, model(tmp_path / "e", rows(WORDS), 5, 100, tie_word_embeddings=False))
    assert len(views(opened, [found], "embed_tokens")) == 2
    with pytest.raises(SelfdevError, match=r"seed ties lm_head\.weight to its embedding and chat does not"):
        views(opened, [found], "all")


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_type", "qwen2"), ("hidden_size", 4), ("num_hidden_layers", 3), ("num_attention_heads", 8)],
)
def test_another_architecture_or_size_is_refused_by_config_alone(
    tmp_path: Path, key: str, value: object
) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4}
    seed = model(tmp_path / "s", rows(WORDS), 5, 0, **sizes)
    expert = model(tmp_path / "e", rows(WORDS), 5, 100, **(sizes | {key: value}))
    (expert / "model.safetensors").unlink()  # nothing heavy is looked at
    with pytest.raises(SelfdevError, match=f"chat: {key} is .* one architecture and size"):
        pair(seed, expert)
