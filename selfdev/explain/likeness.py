"""What a change of the probes is like: human-designed methods, and weighted sums of task vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from selfdev.checkpoints import ModelView, tensor
from selfdev.explain.explanation import Distance, ProbeDistance, WeightedSum
from selfdev.explain.variants import layer_groups, layer_of
from selfdev.fingerprint import nearest

if TYPE_CHECKING:
    import numpy as np

EVERYWHERE = "all"
EXACT = 6  # decimals of a distance and of a weight


def distances(change: np.ndarray, known: Mapping[str, np.ndarray]) -> tuple[Distance, ...]:
    """Each method by its nearest parameters, nearest first, of equals the first that is known; none where
    the program changes nothing."""
    best: dict[str, Distance] = {}
    for name, other in known.items():
        found = nearest(change, {name: other})
        if found is None:
            continue
        distance = round(found.distance, EXACT)  # what is below is rounding
        method = name.split()[0]
        if method not in best or distance < best[method].distance:
            best[method] = Distance(name, distance, float(change @ other) / float(other @ other))
    return tuple(sorted(best.values(), key=lambda one: one.distance))


def per_probe(
    probes: Sequence[ModelView], change: np.ndarray, known: Mapping[str, np.ndarray]
) -> tuple[ProbeDistance, ...]:
    """The nearest method for each parameter that is changed, and how far the one nearest on the whole is."""
    whole = next(iter(distances(change, known)), None)
    if whole is None:
        return ()
    found = []
    for name, part in _places(probes):
        parts = {method: other[part] for method, other in known.items()}
        near = next(iter(distances(change[part], parts)), None)
        same = next(iter(distances(change[part], {whole.method: parts[whole.method]})), None)
        if near is not None:
            found.append(ProbeDistance(name, near.method, near.distance, same.distance if same else 1.0))
    return tuple(found)


def weighted_sums(probes: Sequence[ModelView], change: np.ndarray) -> tuple[WeightedSum, ...]:
    """The nearest weighted sum of task vectors (least squares), everywhere and in each group of layers."""
    import numpy as np

    vectors = np.stack([_flat(view) - _flat(probes[0]) for view in probes[1:]], axis=1)
    groups = layer_groups([slot.name for slot in probes[0].slots])
    where = {EVERYWHERE: slice(None)} | {
        name: np.concatenate([np.arange(p.start, p.stop) for n, p in _places(probes) if layer_of(n) in held])
        for name, held in groups.items()
    }
    found = []
    for name, place in where.items():
        target, basis = change[place], vectors[place]
        weights = np.linalg.lstsq(basis, target, rcond=None)[0]
        size = float(np.linalg.norm(target))
        rest = float(np.linalg.norm(target - basis @ weights)) / size if size else 0.0
        named = {view.name: round(float(w), EXACT) + 0.0 for view, w in zip(probes[1:], weights, strict=True)}
        found.append(WeightedSum(name, named, rest))
    return tuple(found)


def _flat(view: ModelView) -> np.ndarray:
    import numpy as np

    return np.concatenate([tensor(slot).double().flatten().numpy() for slot in view.slots])


def _places(probes: Sequence[ModelView]) -> Iterator[tuple[str, slice]]:
    """Each parameter with where it lies in a change."""
    start = 0
    for slot in probes[0].slots:
        size = 1
        for side in slot.shape:
            size *= side
        yield slot.name, slice(start, start + size)
        start += size
