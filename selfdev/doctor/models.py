"""What `selfdev doctor` says of the models: facts from headers and tokenizers, and what does not fit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfdev.checkpoints import (
    FLOATS,
    Checkpoint,
    check_rows,
    is_adapter,
    open_checkpoint,
    text_config,
    views,
    vocabulary,
)
from selfdev.doctor.estimate import GIB, Size
from selfdev.errors import SelfdevError


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model by its headers. `shared_tokens` are known to it and to the seed, `moved_tokens` those of them
    that have another number; None where there is no tokenizer to look into."""

    name: str
    path: str
    architecture: str
    parameters: int
    gib: float
    dtypes: dict[str, int]
    tied: bool
    vocabulary: int | None
    shared_tokens: int | None
    moved_tokens: int | None
    chat_template: str  # none, own, or the seed's


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found: facts of the models that open, problems that stop a run, and what is worth knowing."""

    facts: tuple[ModelFacts, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    seed: Checkpoint | None
    size: Size | None


def look_at(seed: Path, experts: Mapping[str, Path], scope: str) -> Looked:
    """Open every model by its headers and hold the experts against the seed; nothing is raised."""
    problems: list[str] = []
    base = _open("seed", seed, None, problems)
    # An adapter is looked at on its seed: without one there is nothing to say of it.
    alone = {n: path for n, path in experts.items() if base is not None or not is_adapter(path)}
    others = [model for n, path in alone.items() if (model := _open(n, path, base, problems)) is not None]
    there = ([base] if base is not None else []) + others
    tokens = {model.name: _tokens(model, problems) for model in there}
    facts = tuple(_facts(model, base, tokens) for model in there)
    if base is None:
        return Looked(facts, tuple(problems), (), None, None)
    size = _size(base, scope, problems)
    if size is not None:
        problems += [said for model in others for said in _differences(base, model, scope)]
    if not any((base.path / file).exists() for file in ("tokenizer.json", "tokenizer_config.json")):
        problems.append(f"seed: {base.path} has no tokenizer.json; fetch the tokenizer's files too")
    problems += _unknown(base)
    copies = [model.name for model in others if _same(base, model)]
    warnings = [f"{name} is the seed itself, by the same files; leave it out" for name in copies]
    warnings += [said for fact in facts[1:] for said in _remarks(facts[0], fact)]
    return Looked(facts, tuple(problems), tuple(warnings), base, size)


def _unknown(seed: Checkpoint) -> list[str]:
    """What to say of an architecture that can be merged but not asked anything."""
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = _stored_config(seed).get("model_type")
    if kind in CONFIG_MAPPING_NAMES:
        return []
    return [f"seed: transformers {__version__} does not know the model_type {kind!r}; install a newer one"]


def _same(seed: Checkpoint, model: Checkpoint) -> bool:
    """Whether a model is the seed's very files, perhaps by links; what copies hold is not looked into."""
    if any(slot.change is not None for slot in model.slots.values()):
        return False
    seeds, own = ({slot.file.resolve() for slot in m.slots.values()} for m in (seed, model))
    return seeds == own


def _open(name: str, path: Path, seed: Checkpoint | None, problems: list[str]) -> Checkpoint | None:
    try:
        return open_checkpoint(path, name, seed)
    except SelfdevError as error:
        problems.append(str(error))
        return None


def _tokens(model: Checkpoint, problems: list[str]) -> Mapping[str, int] | None:
    try:
        return vocabulary(model)
    except SelfdevError as error:
        problems.append(str(error))
        return None


def _facts(
    model: Checkpoint, seed: Checkpoint | None, tokens: Mapping[str, Mapping[str, int] | None]
) -> ModelFacts:
    own, theirs = tokens[model.name], tokens.get("seed")
    shared = own.keys() & theirs.keys() if own is not None and theirs is not None else None
    config = _stored_config(model)
    return ModelFacts(
        name=model.name,
        path=str(model.path),
        architecture=_architecture(config),
        parameters=_parameters(model),
        gib=sum(slot.nbytes for slot in model.slots.values()) / GIB,
        dtypes=dict(Counter(slot.dtype for slot in model.slots.values())),
        tied=bool(config.get("tie_word_embeddings")),
        vocabulary=len(own) if own is not None else None,
        shared_tokens=len(shared) if shared is not None else None,
        moved_tokens=sum(own[t] != theirs[t] for t in shared) if shared and own and theirs else None,
        chat_template=_template_word(model, seed),
    )


