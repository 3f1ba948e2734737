"""A living model: weights are swapped in place, questions are answered greedily, programs are sampled.

On a GPU a worked solution that is known serves as a draft: one forward pass checks all of its tokens, those
the model would have chosen itself are kept, and ordinary decoding goes on from the first difference
(speculative decoding with a fixed draft and exact acceptance, Leviathan et al. 2023, arXiv 2211.17192). In
float32, which is what a CPU computes in, a model gives the same answers with and without drafts; in bfloat16
a tie may flip where passes differ in shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfdev.engine import attention, llama
from selfdev.engine.batches import Batch, extent, open_tokenizer, padded, shared_prefix
from selfdev.engine.cache import new_cache, repeated
from selfdev.engine.rows import Rows, together
from selfdev.engine.steps import FixedCache, Steps
from selfdev.errors import SelfdevError, one_line

# Taking rows out copies all others, so rows that have ended stay until there are enough of them.
ROWS = 16
READ = 16_384  # tokens of prompts that a GPU reads in one pass
SHARED = 32  # first tokens in common from which it pays to read them apart
STOP_EVERY = 8  # tokens between two looks for stop strings, which are no longer than this


class Engine:
    """A causal language model and its tokenizer, loaded once.

    `dtype` "auto" computes in float32 on a CPU, elsewhere in what is stored. `fixed` decodes in buffers that
    stay where they are; None does on a GPU, where such steps are graphs.
    """

    def __init__(
        self, path: Path | str, device: str = "cpu", dtype: str = "auto", fixed: bool | None = None
    ) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.tokenizer: Any = open_tokenizer(path)
        if dtype == "auto" and torch.device(device).type == "cpu":
            dtype = "float32"  # few processors have bfloat16 products, and the others take four times as long
        self.model: Any = _model(path, dtype)
        self.model.requires_grad_(False).eval().to(device)
        attends = attention.use_for(self.model)
        self._llama = llama.Llama(self.model) if llama.fits(self.model) else None
        self.device = torch.device(device)
        self.ends = _end_tokens(self.model, self.tokenizer)
        # transformers 5.24 renamed it.
        named = signature(self.model.forward).parameters
        self._cache_name = "cache" if "cache" in named else "past_key_values"
        self._parameters = dict(self.model.named_parameters())
        fixed = self.device.type == "cuda" if fixed is None else fixed
        fixed = fixed and attends and new_cache(self.model) is not None
        self.steps = Steps(self.model, self._cache_name) if fixed else None
        self.tokens = 0  # written so far, in answers and programs
        # A CPU is busy with products in either case: below nine accepted tokens in ten drafts cost it time.
        self.drafts_pay = self.device.type != "cpu"
        self._seed: dict[str, Tensor] = {}  # the seed's own values of everything that was ever swapped
        self._prefixes: dict[tuple[int, ...], Any] = {}  # caches of these weights, one row each

    @property
    def room(self) -> int | None:
        """Most tokens of a prompt and its answer, where the model's config says."""
        room: int | None = self.model.config.get_text_config().to_dict().get("max_position_embeddings")
        return room

    @property
    def names(self) -> frozenset[str]:
        """Names of the parameters that can be swapped."""
        return frozenset(self._parameters)

    def swap(self, tensors: Mapping[str, Tensor]) -> None:
        """Put these weights into the model; parameters not named are the seed's again."""
        self._prefixes.clear()
        for name in self._seed.keys() - tensors.keys():
            self._parameters[name].copy_(self._seed[name])
        for name, tensor in tensors.items():
            self._seed.setdefault(name, self._parameters[name].detach().clone())
            self._parameters[name].copy_(tensor)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put all weights into the model for good: nothing is kept to go back to."""
        self._prefixes.clear()
        for name, tensor in tensors.items():
            self._parameters[name].copy_(tensor)

    def prepare(self, prompts: Sequence[str], drafts: Sequence[str | None], size: int) -> list[Batch]:
        """Prompts as padded batches of at most `size` rows, tokenised once and sorted by length; what they
        all begin with, such as the same examples, is computed once after each `swap`."""
        rows = [tuple(ids) for ids in self.tokenizer(list(prompts), add_special_tokens=True).input_ids]
        guesses = [self._draft(draft) for draft in drafts]
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]) + len(guesses[i]), i))
        if self.steps is not None and order:
            # Prompts have a cache of their own first, which so stays small, and a GPU busy all the same.
            size = min(size, max(1, READ // (len(rows[order[-1]]) + len(guesses[order[-1]]))))
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        shared = shared_prefix(rows)
        if shared < SHARED or len(rows) < 2 or new_cache(self.model) is None:
            shared = 0
        return [padded(group, rows, guesses, shared).to(self.device) for group in groups]

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
        waiting: list[Rows] = []
        if self.steps is not None:
            self.steps.open(*extent(batches, limit, rows))
        for batch in batches:
            first = self._first_pass(batch, limit)
            tokens |= zip(first.places, first.results, strict=True)
            going = self._going(first, limit, stops)
            before = sum(len(part.places) for part in waiting)
            if before + len(going.places) > rows:
                self._decode(waiting, limit, stops)
                waiting, before = [], 0
            if self.steps is not None:
                going.cache = self.steps.lay(going.cache, going.mask, before)
            waiting.append(going)
            if done is not None:
                done(len(batch.places))
        self._decode(waiting, limit, stops)
        answers = [self._trim(ids[:limit]) for _, ids in sorted(tokens.items())]
        self.tokens += sum(map(len, answers))
        return [_cut(self.tokenizer.decode(ids, skip_special_tokens=True), stops) for ids in answers]

    @torch.inference_mode()
    def sample(self, prompt: str, temperature: float, uniforms: Tensor) -> list[str]:
        """Continuations of one prompt at a temperature: row i uses uniforms[i] ([rows, longest], in 0..1).

        The prompt is computed once; inverse-CDF sampling makes each row depend on its own numbers only.
        """
        rows, longest = uniforms.shape
        prefix = torch.tensor([self.tokenizer(prompt).input_ids], device=self.device)
        logits, cache = self._pass(prefix, new_cache(self.model))
        logits = logits[:, -1].expand(rows, -1)
        if self.steps is not None:
            self.steps.open(rows, prefix.shape[1] + longest)
            cache = self.steps.lay(cache, prefix.new_ones(rows, prefix.shape[1]), 0)
        else:
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
            logits, cache = self._pass(tokens[:, None], cache)
            logits = logits[:, -1]
        self.tokens += sum(map(len, written))
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]

    def _draft(self, text: str | None) -> tuple[int, ...]:
        if text is None:
            return ()
        ids = self.tokenizer(" " + text, add_special_tokens=False).input_ids
        return (*ids, min(self.ends))

    def _first_pass(self, batch: Batch, limit: int) -> Rows:
        """Prompts and drafts in one pass: of each row the accepted part of its draft and one token more."""
        cache = self._after(batch.prefix, len(batch.places))
        # A layer that forgets old tokens would count refused ones among the latest: there, no drafts.
        drafts = batch.drafts if cache is not None else ((),) * len(batch.places)
        known = batch.mask.new_ones(len(drafts), len(batch.prefix))
        rows = Rows(batch.places, [[] for _ in drafts], known, cache)
        self._advance(rows, batch.ids, batch.mask, [draft[:limit] for draft in drafts])
        return rows

    def _after(self, prefix: tuple[int, ...], rows: int) -> Any:
        """A cache for so many rows that begin with a prefix, which is read once."""
        if not prefix:
            return new_cache(self.model)
        if prefix not in self._prefixes:
            ids = torch.tensor([prefix], device=self.device)
            self._prefixes[prefix] = self._pass(ids, new_cache(self.model))[1]
        return repeated(self._prefixes[prefix], rows)

    def _decode(self, parts: Sequence[Rows], limit: int, stops: Sequence[str]) -> None:
        """Append greedy tokens until each row has ended; finished rows leave the batch."""
        for alive in together(parts):
            while alive.results:
                last = torch.tensor([[row[-1]] for row in alive.results], device=self.device)
                alive.mask = torch.cat([alive.mask, torch.ones_like(last)], 1)
                logits, alive.cache = self._pass(last, alive.cache, alive.mask)
                for row, token in zip(alive.results, logits.argmax(-1)[:, 0].tolist(), strict=True):
                    row.append(token)
                alive = self._going(alive, limit, stops)

    def _advance(self, rows: Rows, ids: Tensor, mask: Tensor, guesses: Sequence[Sequence[int]]) -> None:
        """One pass over known tokens `ids` [rows, new] and a guess of what follows: each row gets the part of
        its guess that the model agrees with, and the model's next token."""
        width = max(1, *map(len, guesses))
        # -1, which no model ever chooses, where a guess has no token.
        guess = torch.tensor([[*g, *[-1] * (width - len(g))] for g in guesses], device=self.device)
        ids = torch.cat([ids, guess[:, :-1].clamp(min=0)], 1)
        mask = torch.cat([rows.mask, mask, mask.new_ones(len(ids), width - 1)], 1)
        logits, rows.cache = self._pass(ids, rows.cache, mask, width)
        chosen = logits.argmax(-1)
        agreed = (guess == chosen).long().cumprod(1).sum(1)
        for result, row, n in zip(rows.results, chosen.tolist(), agreed.tolist(), strict=True):
            result.extend(row[: n + 1])
        # Columns of refused guesses stay in the cache and are masked out.
        place = torch.arange(width - 1, device=self.device)
        mask[:, mask.shape[1] - (width - 1) :] = (place < agreed[:, None]).long()
        rows.mask = mask

    def _going(self, rows: Rows, limit: int, stops: Sequence[str]) -> Rows:
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
        return Rows(places, results, rows.mask[keep], rows.cache)

    def _ended(self, ids: list[int], limit: int, stops: Sequence[str]) -> bool:
        # An accepted draft has its end token inside, with the model's next choice behind it.
        if not self.ends.isdisjoint(ids) or len(ids) >= limit:
            return True
        # Looked for now and then: what was written behind a stop string is cut off at the end.
        if not stops or len(ids) % STOP_EVERY:
            return False
        text = self.tokenizer.decode(ids[-2 * STOP_EVERY :], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    def _pass(self, ids: Tensor, cache: Any, mask: Tensor | None = None, keep: int = 1) -> tuple[Tensor, Any]:
        """Logits [rows, keep, vocabulary] of the last tokens; `mask` [rows, cached + new] may have holes."""
        if isinstance(cache, FixedCache):
            return cache.step(ids), cache
        if self._llama is not None:
            return self._llama(ids, cache, mask, keep), cache
        options: dict[str, Any] = {self._cache_name: cache, "use_cache": True, "logits_to_keep": keep}
        if mask is not None:
            places = (mask.cumsum(1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
            options |= {"attention_mask": mask, "position_ids": places}
        out = self.model(ids, **options)
        return out.logits, out[self._cache_name]

    def _trim(self, ids: list[int]) -> list[int]:
        """Tokens before the first end token."""
        return next((ids[:i] for i, token in enumerate(ids) if token in self.ends), ids)


def _model(path: Path | str, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        # Without safetensors transformers would unpickle what it finds, which can run code.
        return AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except ValueError as error:
        said = one_line(str(error))[:120]
        raise SelfdevError(
            f"{path} cannot be loaded by transformers ({said}); install a newer one or give a model it knows."
        ) from error


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)


def _cut(text: str, stops: Sequence[str]) -> str:
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text
