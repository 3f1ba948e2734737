"""Writes merged checkpoints: the seed's files with merged tensors in their place, whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from selfdev.checkpoints.headers import INDEX
from selfdev.checkpoints.slots import TIED, Checkpoint, TensorSlot, torch_dtype
from selfdev.checkpoints.vocabulary import EMBEDDING
from selfdev.errors import SelfdevError

if TYPE_CHECKING:
    import torch

BESIDE = (  # what a checkpoint needs beside its weights
    *("config.json", "generation_config.json", "LICENSE*", "NOTICE*"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model"),
    "chat_template.*",
)
_CHUNK = 1 << 24
Places = Mapping[str, tuple[str, int]]  # tensor -> file and offset in it


def check_free(out: Path) -> None:
    """SelfdevError when a checkpoint cannot appear at `out` because something is there."""
    with _told(out):
        if out.is_dir() and any(out.iterdir()):
            raise SelfdevError(f"{out} is not empty; choose another folder or empty it")
        if out.exists() and not out.is_dir():
            raise SelfdevError(f"{out} is a file; choose a folder for the checkpoint")


def check_shard_size(size: str | None) -> None:
    """SelfdevError when a size such as 5GB cannot be read."""
    try:
        if size is not None:
            _split({}, size)
            if float(size.strip()[:-2]) <= 0:
                raise ValueError
    except (ValueError, OverflowError):
        raise SelfdevError(
            f"shard size {size!r} is no size; give a number above 0 and KB, MB, GB or TB, as in 5GB"
        ) from None


@dataclass(slots=True)
class Draft:
    """A checkpoint in the making, in a hidden folder beside `out`; it is nothing until it `appear`s."""

    seed: Checkpoint
    out: Path
    folder: Path
    places: Places

    def put(self, merged: Mapping[str, torch.Tensor]) -> None:
        """Write merged tensors, in the seed's dtypes, over the seed's values."""
        for name, value in merged.items():
            if name not in self.seed.slots or tuple(value.shape) != self.seed.slots[name].shape:
                raise ValueError(f"{name} of shape {list(value.shape)} has no place in {self.seed.path}")
            self._write(name, value)
            tied = self.seed.config.get("tie_word_embeddings") and TIED in self.seed.slots
            if tied and EMBEDDING.search(name) and name != TIED:
                self._write(TIED, value)

    def appear(self, texts: Mapping[str, str | None]) -> None:
        """Put `texts` (file name -> content) beside the weights and give it its name: it is there, whole."""
        with _told(self.out):
            for name, text in texts.items():
                if text is not None:
                    (self.folder / name).write_text(text, encoding="utf-8")
            self.folder.replace(self.out)

    def _write(self, name: str, value: torch.Tensor) -> None:
        import torch

        stored = value.detach().to("cpu", torch_dtype(self.seed.slots[name].dtype)).contiguous()
        file, offset = self.places[name]
        with _told(self.out), (self.folder / file).open("r+b") as stream:
            stream.seek(offset)
            stream.write(stored.reshape(-1).view(torch.uint8).numpy().data)


@contextmanager
def drafted(
    seed: Checkpoint, out: Path, shard_size: str | None = None, to_come: Collection[str] = ()
) -> Iterator[Draft]:
    """A draft that so far equals the seed, but for holes where the tensors `to_come` will be put.

    The seed's files are kept as they are, or cut anew into shards of `shard_size`. Whatever has not appeared
    is removed at the end, new folders above it too. Raises SelfdevError when `out` holds something or cannot
    be written.
    """
    check_free(out)
    folder = out.absolute().parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    made: list[Path] = []
    try:
        with _told(out):
            made = [parent for parent in folder.parents if not parent.exists()]
            folder.mkdir(parents=True)
            for pattern in BESIDE:
                for file in seed.path.glob(pattern):
                    shutil.copyfile(file, folder / file.name)
            if shard_size is None:
                places = _as_stored(seed, folder, to_come)
            else:
                places = _in_shards(seed, folder, shard_size, to_come)
        yield Draft(seed, out, folder, places)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:  # the deepest first; one that holds something stays
            with suppress(OSError):
                parent.rmdir()


def save_merged(
    seed: Checkpoint,
    merged: Mapping[str, torch.Tensor],
    out: Path,
    card: str | None = None,
    program: str | None = None,
) -> None:
    """Write a checkpoint at `out`: the seed's files byte for byte with the merged tensors in their place.

    Tensors are stored in the seed's dtype. `card` becomes README.md, `program` program.py. The folder
    appears whole or not at all. Raises SelfdevError when `out` holds something or cannot be written,
    ValueError for a tensor the seed does not have in that shape.
    """
    with drafted(seed, out, to_come=merged.keys()) as draft:
        draft.put(merged)
        draft.appear({"README.md": card, "program.py": program})


def _as_stored(seed: Checkpoint, folder: Path, to_come: Collection[str]) -> Places:
    """Copy the seed's files: same names, shapes and dtypes mean the same layout."""
    for file in sorted({slot.file for slot in seed.slots.values()}):
        inside = [slot for slot in seed.slots.values() if slot.file == file]
        with file.open("rb") as stored, (folder / file.name).open("wb") as out:
            size = out.truncate(file.stat().st_size)
            at = 0
            for hole in sorted((s for s in inside if s.name in to_come), key=lambda s: s.offset):
                _copy(stored, out, at, hole.offset)
                at = hole.offset + hole.nbytes
            _copy(stored, out, at, size)
    if (seed.path / INDEX).exists():
        shutil.copyfile(seed.path / INDEX, folder / INDEX)
    return {name: (slot.file.name, slot.offset) for name, slot in seed.slots.items()}


