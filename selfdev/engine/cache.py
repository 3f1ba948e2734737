"""Keys and values of tokens seen so far, with room to grow: transformers copies all at every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

ROOM = 16  # empty columns that are laid out ahead


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's `keys` and `values`, [rows, heads, columns, d], as views of larger buffers."""

    keys: Tensor
    values: Tensor
    room: tuple[Tensor, ...]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make it empty, in the dtype and on the device of these."""
        super().lazy_initialization(key_states, value_states)
        self.room = (self.keys, self.values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add columns; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        if self.room[0].ndim != 4 or self.room[0].shape[2] < after:
            self.room = _roomy(self.keys, key_states, after), _roomy(self.values, value_states, after)
        for buffer, states in zip(self.room, (key_states, value_states), strict=True):
            buffer[:, :, before:after] = states
        self.keys, self.values = (buffer[:, :, :after] for buffer in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self.lay([buffer[indices] for buffer in self.room], self.get_seq_length())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self.lay([buffer.repeat_interleave(repeats, dim=0) for buffer in self.room], self.get_seq_length())

    def lay(self, buffers: Sequence[Tensor], columns: int) -> None:
        """Use these buffers, of which so many columns are filled."""
        self.room = tuple(buffers)
        self.keys, self.values = (buffer[:, :, :columns] for buffer in buffers)


def new_cache(model: Any) -> Cache | None:
    """An empty cache for a model all of whose layers keep every token; None for any other."""
    layers = DynamicCache(config=model.config).layers
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    return Cache(layers=[RoomyLayer() for _ in layers])


def joined(caches: Sequence[Cache], width: int) -> Cache:
    """Rows of several roomy caches as one, with empty columns in front, `width` in all."""
    both = Cache(layers=[])
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        layer = RoomyLayer()
        layer.lazy_initialization(layers[0].keys, layers[0].values)
        keys, values = [one.keys for one in layers], [one.values for one in layers]
        layer.lay([_stacked(keys, width), _stacked(values, width)], width)
        both.layers.append(layer)
    return both


def repeated(cache: Cache, rows: int) -> Cache:
    """The cache of one row for so many rows, with room behind; the given one stays as it is."""
    many = Cache(layers=[])
    for one in cache.layers:
        layer = RoomyLayer()
        layer.lazy_initialization(one.keys, one.values)
        width = one.get_seq_length()
        layer.lay([_roomy(s.expand(rows, -1, -1, -1), s, width) for s in (one.keys, one.values)], width)
        many.layers.append(layer)
    return many


def _roomy(old: Tensor, new: Tensor, columns: int) -> Tensor:
    """A buffer with the old columns and room for `columns` and more."""
    rows = len(old) if old.ndim == 4 else len(new)
    buffer = new.new_empty(rows, new.shape[1], columns + ROOM, new.shape[3])
    if old.ndim == 4:
        buffer[:, :, : old.shape[2]] = old
    return buffer


def _stacked(states: Sequence[Tensor], width: int) -> Tensor:
    """Keys or values of several caches below each other, ending in the same column, and room behind."""
    rows, first = sum(len(one) for one in states), states[0]
    buffer = first.new_empty(rows, first.shape[1], width + ROOM, first.shape[3])
    start = 0
    for one in states:
        buffer[start : start + len(one), :, : width - one.shape[2]] = 0
        buffer[start : start + len(one), :, width - one.shape[2] : width] = one
        start += len(one)
    return buffer
