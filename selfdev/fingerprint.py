"""What a program does, seen on small fixed probe tensors: the same behaviour is the same program.

The probes carry the names of the real parameters and tiny fixed random values, so that a program which
treats layers or modules differently is seen to do so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfdev.checkpoints import ModelView, TensorSlot, tensor

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SIDE = 8  # longest side of a probe tensor
DIGITS = 4  # significant digits of the change that count; float32 sums in another order agree in these
_SEED = 2410


@dataclass(frozen=True, slots=True)
class Nearest:
    """The known method whose change of the probes has the closest direction. `distance` is the sine of the
    angle between both changes: 0 means equal up to a factor, 1 means nothing in common."""

    name: str
    distance: float


def make_probes(views: Sequence[ModelView], folder: Path) -> tuple[ModelView, ...]:
    """Probe models with the names of `views`, as float32 values in one raw file in `folder`."""
    import numpy as np

    file = folder / "probes.f32"
    rng = np.random.default_rng(_SEED)
    blocks: list[np.ndarray] = []
    probes = []
    offset = 0
    base: dict[str, np.ndarray] = {}
    for number, view in enumerate(views):
        slots = []
        for slot in view.slots:
            shape = tuple(min(SIDE - place, side) for place, side in enumerate(slot.shape))
            values = rng.normal(0.0, 0.02 if number else 0.1, shape).astype(np.float32)
            if number == 0:
                base[slot.name] = values
            else:
                # Experts differ in size and sparsity, as fine-tuned models do.
                values = base[slot.name] + values * (rng.random(shape) < 0.8) * (0.5 + 0.5 * number)
                values = values.astype(np.float32)
            blocks.append(values.reshape(-1))
            slots.append(TensorSlot(slot.name, "F32", shape, file, offset, values.nbytes))
            offset += values.nbytes
        probes.append(ModelView(view.name, tuple(slots), None))
    np.concatenate(blocks).tofile(file)
    return tuple(probes)


def change(probes: Sequence[ModelView], merged: Mapping[str, Tensor]) -> np.ndarray:
    """What a program added to the seed's probes, as one float64 vector in parameter order."""
    import numpy as np

    return np.concatenate(
        [(merged[slot.name].double() - tensor(slot).double()).flatten().numpy() for slot in probes[0].slots]
    )


def fingerprint(change: np.ndarray) -> str:
    """Hash of a change, rounded relative to its largest value; programs that behave alike share it."""
    import numpy as np

    largest = float(np.abs(change).max(initial=0.0))
    exponent = f"{largest:.{DIGITS - 1}e}" if largest > 0 else "0"
    units = (
        np.rint(change / largest * 10**DIGITS).astype(np.int32) if largest > 0 else change.astype(np.int32)
    )
    return hashlib.blake2b(exponent.encode() + units.tobytes(), digest_size=12).hexdigest()


def nearest(change: np.ndarray, known: Mapping[str, np.ndarray]) -> Nearest | None:
    """The known method nearest to a change; None when either does nothing."""
    import numpy as np

    best: Nearest | None = None
    size = float(np.linalg.norm(change))
    for name, other in known.items():
        other_size = float(np.linalg.norm(other))
        if size == 0 or other_size == 0:
            continue
        cosine = float(change @ other) / (size * other_size)
        distance = float(np.sqrt(max(0.0, 1.0 - min(1.0, abs(cosine)) ** 2)))
        if best is None or distance < best.distance:
            best = Nearest(name, distance)
    return best
