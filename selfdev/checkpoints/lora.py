"""PEFT LoRA adapters as experts: a changed tensor is the seed's plus the adapter's, computed when read."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from os.path import exists
from pathlib import Path
from typing import Any

from selfdev.checkpoints.headers import INDEX, SINGLE, read_json, read_slots
from selfdev.checkpoints.slots import FLOATS, TIED, Checkpoint, LowRank, TensorSlot
from selfdev.checkpoints.vocabulary import EMBEDDING
from selfdev.errors import SelfdevError

ADAPTER = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MERGE_IT = "merge it into its base with peft's merge_and_unload, save_pretrained the result and give that"
PREFIX = "base_model.model."
_HALF = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.weight)?")
_OTHER_BASE = ("pissa", "olora", "corda", "loftq")  # initialisations that change the base's weights too


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no whole model beside it."""
    # Unlike pathlib's, this `exists` says no where a name is too long or a folder cannot be read.
    there = {file for file in (ADAPTER, SINGLE, INDEX) if exists(folder / file)}  # noqa: PTH110
    return there == {ADAPTER}


def open_adapter(folder: Path, name: str, seed: Checkpoint | None) -> Checkpoint:
    """The seed with an adapter on it; SelfdevError for a kind of adapter that is not plain LoRA."""
    if seed is None:
        raise SelfdevError(f"{name}: {folder} is a PEFT adapter, which only an expert can be; {MERGE_IT}")
    config = read_json(folder / ADAPTER, name)
    _check_kind(config, folder, name)
    _check_alphas(config, folder, name)
    if not (folder / WEIGHTS).exists():
        raise SelfdevError(
            f"{name}: {folder} has no {WEIGHTS}; load the adapter once where you trust it with"
            " PeftModel.from_pretrained and write it with save_pretrained"
        )
    slots = dict(seed.slots)
    halves: dict[tuple[str, bool], dict[str, TensorSlot]] = {}
    for slot in read_slots(folder / WEIGHTS, name, None):
        half = _HALF.fullmatch(slot.name)
        if half:
            halves.setdefault((half[1], bool(half[2])), {})[half[3]] = slot
        else:
            _replace_whole(slots, slot, name)
    for (module, embedding), pair in halves.items():
        _add(slots, module, pair, config, name, embedding)
    return Checkpoint(name, folder, slots, dict(seed.config))


def _check_kind(config: dict[str, Any], folder: Path, name: str) -> None:
    kind = config.get("peft_type")
    initial = str(config.get("init_lora_weights", True)).lower()
    reasons = {
        f"of type {kind}": kind != "LORA",
        "with DoRA": bool(config.get("use_dora")),
        "with biases of its own": bool(config.get("lora_bias")),
        "on repeated layers": bool(config.get("layer_replication")),
        f"initialised by {initial}": initial.startswith(_OTHER_BASE),
    }
    for reason, holds in reasons.items():
        if holds:
            raise SelfdevError(
                f"{name}: {folder} is an adapter {reason}; only plain LoRA is read, {MERGE_IT}"
            )


def _check_alphas(config: dict[str, Any], folder: Path, name: str) -> None:
    patterns = config.get("alpha_pattern") or {}
    problems = [] if _is_number(config.get("lora_alpha")) else [("lora_alpha", "must be a number")]
    if not isinstance(patterns, dict) or not all(_compiles(k) and _is_number(v) for k, v in patterns.items()):
        problems.append(("alpha_pattern", "must give regular expressions their numbers"))
    for key, rule in problems:
        raise SelfdevError(
            f"{name}: {key} in {folder / ADAPTER} is {config.get(key)!r} and {rule}; save the adapter again"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(_module_pattern(pattern))
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _module_pattern(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _replace_whole(slots: dict[str, TensorSlot], slot: TensorSlot, name: str) -> None:
    """A tensor that the adapter brings whole: an embedding with new tokens, a module trained in full."""
    target = _plain(slot.name)
    if target == TIED and TIED not in slots:
        return  # tied: the embedding comes too
    own = slots.get(target)
    if own is None or (own.shape != slot.shape and not EMBEDDING.search(target)):
        raise SelfdevError(
            f"{name}: the adapter changes {slot.name} {list(slot.shape)}, which has no place in the seed; it"
            " belongs to another model"
        )
    slots[target] = replace(slot, name=target)


def _add(
    slots: dict[str, TensorSlot], module: str, pair: dict[str, TensorSlot], config: dict[str, Any],
    name: str, embedding: bool,
) -> None:  # fmt: skip
    target = f"{_plain(module)}.weight"
    base, a, b = slots.get(target), pair.get("A"), pair.get("B")
    if base is None:
        raise SelfdevError(
            f"{name}: the adapter changes {target}, which the seed lacks; it belongs to another model, give"
            " one of the seed's"
        )
    if a is None or b is None:
        raise SelfdevError(f"{name}: the adapter has half of what it changes in {target}; save it again")
    transposed = embedding or bool(config.get("fan_in_fan_out"))
    shape = tuple(reversed(base.shape)) if transposed else base.shape
    fits = len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] > 0
    if not fits or shape != (b.shape[0], a.shape[1]) or not {base.dtype, a.dtype, b.dtype} <= FLOATS.keys():
        raise SelfdevError(
            f"{name}: the adapter changes {target} by {list(b.shape)} times {list(a.shape)} and the seed's is"
            f" {list(base.shape)} {base.dtype}; it belongs to another model"
        )
    scale = _scale(config, module.removeprefix(PREFIX), a.shape[0])
    slots[target] = replace(base, change=LowRank(a, b, scale, transposed))


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank) where rank-stabilised (Kalajdzievski, 2023, arXiv 2312.03732)."""
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    special = [value for key, value in patterns.items() if re.match(_module_pattern(key), module)]
    alpha = float([*special, config["lora_alpha"]][0])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _plain(name: str) -> str:
    return name.removeprefix(PREFIX).replace(".base_layer.", ".").replace(".modules_to_save.", ".")
