"""The living models of a worker: one that answers questions and one that writes programs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfdev.workers.devices import Device, resolve

if TYPE_CHECKING:
    from selfdev.engine.engine import Engine


class Living:
    """Made when first wanted. On a GPU there is one at a time: two models of 7 billion parameters, the values
    to go back to and the cache of many rows have no room in 80 GB.

    On a CPU both compute in float32, on a GPU in what is stored: float32 would take twice the room. vLLM's
    memory comes back with its process.

    `seed` answers, by `engine`; `factory` is a model with the factories' architecture and tokenizer.
    """

    def __init__(
        self, seed: Path, factory: Path, device: Device, engine: Literal["transformers", "vllm"]
    ) -> None:
        self._seed, self._factory, self._kind = seed, factory, engine
        self._device = resolve(device)
        self._engine: Any = None
        self._writer: Engine | None = None

    @property
    def engine(self) -> Any:
        """Answers questions (`Answering`, and `Engine` unless it is vLLM's)."""
        if self._engine is None:
            self._make_room()
            self._engine = self._made()
        return self._engine

    @property
    def writer(self) -> Engine:
        """Writes programs once it has a factory's weights."""
        if self._writer is None:
            from selfdev.engine.engine import Engine

            self._make_room()
            self._writer = Engine(self._factory, self._device)
        return self._writer

    def _made(self) -> Any:
        if self._kind == "vllm":
            from selfdev.engine.vllm import VllmEngine

            return VllmEngine(self._seed)
        from selfdev.engine.engine import Engine

        return Engine(self._seed, self._device)

    def _make_room(self) -> None:
        if self._device == "cpu":
            return
        import torch

        self._engine = self._writer = None
        gc.collect()
        torch.cuda.empty_cache()
