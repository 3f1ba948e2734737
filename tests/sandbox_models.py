"""Three tiny models on disk and the programs the sandbox tests share."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from selfdev.checkpoints import ModelView, open_checkpoint, views
from selfdev.records import Program

NAMES = tuple(f"model.layers.{i}.mlp.weight" for i in range(3))
SHAPE = (8, 6)


def weights(model: str, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """The true weights of a model: fixed by its name."""
    generator = torch.Generator().manual_seed(sum(model.encode()))
    return {name: torch.randn(SHAPE, generator=generator).to(dtype) for name in NAMES}


def write_models(folder: Path, shown_as: str | None = None) -> tuple[ModelView, ...]:
    """Write the models `seed`, `one` and `two` as checkpoints and open them."""
    opened = []
    for name in ("seed", "one", "two"):
        path = folder / name
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        save_file(weights(name), path / "model.safetensors", metadata={"format": "pt"})
        opened.append(open_checkpoint(path, name))
    return views(opened[0], opened[1:], "mlp", shown_as)


def program(body: str) -> Program:
    """A program that never saw the gate: `body` is the inside of merge_models."""
    lines = ["def merge_models(models, device):", "    seed = models['seed']"]
    return Program("\n".join([*lines, *("    " + line for line in body.strip("\n").split("\n"))]))


HONEST = program("return {name: seed[name] + 0.5 * (models['one'][name] - seed[name]) for name in seed}")


def honest_result() -> dict[str, torch.Tensor]:
    """What HONEST must give, computed here."""
    seed, one = weights("seed"), weights("one")
    return {name: seed[name] + 0.5 * (one[name] - seed[name]) for name in NAMES}
