"""Opens models: whole checkpoints and PEFT adapters; relatives of a seed are brought into its order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from selfdev.checkpoints.headers import read_json, read_slots, text_config, weight_files
from selfdev.checkpoints.lora import is_adapter, open_adapter
from selfdev.checkpoints.slots import TIED, Checkpoint
from selfdev.checkpoints.vocabulary import EMBEDDING, by_token
from selfdev.errors import SelfdevError

# What must be the same in both configs, most telling first; a key that either lacks says nothing.
SAME = ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")


def open_checkpoint(path: Path | str, name: str, seed: Checkpoint | None = None) -> Checkpoint:
    """Open a folder with config.json and safetensors (one file or sharded), reading headers only.

    With the `seed` it is opened as one of its experts: it may be a PEFT adapter, must have the seed's
    architecture and size, and its embeddings come in the seed's order of tokens. Raises SelfdevError when a
    file is missing, damaged or of a kind that is not read.
    """
    folder = Path(path)
    try:
        found = _open(folder, name, seed)
    except OSError as error:
        raise SelfdevError(
            f"{name}: {_short(folder)} cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    return found if seed is None else by_token(seed, _tied_alike(seed, found))


def _open(folder: Path, name: str, seed: Checkpoint | None) -> Checkpoint:
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise SelfdevError(
            f"{name}: {folder} {what}; a model is the folder of a Hugging Face checkpoint"
            " (fetch one with `hf download ID --local-dir DIR`)"
        )
    folder = folder.absolute()  # the sandbox's server works elsewhere; links stay, the hub's tell the model
    if is_adapter(folder):
        return open_adapter(folder, name, seed)
    config = read_json(folder / "config.json", name)
    if not isinstance(config.get("text_config") or {}, dict):
        raise SelfdevError(
            f"{name}: text_config in {folder / 'config.json'} is {config['text_config']!r} and must be a JSON"
            " object; fetch the checkpoint again"
        )
    if "quantization_config" in config:
        raise SelfdevError(
            f"{name}: {folder} is quantized; only unquantized weights merge, give that checkpoint"
        )
    if seed is not None:
        _check_related(seed, name, config)
    files = weight_files(folder, name)
    slots = {slot.name: slot for file, held in files for slot in read_slots(file, name, held)}
    return Checkpoint(name, folder, slots, config)


def _check_related(seed: Checkpoint, name: str, config: dict[str, Any]) -> None:
    """Refuse another architecture or size by config.json alone."""
    ours, theirs = text_config(seed.config), text_config(config)
    for key in SAME:
        if key in ours and key in theirs and ours[key] != theirs[key]:
            raise SelfdevError(
                f"{name}: {key} is {theirs[key]!r} and {seed.name}'s is {ours[key]!r}; all models must be of"
                " one architecture and size, give relatives of one model"
            )


def _tied_alike(seed: Checkpoint, model: Checkpoint) -> Checkpoint:
    """Give a model with a tied embedding the copy that an untied seed has; `views` refuses the reverse."""
    ours = bool(seed.config.get("tie_word_embeddings", TIED not in seed.slots))
    theirs = bool(model.config.get("tie_word_embeddings", ours))
    if ours == theirs:
        return replace(model, config=model.config | {"tie_word_embeddings": ours})
    source = next((s for n, s in model.slots.items() if EMBEDDING.search(n) and n != TIED), None)
    if ours or source is None:
        return model
    slots = model.slots | {TIED: replace(source, name=TIED)}
    return replace(model, slots=slots, config=model.config | {"tie_word_embeddings": False})


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-50:]}"
