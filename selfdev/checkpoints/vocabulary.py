"""Models whose vocabularies differ: rows of embeddings are put together by token, not by row number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from selfdev.checkpoints.headers import read_json
from selfdev.checkpoints.slots import FLOATS, Checkpoint, Rows, TensorSlot
from selfdev.errors import SelfdevError

# Tensors with one row per token, as the architectures name them.
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|lm_head|wte|embed_in|embed_out|word_embeddings|tok_embeddings)\.(weight|bias)$"
)
Vocabulary = Mapping[str, int]


def vocabulary(model: Checkpoint) -> Vocabulary | None:
    """Token -> row, from tokenizer.json or vocab.json; None when the folder has neither."""
    folder = model.path
    if (folder / "tokenizer.json").exists():
        return _of_tokenizer(folder / "tokenizer.json", model.name)
    if not (folder / "vocab.json").exists():
        return None
    added = folder / "added_tokens.json"
    more = read_json(added, model.name) if added.exists() else {}
    return read_json(folder / "vocab.json", model.name) | more


def _of_tokenizer(file: Path, name: str) -> Vocabulary:
    told = read_json(file, name)
    try:
        core = told["model"]["vocab"]
        # Unigram lists [token, score] pairs; the others map tokens to rows.
        rows = {token: row for row, (token, _) in enumerate(core)} if isinstance(core, list) else dict(core)
        return rows | {token["content"]: token["id"] for token in told.get("added_tokens") or ()}
    except (KeyError, TypeError, ValueError) as error:
        raise SelfdevError(f"{name}: {file} holds no vocabulary; fetch the tokenizer again") from error


def shared_tokens(ours: Vocabulary, theirs: Vocabulary) -> int:
    """How many tokens both vocabularies have."""
    return len(ours.keys() & theirs.keys())


def by_token(seed: Checkpoint, model: Checkpoint) -> Checkpoint:
    """A model with its embeddings in the seed's order; rows of tokens it does not know are the seed's.

    Where no file tells which row is which token it stays as it is; see `check_rows`. Raises SelfdevError when
    the vocabularies share less than half of the seed's tokens.
    """
    names = [n for n in seed.slots if EMBEDDING.search(n) and n in model.slots]
    ours, theirs = vocabulary(seed), vocabulary(model)
    if ours is not None and theirs is not None and 2 * shared_tokens(ours, theirs) < len(ours):
        raise SelfdevError(
            f"{model.name}: its vocabulary has {shared_tokens(ours, theirs)} of {seed.name}'s {len(ours)}"
            " tokens; with less than half it is no relative, give a model with the seed's tokenizer"
        )
    odd = any(seed.slots[n].shape[:1] != model.slots[n].shape[:1] for n in names)
    if ours is None or theirs is None or (ours == theirs and not odd):
        return model
    ordered = {n: _ordered(seed.slots[n], model.slots[n], ours, theirs) for n in names}
    return replace(model, slots=model.slots | ordered)


def check_rows(seed: Checkpoint, model: Checkpoint, names: Iterable[str]) -> None:
    """SelfdevError when one of these is an embedding with other rows than the seed's, which no file names."""
    for name in names:
        own, seeds = model.slots.get(name), seed.slots[name]
        if own is None or not EMBEDDING.search(name):
            continue
        if own.shape[:1] != seeds.shape[:1] and own.shape[1:] == seeds.shape[1:]:
            raise SelfdevError(
                f"{model.name}: {name} has {own.shape[0]} rows, {seed.name}'s has {seeds.shape[0]}, and no"
                " tokenizer.json tells which row is which token; add it"
            )


def _ordered(seed: TensorSlot, own: TensorSlot, ours: Vocabulary, theirs: Vocabulary) -> TensorSlot:
    """The slot of an embedding with the seed's rows in the seed's order."""
    if own.shape[1:] != seed.shape[1:] or not {own.dtype, seed.dtype} <= FLOATS.keys():
        return own  # not to be merged; whoever tries is told why
    rows = sorted((ours[token], theirs[token]) for token in ours.keys() & theirs.keys())
    runs = tuple(_runs((to, begin) for to, begin in rows if to < seed.shape[0] and begin < own.shape[0]))
    nbytes = math.prod(seed.shape) * FLOATS[own.dtype]
    return replace(own, shape=seed.shape, nbytes=nbytes, change=Rows(own, seed, runs))


def _runs(rows: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Neighbouring rows that stay neighbours, as (from, to, count)."""
    start: tuple[int, int] | None = None
    count = 0
    for to, begin in rows:
        if start is not None and (to, begin) == (start[0] + count, start[1] + count):
            count += 1
            continue
        if start is not None:
            yield start[1], start[0], count
        start, count = (to, begin), 1
    if start is not None:
        yield start[1], start[0], count
