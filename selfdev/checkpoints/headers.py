"""Headers of safetensors files and the JSON beside them, checked before any weight is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfdev.checkpoints.slots import BUFFERS, FLOATS, TensorSlot
from selfdev.errors import SelfdevError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_json(file: Path, name: str) -> dict[str, Any]:
    """A JSON object; SelfdevError names the model and the file."""
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise SelfdevError(f"{name}: {file} is missing; a checkpoint needs it") from None
    except OSError as error:
        raise SelfdevError(
            f"{name}: {file} cannot be read ({error.strerror}); check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SelfdevError(f"{name}: {file} is not valid JSON; fetch the checkpoint again") from error
    if not isinstance(value, dict):
        raise SelfdevError(f"{name}: {file} must hold a JSON object; fetch the checkpoint again")
    return value


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a config.json: its text_config where it has one, as images' models do."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def weight_files(folder: Path, name: str) -> list[tuple[Path, frozenset[str] | None]]:
    """The weight files, each with the tensors the index says it holds (None: no index)."""
    if (folder / SINGLE).exists():
        return [(folder / SINGLE, None)]
    if not (folder / INDEX).exists():
        raise SelfdevError(f"{name}: {folder} {_why_no_weights(folder)}")
    placed = read_json(folder / INDEX, name).get("weight_map")
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
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        return (
            "holds pickled weights, which are not read because unpickling can run code; load it once where"
            " you trust it with AutoModelForCausalLM.from_pretrained and write it with save_pretrained"
        )
    return f"holds neither {SINGLE} nor {INDEX}; give the folder of a safetensors checkpoint"


def read_slots(file: Path, name: str, held: frozenset[str] | None) -> list[TensorSlot]:
    """The tensors of one file, checked against its length and the index."""
    try:
        found = list(_read_header(file))
    except OSError as error:
        raise SelfdevError(
            f"{name}: {file} cannot be read ({error.strerror}); check its permissions"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
