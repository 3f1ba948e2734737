"""The model card of a merged checkpoint: metadata as the Hub reads it, then what a reader asks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import yaml
from huggingface_hub import ModelCardData, metadata_load

from selfdev.checkpoints import Checkpoint
from selfdev.records import Program
from selfdev.results import TestRow

HUB_CACHE = re.compile(r"models--([^/]+)--([^/]+)/snapshots/([0-9a-f]+)/?$")


@dataclass(frozen=True, slots=True)
class Parent:
    """What is known of a merged model: `model` is its hub id, or the folder's name when it has none."""

    name: str
    model: str
    on_hub: bool
    revision: str | None
    license: str | None


def model_card(
    title: str,
    program: Program,
    seed: Checkpoint,
    experts: Sequence[Checkpoint],
    *,
    scope: str,
    dtype: str | None = None,
    random_seed: int = 0,
    scores: Sequence[TestRow] = (),
    task: str = "",
    confinement: str = "",
) -> str:
    """README.md of a merged checkpoint; `scores` are on the test questions of `task`, `dtype` as in views,
    `confinement` the sentence of `selfdev.sandbox.layers.in_words`."""
    parents = [parent(model) for model in (seed, *experts)]
    parts = [
        f"---\n{_metadata(parents)}\n---",
        f"# {title}",
        f"The seed model merged with {len(experts)} of its fine-tuned relatives by the program below, run"
        f" with `selfdev`. Parameters in scope `{scope}` are merged; all others are the seed's.",
        *(["## Scores", _scores(scores, task)] if scores else []),
        f"## Program\n\n{_fenced(program.code, 'python')}" + (f"\n\n{confinement}" if confinement else ""),
        f"## Parents\n\n{_parents(parents)}",
        f"## Reproduce\n\n{_reproduce(parents, scope, dtype, random_seed)}",
    ]
    return "\n\n".join(parts) + "\n"


def parent(model: Checkpoint) -> Parent:
    """Hub id and revision from a hub cache path, licence from the model's own card."""
    path = model.path.absolute()
    cached = HUB_CACHE.search(path.as_posix())
    found = f"{cached[1]}/{cached[2]}" if cached else path.name
    return Parent(model.name, found, cached is not None, cached[3] if cached else None, _license(model))


def _license(model: Checkpoint) -> str | None:
    try:
        metadata = metadata_load(model.path / "README.md")
    except (OSError, ValueError, yaml.YAMLError):
        return None  # a parent without a card, or with a damaged one, has no known licence
    given = metadata.get("license") if metadata else None
    return given if isinstance(given, str) else None


def _metadata(parents: Sequence[Parent]) -> str:
    licenses = {p.license for p in parents}
    data = ModelCardData(
        base_model=[p.model for p in parents if p.on_hub] or None,
        base_model_relation="merge" if any(p.on_hub for p in parents) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        license=licenses.pop() if len(licenses) == 1 else None,
        tags=["merge", "selfdev"],
    )
    return data.to_yaml().strip()


def _scores(rows: Sequence[TestRow], task: str) -> str:
    lines = ["| model | kind | questions | accuracy | 95 % interval | p against the seed |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for r in rows:
        p = "" if r.p_vs_seed is None else f"{r.p_vs_seed:.2g}"
        lines.append(
            f"| {r.name} | {r.kind} | {r.n} | {r.accuracy:.1%} | {r.low:.1%} to {r.high:.1%} | {p} |"
        )
    lead = rows[0].lead.capitalize() if rows else "Strict"
    note = f"{lead} answer extraction, Wilson interval, exact paired McNemar test"
    return (
        f"{note}; test questions of {task}.\n\n" + "\n".join(lines)
        if task
        else "\n".join([note + ".", "", *lines])
    )


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any in the text, which comes from a language model."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def _parents(parents: Sequence[Parent]) -> str:
    lines = ["| name in the program | model | revision | licence |", "| --- | --- | --- | --- |"]
    for p in parents:
        lines.append(f"| {p.name} | {p.model} | {p.revision or 'local'} | {p.license or 'not stated'} |")
    return "\n".join(lines)


def _reproduce(parents: Sequence[Parent], scope: str, dtype: str | None, random_seed: int) -> str:
    seed, *experts = parents
    words = ["selfdev", "merge", "program.py", "--seed", seed.model]
    for expert in experts:
        words += ["--expert", f"{expert.name}={expert.model}"]
    words += ["--scope", scope, "--random-seed", str(random_seed)]
    words += ["--show-dtype", "float32"] if dtype == "F32" else []
    command = shlex.join([*words, "--out", "merged"])
    made_with = ", ".join(f"{name} {version(name)}" for name in ("selfdev", "torch", "transformers"))
    shown = "as float32" if dtype == "F32" else "as stored"
    note = f"Made with {made_with}; random seed {random_seed}, tensors shown {shown}."
    return f"{note}\n\n{_fenced(command, 'sh')}"
