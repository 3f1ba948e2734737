"""The models of a worker: made when wanted, and on a GPU one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Family

from selfdev.workers import living
from selfdev.workers.living import Living


def test_models_are_made_once_and_when_wanted(family: Family) -> None:
    models = Living(family.seed, family.experts["multiply"], "cpu", "transformers")
    assert models.engine is models.engine
    assert models.writer is models.writer
    assert models.writer is not models.engine
    kept = "model.embed_tokens.weight"
    answers, writes = (dict(m.model.named_parameters())[kept] for m in (models.engine, models.writer))
    assert not torch.equal(answers, writes)  # the seed, and a factory of its own


def test_on_a_cpu_both_live_side_by_side(family: Family) -> None:
    models = Living(family.seed, family.seed, "cpu", "transformers")
    engine, _ = models.engine, models.writer
    assert models.engine is engine


def test_on_a_gpu_each_takes_the_others_place(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []

    class Model:
        def __init__(self, path: Path, device: str) -> None:
            made.append((str(path), device))

    monkeypatch.setattr("selfdev.engine.engine.Engine", Model)
    monkeypatch.setattr(living, "resolve", lambda _: "cuda")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: made.append(("freed", "")))
    models = Living(Path("seed"), Path("factory"), "auto", "transformers")
    engine, writer = models.engine, models.writer
    assert models.writer is writer
    assert models.engine is not engine
    freed = ("freed", "")
    load = [freed, ("seed", "cuda"), freed, ("factory", "cuda"), freed, ("seed", "cuda")]
    assert made == load
