"""Answers on their way, in batches that are put together to be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from selfdev.engine.cache import RoomyLayer, joined
from selfdev.engine.steps import FixedCache


@dataclass(slots=True)
class Rows:
    """`places` in the question list, tokens so far, mask [rows, columns], and keys and values."""

    places: tuple[int, ...]
    results: list[list[int]]
    mask: Tensor
    cache: Any


def together(parts: Sequence[Rows]) -> list[Rows]:
    """Rows of several batches as one, padded on the left; those of a model that forgets tokens stay apart."""
    parts = [part for part in parts if part.places]
    if len(parts) < 2:
        return list(parts)
    caches = [part.cache for part in parts]
    fixed = isinstance(caches[0], FixedCache)
    if not fixed and any(not isinstance(cache.layers[0], RoomyLayer) for cache in caches):
        return list(parts)
    width = max(part.mask.shape[1] for part in parts)
    mask = torch.cat([pad(part.mask, (width - part.mask.shape[1], 0)) for part in parts])
    places = tuple(place for part in parts for place in part.places)
    results = [row for part in parts for row in part.results]
    return [Rows(places, results, mask, FixedCache.together(caches) if fixed else joined(caches, width))]
