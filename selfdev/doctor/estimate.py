"""What a run needs, memory and hours: plain arithmetic on sizes and rates, every assumption named.

Hours have two ends: every batch is decoded to its token limit in both; at the low end one program in ten
merges and is scored (the paper's readers say 100 to 300 of 3,000), at the high end all do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from selfdev.config.settings import Config
from selfdev.finish import RIVALS

GIB = 2**30
LOW_YIELD = 0.1
LIBRARIES = 0.6  # GiB of a process with torch and its sandbox server, before any model
KNOWN_TESTS = {"gsm8k": 1319, "math": 5000, "lab": 10_000}
PROMPT_TOKENS = 700  # of the factory's prompt where no tokenizer can count them
EXAMPLE_TOKENS = 170  # of a solved example of GSM8K, likewise
QUESTION_TOKENS = 80
READ_AT_ONCE = 16_384  # tokens of prompts, by `engine.READ`, whose module needs torch
_NAMED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?([BM])(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Size:
    """A model: values, layers, widths of the hidden state and of keys (or values) per token, vocabulary,
    values in scope, and bytes per stored value."""

    parameters: int
    layers: int
    hidden: int
    keys: int
    vocabulary: int
    scope: int
    width: int = 2


@dataclass(frozen=True, slots=True)
class Rates:
    """What a machine does with a model of that size. Seconds: `read` per prompt token, `answer` and `write`
    per decoding step of a full batch, `merge` per program, `train` per token of DPO."""

    where: str
    read: float
    answer: float
    write: float
    merge: float
    train: float
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens of the factory's prompt and of a question with its examples; questions of the test set."""

    prompt: int
    question: int
    test: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hours of the whole run from `low` to `high`, by part at the low end; GiB in use by phase."""

    where: str
    low_hours: float
    high_hours: float
    hours: dict[str, float]
    memory_gib: dict[str, float]


def parameters_in(name: str) -> int | None:
    """How many parameters a model's name claims: 7 billion for `Abel-7B-002`."""
    found = _NAMED.search(name.rsplit("/", 1)[-1].replace("-", " ").replace("_", " "))
    if found is None:
        return None
    return round(float(found[1]) * (1e9 if found[2].upper() == "B" else 1e6))


def assumed_size(parameters: int, scope: str) -> Size:
    """A decoder of this many parameters in Llama's shape: 12 x layers x hidden^2, hidden = 128 x layers."""
    hidden = round((parameters * 128 / 12) ** (1 / 3) / 128) * 128 or 128
    layers = max(1, round(parameters / 12 / hidden**2))
    shown = parameters if scope == "all" else parameters * 3 // 4
    return Size(parameters, layers, hidden, hidden, 32_000, shown)


def load_of(config: Config, prompt: int | None, question: int | None, test: int | None) -> Load:
    """Token and question counts, assumed where they could not be counted."""
    assumed = EXAMPLE_TOKENS * config.task.shots + QUESTION_TOKENS
    questions = test or KNOWN_TESTS.get(config.task.name, 1000)
    return Load(prompt or PROMPT_TOKENS, question or assumed, config.task.test or questions)


def big_gpu(config: Config, size: Size, load: Load) -> Rates:
    """One GPU of 80 GB in bfloat16 (assumed): 150 TFLOP/s, 0.8 TB/s of its memory while decoding, 10 GB/s
    from the host, and at least 0.25 ms per layer and decoding step: the shares of its peaks that a larger
    GPU reached (benchmarks/SCALING.md)."""
    flops, memory, host = 150e12, 0.8e12, 10e9
    token = 2 * size.parameters
    weights = size.parameters * size.width

    def step(batch: int, length: int) -> float:
        cache = _cache(size, batch, length) * GIB
        return max((weights + cache) / memory, batch * token / flops, 0.00025 * size.layers)

    return Rates(
        where="one GPU of 80 GB, assumed",
        read=token / flops,
        answer=step(config.task.batch, load.question + config.task.max_new_tokens),
        write=step(config.factory.batch, load.prompt + config.factory.max_new_tokens),
        merge=(len(config.models.experts) + 2) * size.scope * size.width / host,
        train=5 * token / flops,
    )


def estimate(config: Config, load: Load, rates: Rates, memory: dict[str, float]) -> Estimate:
    """Hours of a whole run on a machine of these rates."""
    low, high = (_hours(config, load, rates, share) for share in (LOW_YIELD, 1.0))
    return Estimate(rates.where, sum(low.values()), sum(high.values()), low, memory)


