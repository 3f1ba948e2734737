"""A run of two iterations on the writing family, and what of its archive must not depend on luck."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from selfdev.config.config import Config, parse_config
from selfdev.store.archive import Archive


def settings(root: Path, **sections: Any) -> Config:
    """Its config; `sections` replace or extend the values."""
    values: dict[str, Any] = {
        "name": "tiny",
        "models": {"seed": str(root / "seed"), "experts": {n: str(root / n) for n in ("good", "bad")}},
        "task": {
            "name": str(root / "questions.jsonl"),
            "shots": 0, "dev": 10, "finalist_dev": 20, "test": 30, "max_new_tokens": 2, "batch": 30,
        },
        "factory": {"programs": 30, "iterations": 2, "temperature": 3.0, "max_new_tokens": 1, "batch": 16},
        "pairs": {"min_each": 2},
        "dpo": {"method": "full", "learning_rate": 1e-3, "beta": 0.1},
        "baselines": {"linear": [{}], "task_arithmetic": [{"WEIGHT": 0.3}]},
        "workers": 1,
    }  # fmt: skip
    for name, value in sections.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return parse_config(values, "test")


def rows(folder: Path) -> list[object]:
    """All attempts of a run, without the seconds they took."""
    archive = Archive(folder / "archive.sqlite")
    attempts = archive.attempts()
    archive.close()
    return [replace(a, outcome=replace(a.outcome, seconds=0.0, stderr="")) for a in attempts]
