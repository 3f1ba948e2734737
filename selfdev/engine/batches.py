"""Prompts made ready for a model, and what every engine can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from selfdev.errors import SelfdevError, one_line


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts of similar length, padded on the left: `places` are their positions in the question list,
    `ids` and `mask` are [rows, prompt length] int64, `drafts` one token list per row (empty: none), `prefix`
    tokens before all of them that `ids` leaves out."""

    places: tuple[int, ...]
    ids: Tensor
    mask: Tensor
    drafts: tuple[tuple[int, ...], ...]
    prefix: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the longest prompt."""
        return len(self.prefix) + self.ids.shape[1]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return replace(self, ids=self.ids.to(device), mask=self.mask.to(device))


class Answering(Protocol):
    """A living model whose weights can be swapped; `tokens` were written by it so far, and known solutions
    are worth giving as drafts where `drafts_pay`."""

    tokens: int
    drafts_pay: bool
    tokenizer: Any

    @property
    def room(self) -> int | None:
        """Most tokens of a prompt and its answer, where that is known."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the parameters that can be swapped."""

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Put these weights into the model; parameters not named are the seed's again."""

    def prepare(self, prompts: Sequence[str], drafts: Sequence[str | None], size: int) -> list[Batch]:
        """Prompts as batches."""

    def answer(
        self, batches: Sequence[Batch], limit: int, stops: Sequence[str] = (),
        done: Callable[[int], None] | None = None, rows: int = 1,
    ) -> list[str]:  # fmt: skip
        """Greedy continuations of at most `limit` tokens, cut at the first stop string, in question order."""


def padded(
    group: Sequence[int], rows: Sequence[tuple[int, ...]], guesses: Sequence[tuple[int, ...]], shared: int = 0
) -> Batch:
    """Those of the token rows that are in a group as one batch; its prefix is `shared` tokens long."""
    longest = max(len(rows[i]) for i in group) - shared
    pads = [longest + shared - len(rows[i]) for i in group]
    ids = torch.tensor([[0] * pad + list(rows[i][shared:]) for pad, i in zip(pads, group, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads])
    return Batch(tuple(group), ids, mask, tuple(guesses[i] for i in group), rows[group[0]][:shared])


def extent(batches: Sequence[Batch], limit: int, rows: int) -> tuple[int, int]:
    """Most rows that are decoded together, and most columns of a prompt, its draft and its answer."""
    sizes = [len(batch.places) for batch in batches]
    drafts = max((len(draft) for batch in batches for draft in batch.drafts), default=0)
    columns = max((batch.length for batch in batches), default=0) + min(drafts, limit) + limit
    return max([min(rows, sum(sizes)), *sizes]), columns


def shared_prefix(rows: Sequence[tuple[int, ...]]) -> int:
    """How many first tokens all rows have in common, at least one of each being left."""
    if not rows:
        return 0
    first, last = min(rows), max(rows)  # in the order of words, all others lie between these two
    same = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return max(0, min(next(same, len(first)), min(map(len, rows)) - 1))


def open_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a model; SelfdevError where it has none that can be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        said = one_line(str(error))[:120]
        raise SelfdevError(
            f"{path} has no tokenizer that transformers can read ({said}); copy the model's tokenizer files"
            " there."
        ) from error