def _hours(config: Config, load: Load, rates: Rates, scored: float) -> dict[str, float]:
    task, writer = config.task, config.factory

    def exam(questions: int) -> float:
        reading = questions * load.question * rates.read
        return reading + _batches(questions, task.batch) * task.max_new_tokens * rates.answer

    batch = load.prompt * rates.read + writer.max_new_tokens * rates.write
    writing = writer.iterations * _batches(writer.programs, writer.batch) * batch
    tried = writer.iterations * writer.programs * scored * (rates.merge + exam(task.dev))
    sets = sum(len(grid) for grid in config.baselines.values())
    tuned = sets * (rates.merge + exam(task.dev))
    looked = (config.finalists + RIVALS + 1) * (rates.merge + exam(task.finalist_dev))
    tested = (len(config.models.experts) + len(config.baselines) + 2) * (rates.merge + exam(load.test))
    tested += 2 * sum(rates.merge + exam(b.test or KNOWN_TESTS.get(b.name, 1000)) for b in config.besides)
    pair = 2 * (load.prompt + writer.max_new_tokens / 2) * config.dpo.epochs
    trained = (writer.iterations - 1) * config.pairs.max_pairs * pair * rates.train
    shared = {
        "write programs": writing,
        "merge and score": tried,
        "baselines": tuned,
        "finalists and test": looked + tested,
    }
    return {name: s / rates.workers / 3600 for name, s in shared.items()} | {"DPO": trained / 3600}


def gpu_memory(config: Config, size: Size, load: Load) -> dict[str, float]:
    """GiB of GPU memory by phase, models in their stored dtype."""
    weights = size.parameters * size.width / GIB
    swapped = size.scope * size.width / GIB  # the seed's own values, kept to go back to
    writing = _cache(size, config.factory.batch, load.prompt + config.factory.max_new_tokens)
    answering = _cache(size, config.task.batch, load.question + config.task.max_new_tokens)
    reading = _cache(size, 1, min(READ_AT_ONCE, config.task.batch * load.question))
    return {
        "write programs": weights + writing,
        "merge and score": weights + swapped + answering + reading,
        "DPO": _training(config, size, load, size.width),
    }


def ram(config: Config, size: Size, load: Load) -> dict[str, float]:
    """GiB of RAM on a machine without a GPU, all workers together, a program's own memory left out."""
    weights = size.parameters * 4 / GIB  # a CPU computes in float32
    swapped = size.scope * (4 + size.width) / GIB  # the seed's own values, and the area for merged ones
    models = len(config.models.experts) + 1
    shown = models * size.scope * 4 / GIB if config.models.show_dtype == "float32" and size.width < 4 else 0
    cache = 2 * _cache(size, config.task.batch, load.question + config.task.max_new_tokens)
    writer = 2 * weights
    writer += 2 * _cache(size, config.factory.batch, load.prompt + config.factory.max_new_tokens)
    idle = LIBRARIES * (config.workers + 1)
    return {
        "write programs": idle + config.workers * (weights + writer),
        "merge and score": idle + config.workers * (weights + swapped + shown + cache),
        "DPO": idle + _training(config, size, load, 4),
    }


def disk(config: Config, size: Size) -> float:
    """GiB that a run writes: each factory and promoted seed, the best model, one more while it is written."""
    copies = config.factory.iterations + 1
    copies += config.factory.iterations - 1 if config.promote == "best" else 0
    attempts = config.factory.iterations * config.factory.programs * 20_000
    return (copies * size.parameters * size.width + attempts) / GIB


def _training(config: Config, size: Size, load: Load, width: int) -> float:
    """GiB of DPO: weights, what the optimiser keeps, and activations of one step with checkpoints."""
    if config.dpo.method == "lora":
        per_layer = 21.5 * size.hidden * config.dpo.lora_rank  # the seven matrices of a Llama layer
        held = size.parameters * width + 16 * per_layer * size.layers
    else:
        held = size.parameters * 16
    pairs = config.dpo.micro_batch or config.dpo.batch
    tokens = 2 * pairs * (load.prompt + config.factory.max_new_tokens / 2)
    activations = tokens * (size.layers * size.hidden * 2 + 40 * size.hidden + 8 * size.vocabulary)
    return (held + activations) / GIB


def _cache(size: Size, batch: int, length: int) -> float:
    """GiB of keys and values in 16 bits."""
    return batch * length * 2 * size.layers * size.keys * 2 / GIB


def _batches(items: float, batch: int) -> float:
    return max(items / batch, 1.0)


def named_sizes(names: Iterable[str]) -> tuple[str, int] | None:
    """The first model name that tells its size, and that size."""
    return next(((name, found) for name in names if (found := parameters_in(name))), None)
