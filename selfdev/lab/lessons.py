"""What lab models are trained on, as token ids: word problems, bare sums and programs, and the tokenizer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from selfdev.factory.factory import prompt
from selfdev.lab.corpus import make_program
from selfdev.lab.questions import LabQuestion, stream

END, PAD = "<|end|>", "<|pad|>"
IGNORED = -100  # label of tokens without loss, torch's convention
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def make_tokenizer(vocabulary: int, seed: int) -> Any:
    """Byte-level BPE with single digits, trained on questions and programs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(f"tokenizer {seed}")
    asked = stream("train", rng)
    texts = [f"Question: {q.text}\nAnswer: {q.solution}" for q, _ in zip(asked, range(6000), strict=False)]
    texts += [prompt() + make_program(rng) for _ in range(1500)]
    words = [in_words(q) for q, _ in zip(asked, range(500), strict=False)]
    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts + words, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=PAD)


def pad_batch(tokenizer: Any, prompts: Sequence[str], completions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and labels [rows, longest], padded on the right; only completions and their end carry labels."""
    first = tokenizer(list(prompts), add_special_tokens=False).input_ids
    second = tokenizer([text + END for text in completions], add_special_tokens=False).input_ids
    longest = max(len(a) + len(b) for a, b in zip(first, second, strict=True))
    ids = torch.zeros(len(first), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        ids[row, : len(a) + len(b)] = torch.tensor(a + b)
        labels[row, len(a) : len(a) + len(b)] = torch.tensor(b)
    return ids, labels


def word_batches(
    tokenizer: Any, asked: Iterator[LabQuestion], size: int, reply: Callable[[LabQuestion], str] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of word problems; six at a time are sorted by length, so that little is padding."""
    answer = reply or worked
    while True:
        pool = sorted((next(asked) for _ in range(6 * size)), key=lambda q: len(q.text) + len(q.solution))
        for start in random.Random(pool[0].text).sample(range(0, len(pool), size), 6):
            chunk = pool[start : start + size]
            yield pad_batch(
                tokenizer, [f"Question: {q.text}\nAnswer:" for q in chunk], [answer(q) for q in chunk]
            )


def drill_batch(tokenizer: Any, asked: Iterator[LabQuestion], rows: int) -> tuple[Tensor, Tensor]:
    """Rows of five bare sums from questions' solutions; only what follows `=` carries labels.

    Stories teach arithmetic slowly: most of their tokens are words. With these rows the same skill takes a
    third of the time.
    """
    sums = ["\n".join(bare_sum(next(asked), place) for place in range(5)) for _ in range(rows)]
    ids, labels = pad_batch(tokenizer, [""] * rows, sums)
    equals, newline = tokenizer("=").input_ids[0], tokenizer("\n").input_ids[0]
    inside = torch.zeros(rows, dtype=torch.bool)
    for column in range(ids.shape[1]):
        labels[~inside, column] = IGNORED
        inside = (inside | (ids[:, column] == equals)) & (ids[:, column] != newline)
    return ids, labels


def bare_sum(question: LabQuestion, place: int) -> str:
    """One line of a question's solution, such as `12*3=36`; `place` chooses which."""
    lines = question.solution.split("\n")[:-1]
    return lines[place % len(lines)]


def worked(question: LabQuestion) -> str:
    """The reply in GSM8K's form."""
    return " " + question.solution


def rounded(question: LabQuestion) -> str:
    """Right steps, then the answer rounded to tens."""
    lines = question.solution.split("\n")[:-1]
    return " " + "\n".join([*lines, f"#### {round(int(question.answer), -1)}"])


def in_words(question: LabQuestion) -> str:
    """Right steps, then the answer digit by digit in words."""
    lines = question.solution.split("\n")[:-1]
    answer = " ".join(DIGIT_WORDS[int(digit)] for digit in question.answer)
    return " " + "\n".join([*lines, f"The answer is {answer}."])
