"""Where tensors lie and what they stand for: plain ones are mapped, others computed when asked for."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FLOATS = {"BF16": 2, "F16": 2, "F32": 4}  # what a program may see, and bytes per value
BUFFERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
TIED = "lm_head.weight"  # a second copy of the embedding where config.json ties them


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """Where one tensor lies: `dtype` is the safetensors name (BF16, F16, F32, ...), `offset` counts bytes
    from the start of `file`. With a `change` it is what that makes of the stored values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    change: LowRank | Rows | None = None


@dataclass(frozen=True, slots=True)
class LowRank:
    """A LoRA adapter on a stored tensor: stored + scale * b @ a (Hu et al., 2021, arXiv 2106.09685, section
    4.1). `a` is [rank, in], `b` [out, rank]; `transposed` where the stored tensor is [in, out]."""

    a: TensorSlot
    b: TensorSlot
    scale: float
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """An embedding in the seed's order of tokens: each run (from, to, count) of rows comes from `own`, all
    others are the seed's."""

    own: TensorSlot
    seed: TensorSlot
    runs: tuple[tuple[int, int, int], ...]


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


def tensor(slot: TensorSlot) -> torch.Tensor:
    """The tensor of a slot: a private mapping of its file or values of its own; writes reach nobody."""
    match slot.change:
        case LowRank() as change:
            return _with_adapter(tensor(replace(slot, change=None)), change)
        case Rows() as change:
            return _in_order(change)
    return _mapped(slot)


def finite(value: torch.Tensor) -> bool:
    """Whether every number is finite; the extremes pass on NaN and infinity without a copy being made."""
    if value.numel() == 0:
        return True
    low, high = value.aminmax()
    return bool(low.isfinite()) and bool(high.isfinite())


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a safetensors name in FLOATS."""
    import torch

    return {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[name]


def _mapped(slot: TensorSlot) -> torch.Tensor:
    import torch

    dtype = torch_dtype(slot.dtype)
    if not slot.nbytes:
        return torch.empty(slot.shape, dtype=dtype)
    skip = slot.offset % mmap.ALLOCATIONGRANULARITY
    with slot.file.open("rb") as stream:
        mapped = mmap.mmap(
            stream.fileno(), slot.nbytes + skip, access=mmap.ACCESS_COPY, offset=slot.offset - skip
        )
    return torch.frombuffer(mapped, dtype=dtype, offset=skip).view(slot.shape)


def _with_adapter(stored: torch.Tensor, change: LowRank) -> torch.Tensor:
    """Computed in float32 and rounded once, to the stored dtype."""
    delta = tensor(change.b).float() @ tensor(change.a).float()
    delta = delta.T if change.transposed else delta
    return delta.mul(change.scale).add(stored.float()).to(stored.dtype)


def _in_order(rows: Rows) -> torch.Tensor:
    own = tensor(rows.own)
    value = tensor(rows.seed).to(own.dtype, copy=True)
    for begin, to, count in rows.runs:
        value[to : to + count] = own[begin : begin + count]
    return value
