"""The shared memory for merged tensors, and the checks of what a child left in it."""

from __future__ import annotations

import errno
import mmap
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfdev.checkpoints.slots import finite
from selfdev.records import Outcome, State
from selfdev.sandbox import layout
from selfdev.store.hashes import merged_digest

if TYPE_CHECKING:
    from torch import Tensor

    from selfdev.checkpoints import ModelView, TensorSlot


@dataclass(frozen=True)
class Run:
    """How a program ended, and its merged weights when it ended in MERGED.

    `tensors` are views on shared memory in the seed's stored dtypes, valid until the next run on the same
    set. `entered` is the time in seconds from the call of `run` until the program's function was called.
    """

    outcome: Outcome
    tensors: dict[str, Tensor] | None
    entered: float | None = None


class Result:
    """The shared memory for the merged tensors of one set, and the checks of what is found in it."""

    def __init__(self, views: Sequence[ModelView]) -> None:
        self._views = views
        self.places = layout.places(views[0].slots)
        self._bytes = layout.whole_pages(layout.size(self.places))
        self.handle = layout.shared_memory(self._bytes)
        self._area = mmap.mmap(self.handle, self._bytes)
        self._used = False

    def describe(self) -> list[list[Any]]:
        """The places as JSON."""
        return [[p.name, p.dtype, list(p.shape), p.offset, p.nbytes] for p in self.places]

    def clear(self) -> None:
        """Nothing of an earlier program may be found here by the next. The memory stays: to ask for it anew
        takes longer than to fill it with zeros."""
        if self._used and self._is_written():
            import torch

            torch.frombuffer(self._area, dtype=torch.uint8).zero_()
        self._used = True

    def _is_written(self) -> bool:
        """Whether anybody has ever written here, as the system knows, or may have."""
        if sys.platform != "linux":
            return True
        try:
            return os.lseek(self.handle, 0, os.SEEK_DATA) >= 0
        except OSError as error:
            return error.errno != errno.ENXIO  # which says that there is none

    def give_back(self) -> None:
        """Clear, and let others have the memory until the next result."""
        if self._used and sys.platform == "linux":
            self._area.madvise(mmap.MADV_REMOVE)
            self._used = False

    def checked(self, wall: float, tail: str, entered: float | None, named: bool = True) -> Run:
        """The tensors as an outcome: BAD_WEIGHTS unless every number is finite. Without `named` neither
        their hash nor the model they are a copy of is looked for."""
        tensors = {p.name: layout.tensor(self._area, p.dtype, p.shape, p.offset) for p in self.places}
        bad, digest, view = [], merged_digest(), memoryview(self._area)
        for place in self.places:
            if not finite(tensors[place.name]):
                bad.append(place.name)
            elif named and not bad:  # while the processor has it at hand
                digest.update(view[place.offset : place.offset + place.nbytes])
        if bad:
            reason = f"{len(bad)} of {len(tensors)} parameters hold NaN or infinity, the first is {bad[0]!r}"
            return Run(Outcome(State.BAD_WEIGHTS, reason[:300], wall, tail), None, entered)
        if not named:
            return Run(Outcome(State.MERGED, "", wall, tail), tensors, entered)
        outcome = Outcome(State.MERGED, "", wall, tail, self._copy_of(tensors), digest.hexdigest())
        return Run(outcome, tensors, entered)

    def _copy_of(self, tensors: Mapping[str, Tensor]) -> str | None:
        """The model this result equals in every bit that the seed's dtype can hold."""
        import torch

        for view in self._views:
            files: dict[str, mmap.mmap] = {}
            stored = (_stored(slot, files) for slot in view.slots)
            if all(torch.equal(s.to(t.dtype), t) for s, t in zip(stored, tensors.values(), strict=True)):
                return view.name
        return None

    def close(self) -> None:
        """Give the descriptor back; the memory lives as long as the last tensor on it."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def _stored(slot: TensorSlot, files: dict[str, mmap.mmap]) -> Tensor:
    path = str(slot.file)
    if path not in files:
        with slot.file.open("rb") as file:
            files[path] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return layout.tensor(files[path], slot.dtype, slot.shape, slot.offset)
