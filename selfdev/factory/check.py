"""A look at a trained factory: does it rank pairs it never saw, and how far is it from the first factory?

The implicit reward of a program is the ratio of its probabilities under the trained factory and under the one
that training started from (Rafailov et al. 2023); a pair is ranked right when the chosen program's is the
larger. The divergence KL(trained || first) is the mean of the same log-ratio, to the first factory, over
programs that the trained one writes at temperature 1: an unbiased estimate, which may fall below 0 by chance.
Both are of the stored factory, after any averaging and rounding, computed in float32.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfdev.config.settings import Dpo
from selfdev.records import Lessons
from selfdev.results import FactoryCheck, factory_check

ROWS = 16  # programs written at once: in float32 the keys and values of many would not fit beside the model


def look(
    trained: Path, start: Path, first: Path, prompt: str, lessons: Lessons, settings: Dpo, seed: int,
    device: str = "cpu", progress: Callable[[int, int], None] | None = None,
) -> FactoryCheck:  # fmt: skip
    """Held-out accuracy and divergence of the factory at `trained`; `progress` gets (parts done, parts).

    `device` is a torch device, in float32 on each.
    """
    tell = progress or (lambda done, of: None)  # noqa: ARG005
    model, tokenizer = _load(trained, device)
    start_ids = tokenizer(prompt).input_ids
    pairs = [
        _read(tokenizer, prompt, text) for pair in lessons.held_out for text in (pair.chosen, pair.rejected)
    ]
    written = _write(model, tokenizer, start_ids, settings, lessons.longest, seed)
    tell(1, 3)
    now = log_probabilities(model, start_ids, pairs + written, settings.batch)
    del model
    before = _under(start, device, start_ids, pairs, settings.batch)
    tell(2, 3)
    first_ones = _under(first, device, start_ids, written, settings.batch)
    tell(3, 3)
    rewards = [a - b for a, b in zip(now, before, strict=False)]  # the pairs come first
    ratios = [a - b for a, b in zip(now[len(pairs) :], first_ones, strict=True)]
    return factory_check(
        trained=len(lessons.pairs),
        held_out=len(lessons.held_out),
        right=sum(good > bad for good, bad in zip(rewards[::2], rewards[1::2], strict=True)),
        programs=len(ratios),
        kl=statistics.fmean(ratios) if ratios else None,
        kl_error=statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else None,
    )


def _load(folder: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gc.collect()  # the model before it, of which two need not fit
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", local_files_only=True)
    return model.eval().to(device), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _read(tokenizer: Any, prompt: str, text: str) -> list[int]:
    """A program's tokens behind the prompt, with its end."""
    length = len(tokenizer(prompt).input_ids)
    return [*tokenizer(prompt + text).input_ids[length:], tokenizer.eos_token_id]


def _under(folder: Path, device: str, prompt: list[int], replies: list[list[int]], batch: int) -> list[float]:
    """Log-probabilities under the model of a folder, which is only loaded where there is something to do."""
    return log_probabilities(_load(folder, device)[0], prompt, replies, batch) if replies else []


def log_probabilities(
    model: Any, prompt: Sequence[int], replies: Sequence[Sequence[int]], batch: int
) -> list[float]:
    """Log-probability of each reply (token ids) behind the prompt, nats; `batch` replies at once."""
    import torch

    found: list[float] = []
    for begin in range(0, len(replies), batch):
        part = replies[begin : begin + batch]
        longest = max(map(len, part))
        ids = torch.tensor([[*prompt, *reply, *[0] * (longest - len(reply))] for reply in part])
        mask = torch.tensor([[1] * len(reply) + [0] * (longest - len(reply)) for reply in part])
        seen = torch.cat([torch.ones(len(part), len(prompt), dtype=mask.dtype), mask], 1)
        ids, mask = ids.to(model.device), mask.to(model.device)
        with torch.inference_mode():
            logits = model(ids, attention_mask=seen.to(model.device), logits_to_keep=longest + 1).logits
            tokens = torch.log_softmax(logits[:, :-1].float(), -1).gather(-1, ids[:, -longest:, None])
        found += (tokens[..., 0] * mask).double().sum(1).tolist()
    return found


def _write(
    model: Any, tokenizer: Any, prompt: list[int], settings: Dpo, longest: int, seed: int
) -> list[list[int]]:
    """Programs that the model writes at temperature 1, as tokens with the end where they reached one."""
    import torch
    from transformers import GenerationConfig

    ends = _ends(model, tokenizer)
    plain = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=longest,
        eos_token_id=sorted(ends), pad_token_id=min(ends),
    )  # fmt: skip
    model.generation_config = plain  # else what a checkpoint brings fills what is not set here
    written: list[list[int]] = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for begin in range(0, settings.kl_programs, ROWS):
            rows = min(ROWS, settings.kl_programs - begin)
            ids = torch.tensor([prompt] * rows, device=model.device)
            made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plain)
            written += [_until_end(row, ends) for row in made[:, len(prompt) :].tolist()]
    return written


def _ends(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {end for end in (*ends, tokenizer.eos_token_id) if end is not None}


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    """Tokens up to the first end, with it."""
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in ends), ids)
