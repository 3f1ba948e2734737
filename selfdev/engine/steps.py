"""Steps of one token per row in buffers that stay where they are, on a GPU as CUDA graphs.

Python takes 0.8 ms per layer to start kernels that work for 0.3 (benchmarks/SCALING.md). A graph starts all
kernels of a step at once and stays valid while weights are swapped in place: each is captured once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

COLUMNS = 256  # a graph reads a multiple of so many columns,
ROWS = 16  # and computes at least so many rows


class FixedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, [rows, heads, columns, d]; a step fills one column of each row."""

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self._place = keys, values, place[:, :, None, None]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Fill the columns; returns all keys and values, also those of empty columns."""
        self.keys.scatter_(2, self._place.expand_as(key_states), key_states)
        self.values.scatter_(2, self._place.expand_as(value_states), value_states)
        return self.keys, self.values


class FixedCache:
    """Rows that lie in the buffers of `Steps`, at `at` and up to column `ends` (both [rows, 1]), the longest
    up to `longest`; each step adds a column, and computes the first `rows`, some of them for nothing."""

    def __init__(self, steps: Steps, at: Tensor, ends: Tensor, longest: int, rows: int) -> None:
        self.at, self.ends, self.longest, self.rows = at, ends, longest, rows
        self._steps = steps

    def step(self, ids: Tensor) -> Tensor:
        """Logits [rows, 1, vocabulary] after one more token of each row, `ids` [rows, 1]."""
        logits = self._steps.run(self.rows, self.longest, self.at, self.ends, ids)
        self.ends, self.longest = self.ends + 1, self.longest + 1
        return logits

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows; they move together where that halves the work."""
        self.at, self.ends = self.at[indices], self.ends[indices]
        rows = self._steps.part(len(indices))
        if rows < self.rows:
            self.at = self._steps.gather(self.at, self.longest)
            self.rows = rows

    @staticmethod
    def together(caches: Sequence[FixedCache]) -> FixedCache:
        """The rows of several that lie in the same buffers."""
        at, ends = torch.cat([each.at for each in caches]), torch.cat([each.ends for each in caches])
        longest, rows = max(each.longest for each in caches), max(each.rows for each in caches)
        return FixedCache(caches[0]._steps, at, ends, longest, rows)


