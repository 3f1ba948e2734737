"""Hashes that an archive keeps, so that what was stored can be checked later."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from selfdev.checkpoints import Checkpoint

AT_ONCE = 1 << 24  # bytes read at a time


def of_text(text: str) -> str:
    """SHA-256 of a text; lone surrogates count as they are."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def of_weights(folder: Path) -> str:
    """SHA-256 of all weight files of a checkpoint, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while data := file.read(AT_ONCE):
                digest.update(data)
    return digest.hexdigest()


def merged_digest() -> xxhash.xxh3_128:
    """Takes the bytes of merged weights for `Outcome.weights_hash`, as fast as memory is read. It tells
    results apart; it is no seal against someone who looks for two with one hash."""
    return xxhash.xxh3_128()


def of_merged(model: Checkpoint, names: list[str]) -> str:
    """What `Outcome.weights_hash` says of a program's result, from a checkpoint that holds it; `names` are
    the parameters that programs are shown, in their order."""
    digest = merged_digest()
    for name in names:
        slot = model.slots[name]
        with slot.file.open("rb") as file:
            file.seek(slot.offset)
            digest.update(file.read(slot.nbytes))
    return digest.hexdigest()
