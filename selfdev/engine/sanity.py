"""Does a merged model still speak? A short look before the expensive score.

Two signs of gibberish, each measured against the seed on the same few dev questions without examples:
perplexity of the worked solutions, and replies that are empty or go round in circles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from selfdev.tasks.questions import Question
from selfdev.tasks.replies import is_degenerate

if TYPE_CHECKING:
    from torch import Tensor

    from selfdev.engine.batches import Batch
    from selfdev.engine.engine import Engine

FACTOR = 100.0  # times the seed's perplexity; a poor merge that still speaks stays far below
LONGEST = 64  # tokens of a solution that are read, and of a reply that are written


@dataclass(frozen=True, slots=True)
class Probe:
    """Questions made ready for one engine: prompts to answer, and token ids of each prompt and solution."""

    batches: tuple[Batch, ...]
    texts: tuple[tuple[list[int], list[int]], ...]
    stops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a model: perplexity of the solutions (None: there are none), and its replies."""

    perplexity: float | None
    replies: tuple[str, ...]

    @property
    def mute(self) -> bool:
        """Whether no reply says anything."""
        return all(is_degenerate(reply) for reply in self.replies)


def prepare(engine: Engine, questions: Sequence[Question], stops: Sequence[str]) -> Probe:
    """A probe of these questions, asked without examples."""
    asked = [q.messages[-1] if q.messages else q.prompt for q in questions]
    batches = engine.prepare(asked, [None] * len(asked), max(1, len(asked)))
    texts = []
    for prompt, question in zip(asked, questions, strict=True):
        if question.solution:
            tail = engine.tokenizer(" " + question.solution, add_special_tokens=False).input_ids[:LONGEST]
            texts.append((engine.tokenizer(prompt).input_ids, tail))
    return Probe(tuple(batches), tuple(texts), tuple(stops))


def look(engine: Engine, probe: Probe, tensors: Mapping[str, Tensor], seed: Look | None = None) -> Look:
    """What a model with these weights says; no replies where its perplexity alone settles it."""
    engine.swap(tensors)
    perplexity = _perplexity(engine, probe.texts)
    if seed is not None and _is_off(perplexity, seed):
        return Look(perplexity, ())
    return Look(perplexity, tuple(engine.answer(probe.batches, LONGEST, probe.stops)))


def complaint(seen: Look, seed: Look) -> str | None:
    """Why the model is not worth a score; None when it is."""
    if _is_off(seen.perplexity, seed):
        return (
            f"gibberish: perplexity {seen.perplexity:.3g} on dev solutions,"
            f" more than {FACTOR:.0f} times the seed's {seed.perplexity:.3g}"
        )
    if seen.mute and not seed.mute:
        return f"gibberish: every one of {len(seen.replies)} replies is empty or goes round in circles"
    return None


def _is_off(perplexity: float | None, seed: Look) -> bool:
    if perplexity is None or seed.perplexity is None:
        return False
    return not perplexity <= FACTOR * seed.perplexity  # also when it is not a number


@torch.inference_mode()
def _perplexity(engine: Engine, texts: Sequence[tuple[list[int], list[int]]]) -> float | None:
    """exp of the mean negative log-likelihood of all solution tokens, nats."""
    total, count = 0.0, 0
    for prompt, solution in texts:
        ids = torch.tensor([prompt + solution], device=engine.device)
        logits = engine.model(ids, logits_to_keep=len(solution) + 1).logits[0, :-1].float()
        chosen = torch.log_softmax(logits, -1).gather(1, ids[0, -len(solution) :, None])
        total, count = total - float(chosen.sum()), count + len(solution)
    if not count:
        return None
    return math.exp(total / count) if total / count < 700 else math.inf