class Steps:
    """Buffers and graphs of one model that attends by `attention.attend`."""

    def __init__(self, model: Any, cache_name: str) -> None:
        self.rows = self.total = 0  # in use, and the columns of each
        self._device: torch.device = model.device
        self._model, self._cache_name = model, cache_name
        self._captures = self._device.type == "cuda"
        self._pool: Any = None  # memory that all graphs share: each leaves its result outside
        self._runs: dict[tuple[int, int, int], Callable[[], object]] = {}
        self._shapes: list[tuple[int, int]] = []  # heads and d, of keys and of values, by turns
        self._flat: list[Tensor] = []
        new = partial(torch.zeros, device=self._device)
        self._mask = new(0, dtype=torch.bool)
        self._ids = new(0, 1, dtype=torch.int64)
        self._place = new(0, 1, dtype=torch.int64)
        self._logits = new(0, 1, model.config.get_text_config().vocab_size, dtype=model.dtype)

    def open(self, rows: int, columns: int) -> None:
        """Use so many rows and columns from now on; what lay there is lost."""
        self.rows, self.total = _up(rows, ROWS), _up(columns, COLUMNS)

    def part(self, rows: int) -> int:
        """Rows to compute for so many: all, or a half, a quarter and so on, that graphs are few."""
        part = self.rows
        while part // 2 >= max(rows, ROWS):
            part //= 2
        return part

    def lay(self, cache: Cache, mask: Tensor, start: int) -> FixedCache:
        """Copy as many rows as `mask` [rows, columns] has, or one row for all, to the rows from `start`: 0
        for the first after `open` or after others have ended."""
        states = [each for layer in cache.layers for each in (layer.keys, layer.values)]
        if start == 0:
            self._lay_out(states)
            # A broken model may have left values that are no numbers, which no mask takes away.
            for buffer in (*self._flat, self._mask, self._place):
                buffer.zero_()
        rows, columns = mask.shape
        for buffer, state in zip(self._views(self.rows), states, strict=True):
            buffer[start : start + rows, :, :columns] = state
        self._seen(self.rows)[start : start + rows, :columns] = mask
        at = torch.arange(start, start + rows, device=self._device)[:, None]
        return FixedCache(self, at, torch.full_like(at, columns), columns, self.part(start + rows))

    def run(self, rows: int, longest: int, at: Tensor, ends: Tensor, ids: Tensor) -> Tensor:
        """A step of the first `rows` rows, of which so many columns are filled at most; tokens, their columns
        and logits are those of the rows `at`."""
        at = at[:, 0]
        self._ids[at] = ids
        self._place[at] = ends
        key = (rows, min(_up(longest + 1, COLUMNS), self.total), self.total)
        if key not in self._runs:
            self._runs[key] = self._captured(partial(self._step, *key[:2]))
        self._runs[key]()
        return self._logits[at]

    def gather(self, at: Tensor, longest: int) -> Tensor:
        """Move the rows `at` to the front; where they are then."""
        for buffer in (*self._views(self.rows), self._seen(self.rows)[:, None]):
            buffer[: len(at), :, :longest] = buffer[:, :, :longest][at[:, 0]]
        return torch.arange(len(at), device=self._device)[:, None]

    def _step(self, rows: int, columns: int) -> None:
        place = self._place[:rows]
        buffers = [buffer[:, :, :columns] for buffer in self._views(rows)]
        pairs = zip(buffers[::2], buffers[1::2], strict=True)
        cache = Cache(layers=[FixedLayer(keys, values, place) for keys, values in pairs])
        seen = self._seen(rows)[:, :columns].scatter_(1, place, True)
        out = self._model(
            self._ids[:rows], attention_mask=seen[:, None, None], position_ids=seen.sum(1, keepdim=True) - 1,
            use_cache=True, logits_to_keep=1, **{self._cache_name: cache},
        )  # fmt: skip
        self._logits[:rows] = out.logits

    def _captured(self, step: Callable[[], None]) -> Callable[[], object]:
        """The step as a graph, or as it is where there are none."""
        if not self._captures:
            return step
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        graph = torch.cuda.CUDAGraph()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):  # libraries lay out their memory at the first calls; a step may be repeated
                step()
        torch.cuda.current_stream().wait_stream(aside)
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                step()
        except RuntimeError:  # this model looks at numbers on the GPU in its forward pass
            self._captures = False
            return step
        self._pool = graph.pool()
        return graph.replay

    def _lay_out(self, states: Sequence[Tensor]) -> None:
        """Make buffers of the size in use; larger ones stay, with their graphs."""
        if self.rows * self.total <= len(self._mask) and self.rows <= len(self._ids):
            return
        self._runs, self._pool, self._flat = {}, None, []
        cells, rows = max(self.rows * self.total, len(self._mask)), max(self.rows, len(self._ids))
        self._shapes = [(state.shape[1], state.shape[3]) for state in states]
        self._flat = [
            state.new_zeros(cells * prod(shape)) for state, shape in zip(states, self._shapes, strict=True)
        ]
        self._mask = self._mask.new_zeros(cells)
        self._ids, self._place = self._ids.new_zeros(rows, 1), self._place.new_zeros(rows, 1)
        self._logits = self._logits.new_zeros(rows, *self._logits.shape[1:])

    def _views(self, rows: int) -> list[Tensor]:
        """Keys and values of each layer by turns, [rows, heads, columns, d]."""
        return [
            flat[: rows * self.total * heads * size].view(rows, heads, self.total, size)
            for flat, (heads, size) in zip(self._flat, self._shapes, strict=True)
        ]

    def _seen(self, rows: int) -> Tensor:
        """Which columns are tokens, [rows, columns]."""
        return self._mask[: rows * self.total].view(rows, self.total)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
