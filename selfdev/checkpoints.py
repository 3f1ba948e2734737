"""Hugging Face checkpoints on disk: opened by their headers, weights mapped on use, results written whole.

Nothing here unpickles or runs anything from a checkpoint: safetensors and JSON are all that is read.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfdev.errors import SelfdevError

if TYPE_CHECKING:
    import torch

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SCOPES = {"mlp": r"\.mlp\.", "all": ""}
FLOATS = {"BF16": 2, "F16": 2, "F32": 4}  # what a program may see, and bytes per value
BUFFERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
TIED = "lm_head.weight"  # a second copy of the embedding where config.json ties them
BESIDE = (  # what a checkpoint needs beside its weights
    *("config.json", "generation_config.json", "LICENSE*", "NOTICE*", INDEX),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model"),
    "chat_template.*",
)


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """Where one tensor lies: `dtype` is the safetensors name (BF16, F16, F32, ...), `offset` counts bytes
    from the start of `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk under the name a program knows it by; `config` is its config.json."""

    name: str
    path: Path
    slots: dict[str, TensorSlot]
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelView:
    """What a program sees of a model, scope already applied, in one order for all models of a merge.

    `dtype` "F32" shows float32 (converted once); None shows each tensor as stored.
    """

    name: str
    slots: tuple[TensorSlot, ...]
    dtype: str | None = None


def open_checkpoint(path: Path | str, name: str) -> Checkpoint:
    """Open a folder with config.json and safetensors (one file or sharded), reading headers only.

    Raises SelfdevError when a file is missing, damaged or of a kind that is not read.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise SelfdevError(
            f"{name}: {folder} {what}; a model is the folder of a Hugging Face checkpoint"
            " (fetch one with `hf download ID --local-dir DIR`)"
        )
    config = _json(folder / "config.json", name)
    if "quantization_config" in config:
        raise SelfdevError(
            f"{name}: {folder} is quantized; only unquantized weights merge, give that checkpoint"
        )
    slots = {slot.name: slot for file, held in _files(folder, name) for slot in _slots(file, name, held)}
    return Checkpoint(name, folder, slots, config)


def _json(file: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise SelfdevError(f"{name}: {file} is missing; a checkpoint needs it") from None
    except OSError as error:
        raise SelfdevError(
            f"{name}: {file} cannot be read ({error.strerror}); check its permissions"
        ) from error
    except ValueError as error:
        raise SelfdevError(f"{name}: {file} is not valid JSON; fetch the checkpoint again") from error
    if not isinstance(value, dict):
        raise SelfdevError(f"{name}: {file} must hold a JSON object; fetch the checkpoint again")
    return value


def _files(folder: Path, name: str) -> list[tuple[Path, frozenset[str] | None]]:
    """The weight files, each with the tensors the index says it holds (None: no index)."""
    if (folder / SINGLE).exists():
        return [(folder / SINGLE, None)]
    if not (folder / INDEX).exists():
        raise SelfdevError(f"{name}: {folder} {_why_no_weights(folder)}")
    placed = _json(folder / INDEX, name).get("weight_map")
    if not isinstance(placed, dict) or not all(
        isinstance(s, str) and Path(s).name == s for s in placed.values()
    ):
        raise SelfdevError(f"{name}: {folder / INDEX} has no valid weight_map; fetch the checkpoint again")
    shards = sorted(set(placed.values()))
    for shard in shards:
        if not (folder / shard).exists():
            raise SelfdevError(
                f"{name}: shard {shard} of {len(shards)} is missing in {folder}; fetch the checkpoint again"
            )
    return [(folder / s, frozenset(t for t in placed if placed[t] == s)) for s in shards]


def _why_no_weights(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():
        return (
            "is a PEFT adapter; merge it into its base first (peft's merge_and_unload, then save_pretrained)"
        )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        return (
            "holds pickled weights, which are not read because unpickling can run code; load it once where"
            " you trust it with AutoModelForCausalLM.from_pretrained and write it with save_pretrained"
        )
    return f"holds neither {SINGLE} nor {INDEX}; give the folder of a safetensors checkpoint"


def _slots(file: Path, name: str, held: frozenset[str] | None) -> list[TensorSlot]:
    """The tensors of one file, checked against its length and the index."""
    try:
        found = list(_read_header(file))
    except OSError as error:
        raise SelfdevError(
            f"{name}: {file} cannot be read ({error.strerror}); check its permissions"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SelfdevError(f"{name}: {file} is truncated or not safetensors; fetch it again") from error
    missing = sorted((held or frozenset()) - {slot.name for slot in found})
    if missing:
        raise SelfdevError(f"{name}: {file} lacks {missing[0]}, which {INDEX} places there; fetch it again")
    return [slot for slot in found if held is None or slot.name in held]


def _read_header(file: Path) -> Iterator[TensorSlot]:
    """Slots as the header lists them; any of several built-in errors when header and file disagree."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        if not 10 <= start <= size:
            raise ValueError("header longer than the file")
        header = json.loads(stream.read(start - 8))
    end_of_data = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        shape, dtype = tuple(map(int, entry["shape"])), str(entry["dtype"])
        width = (FLOATS | BUFFERS).get(dtype)
        if not 0 <= begin <= end <= size - start or (width and math.prod(shape) * width != end - begin):
            raise ValueError(f"{name} does not fit")
        end_of_data = max(end_of_data, end)
        yield TensorSlot(name, dtype, shape, file, start + begin, end - begin)
    if start + end_of_data != size:
        raise ValueError("file longer than its header says")


def views(
    seed: Checkpoint, experts: Sequence[Checkpoint], scope: str = "mlp", dtype: str | None = None
) -> tuple[ModelView, ...]:
    """The seed's and the experts' parameters in scope ("mlp", "all" or a regular expression), seed first.

    Raises SelfdevError when names or shapes do not line up or nothing is in scope.
    """
    try:
        pattern = re.compile(SCOPES.get(scope, scope))
    except re.error as error:
        raise SelfdevError(
            f"scope {scope!r} is no regular expression ({error}); use mlp, all or a valid one"
        ) from None
    wanted = _in_scope(seed, pattern)
    if not wanted:
        example = next(iter(seed.slots), "none")
        raise SelfdevError(
            f"scope {scope!r} matches none of the seed's {len(seed.slots)} tensors ({example}, ...); widen it"
        )
    names = sorted(wanted, key=_natural)
    for expert in experts:
        _line_up(seed.name, wanted, expert.name, _in_scope(expert, pattern))
    return tuple(ModelView(m.name, tuple(m.slots[n] for n in names), dtype) for m in (seed, *experts))


def _in_scope(model: Checkpoint, pattern: re.Pattern[str]) -> dict[str, TensorSlot]:
    tied = bool(model.config.get("tie_word_embeddings"))
    found = {n: s for n, s in model.slots.items() if pattern.search(n) and not (tied and n == TIED)}
    for slot in found.values():
        if slot.dtype not in FLOATS and slot.dtype not in BUFFERS:
            raise SelfdevError(
                f"{model.name}: {slot.name} is {slot.dtype}; only {', '.join(FLOATS)} merge, convert it first"
            )
    return {n: s for n, s in found.items() if s.dtype in FLOATS}


def _line_up(
    seed: str, wanted: Mapping[str, TensorSlot], expert: str, given: Mapping[str, TensorSlot]
) -> None:
    for name in sorted(wanted.keys() ^ given.keys(), key=_natural):
        lacking, holding = (expert, seed) if name in wanted else (seed, expert)
        raise SelfdevError(
            f"{lacking} lacks {name}, which {holding} has; all models must be of one architecture and size"
        )
    for name, slot in wanted.items():
        if given[name].shape != slot.shape:
            raise SelfdevError(
                f"{name} has shape {list(given[name].shape)} in {expert} and {list(slot.shape)} in {seed};"
                " all models must be of one architecture and size"
            )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def tensor(slot: TensorSlot) -> torch.Tensor:
    """The tensor of a slot as stored: a private mapping of its file, so that writes reach nobody."""
    import torch

    dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[slot.dtype]
    if not slot.nbytes:
        return torch.empty(slot.shape, dtype=dtype)
    skip = slot.offset % mmap.ALLOCATIONGRANULARITY
    with slot.file.open("rb") as stream:
        mapped = mmap.mmap(
            stream.fileno(), slot.nbytes + skip, access=mmap.ACCESS_COPY, offset=slot.offset - skip
        )
    return torch.frombuffer(mapped, dtype=dtype, offset=skip).view(slot.shape)


def check_finite(models: Iterable[ModelView]) -> None:
    """Read every parameter in the views; SelfdevError names the first with NaN or infinite values."""
    for model in models:
        for slot in model.slots:
            if not bool(tensor(slot).isfinite().all()):
                raise SelfdevError(
                    f"{model.name}: {slot.name} has NaN or infinite values; give an intact checkpoint"
                )


def check_free(out: Path) -> None:
    """SelfdevError when a checkpoint cannot appear at `out` because something is there."""
    if out.is_dir() and any(out.iterdir()):
        raise SelfdevError(f"{out} is not empty; choose another folder or empty it")
    if out.exists() and not out.is_dir():
        raise SelfdevError(f"{out} is a file; choose a folder for the checkpoint")


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
    for name, value in merged.items():
        if name not in seed.slots or tuple(value.shape) != seed.slots[name].shape:
            raise ValueError(f"{name} of shape {list(value.shape)} has no place in {seed.path}")
    with _appearing(out) as folder:
        for pattern in BESIDE:
            for file in seed.path.glob(pattern):
                shutil.copyfile(file, folder / file.name)
        # Same names, shapes and dtypes mean the same layout: the merged values go where the seed's were.
        for file in sorted({slot.file for slot in seed.slots.values()}):
            shutil.copyfile(file, folder / file.name)
        _patch(folder, seed, merged)
        for name, text in (("README.md", card), ("program.py", program)):
            if text is not None:
                (folder / name).write_text(text, encoding="utf-8")


def _patch(folder: Path, seed: Checkpoint, merged: Mapping[str, torch.Tensor]) -> None:
    import torch

    places = [(seed.slots[name], value) for name, value in merged.items()]
    if seed.config.get("tie_word_embeddings") and TIED in seed.slots:
        embedding = [v for s, v in places if s.name.endswith("embed_tokens.weight")]
        places += [(seed.slots[TIED], value) for value in embedding]
    for slot, value in places:
        stored = value.detach().to("cpu", tensor(slot).dtype).contiguous()
        with (folder / slot.file.name).open("r+b") as stream:
            stream.seek(slot.offset)
            stream.write(stored.reshape(-1).view(torch.uint8).numpy().data)


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A hidden sibling of `out` to write in, renamed to `out` at the end and removed on any failure."""
    check_free(out)
    partial = out.absolute().parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(out)
    except OSError as error:
        raise SelfdevError(
            f"{out} could not be written ({error.strerror}); check space and permissions or choose another"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
