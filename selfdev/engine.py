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


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts of similar length, padded on the left: `places` are their positions in the question list,
    `ids` and `mask` are [rows, prompt length] int64, `drafts` one token list per row (empty: none)."""

    places: tuple[int, ...]
    ids: Tensor
    mask: Tensor
    drafts: tuple[tuple[int, ...], ...]


class Engine:
    """A causal language model and its tokenizer, loaded once; `dtype` "auto" computes in the stored dtype."""

    def __init__(self, path: Path | str, device: str = "cpu", dtype: str = "auto") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()

        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
        self.model.requires_grad_(False).eval().to(device)
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
    ) -> list[str]:
        """Greedy continuations of at most `limit` tokens, cut at the first stop string, in question order."""
        replies = [""] * sum(len(batch.places) for batch in batches)
        for batch in batches:
            tokens = self._answer_batch(batch, limit, stops)
            for place, ids in zip(batch.places, tokens, strict=True):
                replies[place] = _cut(self.tokenizer.decode(ids, skip_special_tokens=True), stops)
            if done is not None:
                done(len(batch.places))
        return replies

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

    def _answer_batch(self, batch: Batch, limit: int, stops: Sequence[str]) -> list[list[int]]:
        """Greedy tokens of each row: the accepted part of its draft, then one token per pass."""
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
        self._decode(results, mask, cache, limit, stops)
        return [self._trim(row) for row in results]

    def _decode(
        self, results: list[list[int]], mask: Tensor, cache: Any, limit: int, stops: Sequence[str]
    ) -> None:
        """Append greedy tokens to `results` until each row has ended; finished rows leave the batch."""
        alive = list(range(len(results)))
        while True:
            going = [j for j, i in enumerate(alive) if not self._ended(results[i], limit, stops)]
            if not going:
                return
            if len(going) < len(alive):
                keep = torch.tensor(going, device=self.device)
                alive, mask = [alive[j] for j in going], mask[keep]
                cache.batch_select_indices(keep)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            tokens = torch.tensor([[results[i][-1]] for i in alive], device=self.device)
            logits, cache = self._forward(tokens, mask, cache, 1)
            for i, token in zip(alive, logits[:, -1].argmax(-1).tolist(), strict=True):
                results[i].append(token)

    def _padded(self, drafts: Sequence[Sequence[int]], width: int) -> Tensor:
        """Drafts as [rows, width]; -1, which no model ever chooses, where a draft has no token."""
        rows = [([*draft, *[-1] * width])[:width] for draft in drafts]
        return torch.tensor(rows, device=self.device)

    def _ended(self, ids: list[int], limit: int, stops: Sequence[str]) -> bool:
        # An accepted draft has its end token inside, with the model's next choice behind it.
        if not self.ends.isdisjoint(ids) or len(ids) >= limit:
            return True
        # A stop string begins with a line break, so only a row that has just broken a line can hold one.
        text = self.tokenizer.decode(ids[-16:], skip_special_tokens=True) if stops else ""
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