def _copy(stored: BinaryIO, out: BinaryIO, begin: int, end: int) -> None:
    """Copy bytes to the same places of another file."""
    stored.seek(begin)
    out.seek(begin)
    for at in range(begin, end, _CHUNK):
        out.write(stored.read(min(_CHUNK, end - at)))


def _in_shards(seed: Checkpoint, folder: Path, size: str, to_come: Collection[str]) -> Places:
    """Write the seed's tensors anew, at most `size` in a file unless one tensor is larger."""
    split = _split(seed.slots, size)
    places: dict[str, tuple[str, int]] = {}
    for file, names in split.filename_to_tensors.items():
        starts = _write_shard(folder / file, [seed.slots[name] for name in names], to_come)
        places |= {name: (file, start) for name, start in zip(names, starts, strict=True)}
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return places


def _split(slots: Mapping[str, TensorSlot], size: str) -> Any:
    from huggingface_hub import split_state_dict_into_shards_factory

    return split_state_dict_into_shards_factory(
        dict(slots),
        get_storage_size=lambda slot: slot.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=size,
    )


def _write_shard(file: Path, slots: Sequence[TensorSlot], to_come: Collection[str]) -> list[int]:
    """One safetensors file with these tensors copied as they are stored, or left out; where each begins."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin, begins = 0, []
    for slot in slots:
        offsets = [begin, begin + slot.nbytes]
        header[slot.name] = {"dtype": slot.dtype, "shape": slot.shape, "data_offsets": offsets}
        begins.append(begin)
        begin += slot.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for slot in slots:
            if slot.name in to_come:
                out.seek(slot.nbytes, os.SEEK_CUR)
                continue
            with slot.file.open("rb") as stored:
                stored.seek(slot.offset)
                for done in range(0, slot.nbytes, _CHUNK):
                    out.write(stored.read(min(_CHUNK, slot.nbytes - done)))
        out.truncate(8 + len(text) + begin)
    return [8 + len(text) + begin for begin in begins]


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """What the disk refuses, as one sentence."""
    try:
        yield
    except OSError as error:
        raise SelfdevError(
            f"{out} could not be written ({error.strerror}); check space and permissions or choose another"
        ) from error