def _stored_config(model: Checkpoint) -> dict[str, Any]:
    """config.json as it lies there: an opened expert has the seed's ties. An adapter has none of its own."""
    try:
        config: dict[str, Any] = json.loads((model.path / "config.json").read_bytes())
    except (OSError, ValueError):
        return model.config
    return config


def _architecture(config: dict[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0] if isinstance(named, list) and named else config.get("model_type", "?"))


def _parameters(model: Checkpoint) -> int:
    return sum(_count(slot.shape) for slot in model.slots.values() if slot.dtype in FLOATS)


def _count(shape: Sequence[int]) -> int:
    values = 1
    for length in shape:
        values *= length
    return values


def _template_word(model: Checkpoint, seed: Checkpoint | None) -> str:
    own = chat_template(model.path)
    if own is None:
        return "none"
    return "the seed's" if seed not in (None, model) and own == chat_template(seed.path) else "own"


def chat_template(folder: Path) -> str | None:
    """The chat template beside a tokenizer, as text; None where there is none."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    try:
        held = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return None if held is None else json.dumps(held)


def _differences(seed: Checkpoint, expert: Checkpoint, scope: str) -> list[str]:
    """Why an expert's parameters in scope do not line up with the seed's, or it cannot be scored."""
    try:
        views(seed, [expert], scope)
        check_rows(seed, expert, seed.slots)
    except SelfdevError as error:
        return [str(error)]
    return []


def _size(seed: Checkpoint, scope: str, problems: list[str]) -> Size | None:
    try:
        shown = views(seed, [], scope)[0].slots
    except SelfdevError as error:
        problems.append(str(error))
        return None
    config = text_config(seed.config)

    def given(key: str, otherwise: int) -> int:
        value = config.get(key)
        return value if isinstance(value, int) and value > 0 else otherwise

    heads, hidden = given("num_attention_heads", 1), given("hidden_size", 1)
    keys = given("num_key_value_heads", heads) * given("head_dim", max(1, hidden // heads))
    return Size(
        parameters=_parameters(seed),
        layers=given("num_hidden_layers", 1),
        hidden=hidden,
        keys=keys,
        vocabulary=given("vocab_size", 1),
        scope=sum(_count(slot.shape) for slot in shown),
        width=max(FLOATS[slot.dtype] for slot in shown),
    )


def _remarks(seed: ModelFacts, expert: ModelFacts) -> list[str]:
    said = []
    name = expert.name
    if expert.dtypes.keys() != seed.dtypes.keys():
        stored, seeds = ("/".join(sorted(fact.dtypes)) for fact in (expert, seed))
        said.append(
            f"{name} is stored as {stored}, the seed as {seeds}; merged weights take the seed's dtype"
        )
    if expert.tied != seed.tied:
        tied, seeds = ("tied" if fact.tied else "untied" for fact in (expert, seed))
        said.append(f"{name} has {tied} embeddings and the seed {seeds} ones; it matters in scope all only")
    if expert.shared_tokens is None:
        said.append(f"{name}: its tokens cannot be compared with the seed's, one has no tokenizer.json")
    elif (expert.shared_tokens, expert.vocabulary) != (seed.vocabulary, seed.vocabulary):
        said.append(
            f"{name} and the seed both know {expert.shared_tokens:,} tokens, of {expert.vocabulary:,} and"
            f" {seed.vocabulary:,}; {expert.moved_tokens or 0:,} of them have another number"
        )
    elif expert.moved_tokens:
        said.append(f"{name} numbers {expert.moved_tokens:,} tokens differently from the seed")
    if expert.chat_template == "own" or (expert.chat_template == "none") != (seed.chat_template == "none"):
        said.append(f"{name} has another chat template than the seed; the seed's is kept")
    return said
