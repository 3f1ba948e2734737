"""The same living model in vLLM: answers come from its scheduler, weights are still swapped in place.

Not yet run on a GPU: it is tested against a stand-in with the signatures of vLLM 0.31 (`LLM.apply_model`,
`LLM.generate`, `LLM.reset_prefix_cache`). Few-shot prompts share their prefix through vLLM's own cache.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfdev.checkpoints import open_checkpoint, tensor
from selfdev.engine.batches import Batch, open_tokenizer, padded
from selfdev.errors import SelfdevError

SHARE = 0.85  # of the GPU's memory: torch in this process needs some for the weights that come


class VllmEngine:
    """A causal language model in vLLM, in this process and on one GPU; `library` is the package vllm.

    Raises SelfdevError where that is not installed.
    """

    def __init__(self, path: Path | str, library: Any = None) -> None:
        # In this process: new weights are handed over as they are, not as messages.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        self._vllm = library or _installed()
        self.tokenizer: Any = open_tokenizer(path)
        self._llm: Any = self._vllm.LLM(
            model=str(path), tokenizer=str(path), dtype="auto", seed=0, enable_prefix_caching=True,
            gpu_memory_utilization=SHARE, disable_log_stats=True,
        )  # fmt: skip
        self.tokens = 0  # written so far
        self.drafts_pay = False  # it takes none
        self._stored = open_checkpoint(Path(path), "seed").slots
        self._swapped: frozenset[str] = frozenset()

    @property
    def room(self) -> int | None:
        """Most tokens of a prompt and its answer."""
        room: int = self._llm.model_config.max_model_len
        return room

    @property
    def names(self) -> frozenset[str]:
        """Names of the parameters that can be swapped."""
        return frozenset(self._stored)

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Put these weights into the model; parameters not named are the seed's again."""
        back = {name: tensor(self._stored[name]) for name in self._swapped - tensors.keys()}
        weights = list((back | dict(tensors)).items())
        if not weights:
            return

        def load(model: Any) -> None:
            model.load_weights(weights)  # knows which of vLLM's joined matrices each belongs to

        self._llm.apply_model(load)
        self._llm.reset_prefix_cache()  # keys and values of the weights before
        self._swapped = frozenset(tensors)

    def prepare(self, prompts: Sequence[str], drafts: Sequence[str | None], size: int) -> list[Batch]:  # noqa: ARG002
        """Prompts as one batch: vLLM makes its own. Drafts are left out."""
        rows = [tuple(ids) for ids in self.tokenizer(list(prompts), add_special_tokens=True).input_ids]
        return [padded(range(len(rows)), rows, ((),) * len(rows))] if rows else []

    def answer(
        self,
        batches: Sequence[Batch],
        limit: int,
        stops: Sequence[str] = (),
        done: Callable[[int], None] | None = None,
        rows: int = 1,  # noqa: ARG002
    ) -> list[str]:
        """Greedy continuations of at most `limit` tokens, cut at the first stop string, in question order."""
        asked = [
            (place, ids[mask.bool()].tolist())
            for batch in batches
            for place, ids, mask in zip(batch.places, batch.ids, batch.mask, strict=True)
        ]
        sampling = self._vllm.SamplingParams(temperature=0.0, max_tokens=limit, stop=list(stops) or None)
        prompts = [{"prompt_token_ids": ids} for _, ids in asked]
        replies = self._llm.generate(prompts, sampling, use_tqdm=False) if prompts else []
        written = [reply.outputs[0] for reply in replies]
        self.tokens += sum(len(one.token_ids) for one in written)
        if done is not None:
            done(len(asked))
        pairs = zip((place for place, _ in asked), written, strict=True)
        return [one.text for _, one in sorted(pairs, key=lambda pair: pair[0])]


def lacking() -> str | None:
    """What this engine lacks here; None where it can work."""
    if importlib.util.find_spec("vllm") is None:
        return (
            "engine is vllm and vLLM is not installed; pip install 'selfdev[vllm]', or set engine to"
            " transformers"
        )
    if not torch.cuda.is_available():
        return "engine is vllm and torch sees no GPU here; set engine to transformers"
    return None


def _installed() -> Any:
    if said := lacking():
        raise SelfdevError(f"{said}.")
    import vllm  # type: ignore[import-not-found, unused-ignore]

    return vllm
