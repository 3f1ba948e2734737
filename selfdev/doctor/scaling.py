"""The same run with models of 7 and 70 billion parameters on 1 to 8 GPUs; benchmarks/SCALING.md explains.

Arithmetic on bytes moved and tokens generated, nothing measured. A model that does not fit one GPU is thought
of as cut over several; `selfdev` itself keeps a model on one device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfdev.config.config import Config
from selfdev.doctor.estimate import Load, Rates, Size, big_gpu, estimate, gpu_memory

GPUS = (1, 2, 4, 8)
USABLE = 0.92 * 80e9 / 2**30  # GiB of a GPU of 80 GB without its driver's and the allocator's share
TOGETHER = 0.8  # of the speed of several GPUs that is left when they hold one model together
# Mistral 7B and Llama 2 70B: both keep 8 key heads of 128 per layer; in scope are the MLP layers.
SHAPES = {
    "7B": Size(7_242_000_000, 32, 4096, 1024, 32_000, 5_637_000_000),
    "70B": Size(68_977_000_000, 80, 8192, 1024, 32_000, 56_371_000_000),
}


@dataclass(frozen=True, slots=True)
class Scaled:
    """A run with models of one size on so many GPUs of 80 GB. `together` hold one model and `workers` such
    groups work side by side; `gib` is the most on one GPU and `host_gib` what seed and experts take in RAM.
    Without `workers` it does not fit, and there are no hours."""

    model: str
    gpus: int
    together: int
    workers: int
    gib: float
    host_gib: float
    low_hours: float | None = None
    high_hours: float | None = None


def scaling(config: Config, load: Load) -> tuple[Scaled, ...]:
    """The config's run for each model size and number of GPUs."""
    return tuple(_scaled(config, load, model, gpus) for model in SHAPES for gpus in GPUS)


def _scaled(config: Config, load: Load, model: str, gpus: int) -> Scaled:
    size = SHAPES[model]
    memory = gpu_memory(config, size, load)
    most = max(memory.values())
    host = (len(config.models.experts) + 1) * size.parameters * size.width / 2**30
    together = next((n for n in GPUS if n <= gpus and most / n <= USABLE), 0)
    if not together:
        return Scaled(model, gpus, gpus, 0, most / gpus, host)
    workers = gpus // together
    rates = _shared(big_gpu(config, size, load), together, workers)
    found = estimate(config, load, rates, memory)
    return Scaled(
        model, gpus, together, workers, most / together, host, found.low_hours, found.high_hours
    )  # fmt: skip


def _shared(rates: Rates, together: int, workers: int) -> Rates:
    """The rates of a group of GPUs that hold one model together."""
    speed = together * (TOGETHER if together > 1 else 1.0)
    return replace(
        rates, read=rates.read / speed, answer=rates.answer / speed, write=rates.write / speed,
        merge=rates.merge / together, train=rates.train / speed, workers=workers,
    )  # fmt: skip
