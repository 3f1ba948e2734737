"""A living model: weights are swapped in place, questions are answered greedily, programs are sampled.

Where a worked solution is known it serves as a draft: one forward pass checks all of its tokens, those the
model would have chosen itself are kept, and ordinary decoding goes on from the first difference (speculative
decoding with a fixed draft and exact acceptance, Leviathan et al. 2023, arXiv 2211.17192). In float32 a model
gives the same answers with and without drafts; in bfloat16 a tie may flip where passes differ in shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from selfdev import attention

# On CPU every new shape of a bfloat16 product costs a compiled kernel: a millisecond, and most of a megabyte
# that is kept. So rows that have ended stay until there are enough of them.
ROWS = 16
STOP_EVERY = 8  # tokens between two looks for stop strings, which are no longer than this


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts of similar length, padded on the left: `places` are their positions in the question list,
    `ids` and `mask` are [rows, prompt length] int64, `drafts` one token list per row (empty: none)."""

    places: tuple[int, ...]
    ids: Tensor
    mask: Tensor
    drafts: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Rows:
    """Answers on their way: `places` in the question list, tokens so far, mask [rows, columns], and keys and
    values."""

    places: tuple[int, ...]
    results: list[list[int]]
    mask: Tensor
    cache: Any


class Engine:
    """A causal language model and its tokenizer, loaded once; `dtype` "auto" computes in the stored dtype."""

    def __init__(self, path: Path | str, device: str = "cpu", dtype: str = "auto") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()

        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
        self.model.requires_grad_(False).eval().to(device)
        attention.use_for(self.model)
        self.device = torch.device(device)
        self.ends = _end_tokens(self.model, self.tokenizer)
        self._parameters = dict(self.model.named_parameters())
        self._seed: dict[str, Tensor] = {}  # the seed's own values of everything that was ever swapped

    @property
    def names(self) -> frozenset[str]:
        """Names of the parameters that can be swapped."""
        return frozenset(self._parameters)

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Put these weights into the model; parameters not named are the seed's again."""
        for name in self._seed.keys() - tensors.keys():
            self._parameters[name].copy_(self._seed[name])
        for name, tensor in tensors.items():
            self._seed.setdefault(name, self._parameters[name].detach().clone())
            self._parameters[name].copy_(tensor)

    def prepare(self, prompts: Sequence[str], drafts: Sequence[str | None], size: int) -> list[Batch]:
        """Prompts as padded batches of at most `size` rows, tokenised once and sorted by length."""
        rows = [tuple(ids) for ids in self.tokenizer(list(prompts), add_special_tokens=True).input_ids]
        guesses = [self._draft(draft) for draft in drafts]
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]) + len(guesses[i]), i))
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        return [self._batch(group, rows, guesses) for group in groups]

    @torch.inference_mode()
    def answer(
        self,
        batches: Sequence[Batch],
        limit: int,
        stops: Sequence[str] = (),
        done: Callable[[int], None] | None = None,
        rows: int = 1,
    ) -> list[str]:
        """Greedy continuations of at most `limit` tokens, cut at the first stop string, in question order.

        Rows that go on after their batch's first pass are collected, up to `rows`, and decoded together.
        """
        tokens: dict[int, list[int]] = {}
        waiting: list[_Rows] = []
        for batch in batches:
            first = self._first_pass(batch, limit)
            tokens |= zip(first.places, first.results, strict=True)
            going = self._going(first, limit, stops)
            if sum(len(part.places) for part in (*waiting, going)) > rows:
                self._decode(waiting, limit, stops)
                waiting = []
            waiting.append(going)
            if done is not None:
                done(len(batch.places))
        self._decode(waiting, limit, stops)
        return [
            _cut(self.tokenizer.decode(self._trim(ids[:limit]), skip_special_tokens=True), stops)
            for _, ids in sorted(tokens.items())
        ]

    @torch.inference_mode()
    def sample(self, prompt: str, temperature: float, uniforms: Tensor) -> list[str]:
        """Continuations of one prompt at a temperature: row i uses uniforms[i] ([rows, longest], in 0..1).

        The prompt is computed once; inverse-CDF sampling makes each row depend on its own numbers only.
        """
        rows, longest = uniforms.shape
        prefix = torch.tensor([self.tokenizer(prompt).input_ids], device=self.device)
        out = self.model(prefix, use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1].expand(rows, -1)
        cache.batch_repeat_interleave(rows)
        written: list[list[int]] = [[] for _ in range(rows)]
        alive = torch.arange(rows)
        for step in range(longest):
            cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
            draws = uniforms[alive, step, None].to(cumulative) * cumulative[:, -1:]
            tokens = torch.searchsorted(cumulative, draws, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]
            going = [i for i, token in enumerate(tokens.tolist()) if token not in self.ends]
            for i in going:
                written[int(alive[i])].append(int(tokens[i]))
            if not going:
                break
            if len(going) < len(alive):
                keep = torch.tensor(going)
                alive, tokens = alive[keep], tokens[keep.to(tokens.device)]
                cache.batch_select_indices(keep.to(self.device))
            out = self.model(tokens[:, None], past_key_values=cache, use_cache=True)
            logits = out.logits[:, -1]
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]

    def _draft(self, text: str | None) -> tuple[int, ...]:
        if text is None:
            return ()
        ids = self.tokenizer(" " + text, add_special_tokens=False).input_ids
        return (*ids, min(self.ends))

    def _batch(
        self, group: Sequence[int], rows: Sequence[tuple[int, ...]], guesses: Sequence[tuple[int, ...]]
    ) -> Batch:
        longest = max(len(rows[i]) for i in group)
        pads = [longest - len(rows[i]) for i in group]
        ids = torch.tensor([[0] * pad + list(rows[i]) for pad, i in zip(pads, group, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads])
        drafts = tuple(guesses[i] for i in group)
        return Batch(tuple(group), ids.to(self.device), mask.to(self.device), drafts)

    def _first_pass(self, batch: Batch, limit: int) -> _Rows:
        """Prompts and drafts in one pass: of each row the accepted part of its draft and one token more."""
        width = max(1, min(limit, max(map(len, batch.drafts))))
        draft = self._padded(batch.drafts, width)
        ids = torch.cat([batch.ids, draft[:, :-1].clamp(min=0)], 1)
        mask = torch.cat([batch.mask, batch.mask.new_ones(len(ids), width - 1)], 1)
        logits, cache = self._forward(ids, mask, None, width)
        guess = logits.argmax(-1)
        agreed = (draft == guess).long().cumprod(1).sum(1)
        results = [row[: n + 1] for row, n in zip(guess.tolist(), agreed.tolist(), strict=True)]
        # Columns of refused draft tokens stay in the cache and are masked out.
        place = torch.arange(width - 1, device=self.device)
        mask[:, batch.ids.shape[1] :] = (place < agreed[:, None]).long()
        return _Rows(batch.places, results, mask, cache)

    def _decode(self, parts: Sequence[_Rows], limit: int, stops: Sequence[str]) -> None:
        """Append greedy tokens until each row has ended; finished rows leave the batch."""
        for alive in _joined(parts):
            while alive.results:
                alive.mask = torch.cat([alive.mask, alive.mask.new_ones(len(alive.mask), 1)], 1)
                tokens = torch.tensor([[row[-1]] for row in alive.results], device=self.device)
                logits, alive.cache = self._forward(tokens, alive.mask, alive.cache, 1)
                for row, token in zip(alive.results, logits[:, -1].argmax(-1).tolist(), strict=True):
                    row.append(token)
                alive = self._going(alive, limit, stops)

    def _going(self, rows: _Rows, limit: int, stops: Sequence[str]) -> _Rows:
        """The rows that have not ended, and some that have: their number is a multiple of `ROWS`."""
        ended = [self._ended(row, limit, stops) for row in rows.results]
        going = [i for i, over in enumerate(ended) if not over]
        spare = [i for i, over in enumerate(ended) if over][: -len(going) % ROWS]
        if going and len(going) + len(spare) == len(ended):
            return rows
        going = sorted(going + spare) if going else []
        keep = torch.tensor(going, dtype=torch.int64, device=self.device)
        rows.cache.batch_select_indices(keep)
        places, results = tuple(rows.places[i] for i in going), [rows.results[i] for i in going]
        return _Rows(places, results, rows.mask[keep], rows.cache)

    def _padded(self, drafts: Sequence[Sequence[int]], width: int) -> Tensor:
        """Drafts as [rows, width]; -1, which no model ever chooses, where a draft has no token."""
        rows = [([*draft, *[-1] * width])[:width] for draft in drafts]
        return torch.tensor(rows, device=self.device)

    def _ended(self, ids: list[int], limit: int, stops: Sequence[str]) -> bool:
        # An accepted draft has its end token inside, with the model's next choice behind it.
        if not self.ends.isdisjoint(ids) or len(ids) >= limit:
            return True
        # Looked for now and then: what was written behind a stop string is cut off at the end.
        if not stops or len(ids) % STOP_EVERY:
            return False
        text = self.tokenizer.decode(ids[-2 * STOP_EVERY :], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    def _forward(self, ids: Tensor, mask: Tensor, cache: Any, keep: int) -> tuple[Tensor, Any]:
        """Logits [rows, keep, vocabulary] of the last tokens; `mask` [rows, cached + new] may have holes."""
        positions = (mask.cumsum(1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        out = self.model(
            ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return out.logits, out.past_key_values

    def _trim(self, ids: list[int]) -> list[int]:
        """Tokens before the first end token."""
        return next((ids[:i] for i, token in enumerate(ids) if token in self.ends), ids)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)


def _cut(text: str, stops: Sequence[str]) -> str:
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text


def _joined(parts: Sequence[_Rows]) -> list[_Rows]:
    """Rows of several batches as one, padded on the left; layers that forget tokens stay apart."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    parts = [part for part in parts if part.places]
    if any(type(layer) is not DynamicLayer for part in parts for layer in part.cache.layers):
        return list(parts)
    if len(parts) < 2:
        return list(parts)
    width = max(part.mask.shape[1] for part in parts)
    mask = torch.cat([pad(part.mask, (width - part.mask.shape[1], 0)) for part in parts])
    cache = DynamicCache()
    for index, layers in enumerate(zip(*(part.cache.layers for part in parts), strict=True)):
        cache.update(
            _stacked([layer.keys for layer in layers], width),
            _stacked([layer.values for layer in layers], width),
            index,
        )
    places = tuple(place for part in parts for place in part.places)
    return [_Rows(places, [row for part in parts for row in part.results], mask, cache)]


def _stacked(states: Sequence[Tensor], width: int) -> Tensor:
    """Keys or values [rows, heads, columns, d] of several batches, with empty columns in front."""
    return torch.cat([pad(state, (0, 0, width - state.shape[2], 0)) for state in states])
