"""Energy of this machine's GPUs by NVML's counters; nothing where NVML or its Python package is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Meter = Callable[[], float | None]


def meter(gpus: Sequence[str]) -> Meter:
    """A function that gives the joules these GPUs have used since their driver was loaded, None where that
    cannot be known. GPUs are named as in CUDA_VISIBLE_DEVICES: by number or UUID."""
    try:
        import pynvml  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError:
        return lambda: None
    return meter_of(gpus, pynvml)


def meter_of(gpus: Sequence[str], nvml: Any) -> Meter:
    """The same with the package `nvml` (nvidia-ml-py, or what stands for it)."""
    try:
        nvml.nvmlInit()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(int(g)) if g.isdigit() else nvml.nvmlDeviceGetHandleByUUID(g)
            for g in gpus
        ]
    except nvml.NVMLError:
        return lambda: None

    def joules() -> float | None:
        try:
            return float(sum(map(nvml.nvmlDeviceGetTotalEnergyConsumption, handles))) / 1000
        except nvml.NVMLError:  # older than Volta
            return None

    return joules if handles else lambda: None
