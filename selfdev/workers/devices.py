"""On what models write and answer: the CPU, or GPUs of which each worker process gets one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from selfdev.config.settings import Device as Device
from selfdev.errors import SelfdevError

if TYPE_CHECKING:
    from selfdev.config.config import Config

VISIBLE = "CUDA_VISIBLE_DEVICES"  # read by CUDA when a process first uses it


def resolve(wanted: Device) -> str:
    """The torch device here: "auto" is a GPU where torch sees one. SelfdevError where one is asked for and
    there is none."""
    if wanted == "cpu":
        return "cpu"
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise SelfdevError(
            "device is cuda and torch sees no GPU here; install torch for it, or set device to auto."
        )
    return "cuda" if there else "cpu"


def gpus(wanted: Device) -> tuple[str, ...]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them; none on a CPU."""
    if resolve(wanted) == "cpu":
        return ()
    import torch

    named = os.environ.get(VISIBLE, "")
    return tuple(named.split(",")) if named else tuple(map(str, range(torch.cuda.device_count())))


def in_use(config: Config) -> float:
    """How many GPUs a run holds: those its workers take in turn, or what its Ray actors reserve."""
    if config.ray is not None:
        return config.workers * config.ray.gpus
    return float(min(config.workers, len(gpus(config.device))))
