"""The least a linear merge costs: read the models, add them up, write the result, in bare torch.

    python benchmarks/merge_limit.py OUT SEED EXPERT ...

One layer of code, no checks, no isolation, no hash. Prints the seconds after its imports.
"""

from __future__ import annotations

import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

CHUNK = 1 << 18  # values at a time, so that sums in float32 stay in the processor's cache


def merge(out: str, paths: list[str]) -> None:
    """The average of checkpoints, computed in float32 and stored as bfloat16."""
    save_file(combine(paths), out, {"format": "pt"})


def combine(paths: list[str], into: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """The average alone, in new memory or put `into` tensors that are there."""
    models = [safe_open(f"{path}/model.safetensors", "pt") for path in paths]
    merged = {} if into is None else into
    for name in models[0].keys():  # type: ignore[no-untyped-call] # noqa: SIM118
        tensors = [model.get_tensor(name) for model in models]  # type: ignore[no-untyped-call]
        if into is None:
            merged[name] = torch.empty_like(tensors[0])
        parts = [torch.split(values.view(-1), CHUNK) for values in (merged[name], *tensors)]
        for target, first, *others in zip(*parts, strict=True):
            total = first.float()
            for other in others:
                total += other
            target.copy_(total.div_(len(paths)))
    return merged


if __name__ == "__main__":
    torch.set_num_threads(1)
    begin = time.perf_counter()
    merge(sys.argv[1], sys.argv[2:])
    print(time.perf_counter() - begin)
