"""The shared memory between parent and child: laid out by the parent, plain bytes, no Python objects.

Two areas. `status` holds the program's text on its way in and what the child has to say on its way out.
`result` holds the merged tensors, one after another in the seed's stored dtypes.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from selfdev.checkpoints import TensorSlot

_ALIGNMENT = 64
_TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


class Verdict(IntEnum):
    """How the child says it ended; the parent checks what can be checked."""

    NOTHING = 0
    MERGED = 1
    EXCEPTION = 2
    MEMORY = 3
    BAD_WEIGHTS = 4
    DENIED = 5


@dataclass(frozen=True)
class Place:
    """Where one merged tensor lies in the result area."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def places(slots: Sequence[TensorSlot]) -> tuple[Place, ...]:
    """The result area for these tensors, each aligned."""
    return arrange((slot.name, slot.dtype, tuple(slot.shape), slot.nbytes) for slot in slots)


def arrange(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> tuple[Place, ...]:
    """Places one after another for (name, dtype, shape, bytes), each aligned."""
    found, offset = [], 0
    for name, dtype, shape, nbytes in tensors:
        found.append(Place(name, dtype, shape, offset, nbytes))
        offset += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
    return tuple(found)


def size(of: Sequence[Place]) -> int:
    """Bytes of the result area."""
    return max((-(-p.nbytes // _ALIGNMENT) * _ALIGNMENT + p.offset for p in of), default=0) or _ALIGNMENT


def whole_pages(nbytes: int) -> int:
    """Bytes of the pages that so many take. Memory is shared by the page and must be cleared by it, or what
    a program writes behind the end outlives it."""
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a safetensors name."""
    import torch

    dtype = getattr(torch, _TORCH_NAMES[name])
    assert isinstance(dtype, torch.dtype)
    return dtype


def tensor(area: mmap.mmap, dtype: str, shape: Sequence[int], offset: int) -> torch.Tensor:
    """A tensor on mapped memory."""
    import torch

    count = 1
    for length in shape:
        count *= length
    if count == 0:
        return torch.empty(tuple(shape), dtype=torch_dtype(dtype))
    flat = torch.frombuffer(area, dtype=torch_dtype(dtype), count=count, offset=offset)
    return flat.view(tuple(shape))


def shared_memory(nbytes: int) -> int:
    """A descriptor of anonymous memory that processes can share."""
    if sys.platform == "linux":
        handle = os.memfd_create("selfdev", os.MFD_CLOEXEC)
    else:
        handle, path = tempfile.mkstemp(prefix="selfdev-")
        os.unlink(path)  # noqa: PTH108
    os.ftruncate(handle, nbytes)
    return handle


_HEAD = struct.Struct("=QIIIIQ")  # entered (ns), verdict, reason bytes, forbidden bytes, code bytes, seed
_REASON_AT, _FORBIDDEN_AT, _CODE_AT = 64, 2048, 4096
_TEXT_BYTES = 1800
MAX_CODE_BYTES = 256_000
STATUS_BYTES = whole_pages(_CODE_AT + MAX_CODE_BYTES)


@dataclass(frozen=True)
class Report:
    """What the child wrote: `entered` is the monotonic clock in ns when the function was called (or 0)."""

    entered: int
    verdict: Verdict
    reason: str
    forbidden: str


class Status:
    """The status area, seen from either side."""

    def __init__(self, handle: int) -> None:
        self._area = mmap.mmap(handle, STATUS_BYTES)

    def put_job(self, code: str, seed: int) -> None:
        """Parent: clear everything and leave a program."""
        raw = code.encode("utf-8", "surrogatepass")
        self._area[:] = bytes(STATUS_BYTES)
        self._area[: _HEAD.size] = _HEAD.pack(0, 0, 0, 0, len(raw), seed % 2**63)
        self._area[_CODE_AT : _CODE_AT + len(raw)] = raw

    def take_job(self) -> tuple[str, int]:
        """Child: the program and its seed."""
        *_, length, seed = _HEAD.unpack_from(self._area)
        raw = self._area[_CODE_AT : _CODE_AT + length]
        return raw.decode("utf-8", "surrogatepass"), seed

    def enter(self, now: int) -> None:
        """Child: the program's function is called now."""
        struct.pack_into("=Q", self._area, 0, now)

    def conclude(self, verdict: Verdict, reason: str = "") -> None:
        """Child: how it ended."""
        struct.pack_into("=II", self._area, 8, verdict, self._text(_REASON_AT, reason))

    def forbid(self, what: str) -> None:
        """Child: the first forbidden thing tried."""
        if struct.unpack_from("=I", self._area, 16) == (0,):
            struct.pack_into("=I", self._area, 16, self._text(_FORBIDDEN_AT, what))

    def report(self) -> Report:
        """Parent: everything the child wrote, bounded and made printable; the child may have forged it."""
        entered, verdict, reason, forbidden, _, _ = _HEAD.unpack_from(self._area)
        known = Verdict(verdict) if verdict in set(Verdict) else Verdict.NOTHING
        return Report(entered, known, self._read(_REASON_AT, reason), self._read(_FORBIDDEN_AT, forbidden))

    def close(self) -> None:
        """Give the memory back."""
        self._area.close()

    def _text(self, at: int, text: str) -> int:
        raw = text.encode("utf-8", "replace")[:_TEXT_BYTES]
        self._area[at : at + len(raw)] = raw
        return len(raw)

    def _read(self, at: int, length: int) -> str:
        raw = self._area[at : at + min(length, _TEXT_BYTES)]
        return printable(raw.decode("utf-8", "replace"))


def printable(text: str) -> str:
    """One line without control characters, so that a program cannot draw on a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
