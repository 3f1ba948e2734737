"""What programs see: the parameters in scope of all models, in one order and lined up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from selfdev.checkpoints.slots import (
    BUFFERS,
    FLOATS,
    TIED,
    Checkpoint,
    ModelView,
    TensorSlot,
    finite,
    tensor,
)
from selfdev.checkpoints.vocabulary import check_rows
from selfdev.errors import SelfdevError

# Feed-forward layers: Llama, Mistral, Qwen, Gemma, Phi and most others say mlp; then Mixtral, InternLM,
# MPT, OPT.
SCOPES = {"mlp": r"\.(mlp|block_sparse_moe|feed_forward|ffn|fc1|fc2)\.", "all": ""}


def views(
    seed: Checkpoint, experts: Sequence[Checkpoint], scope: str = "mlp", dtype: str | None = None
) -> tuple[ModelView, ...]:
    """The seed's and the experts' parameters in scope ("mlp", "all" or a regular expression), seed first.

    Raises SelfdevError when names or shapes do not line up or nothing is in scope.
    """
    try:
        pattern = re.compile(SCOPES.get(scope, scope))
    except re.error as error:
        raise SelfdevError(
            f"scope {scope!r} is no regular expression ({error}); use mlp, all or a valid one"
        ) from None
    wanted = _in_scope(seed, pattern)
    if not wanted:
        example = next(iter(seed.slots), "none")
        raise SelfdevError(
            f"scope {scope!r} matches none of the seed's {len(seed.slots)} tensors ({example}, ...); widen it"
        )
    names = sorted(wanted, key=natural)
    for expert in experts:
        check_rows(seed, expert, names)
        _line_up(seed.name, wanted, expert.name, _in_scope(expert, pattern))
    return tuple(ModelView(m.name, tuple(m.slots[n] for n in names), dtype) for m in (seed, *experts))


def check_finite(models: Iterable[ModelView]) -> None:
    """Read every parameter in the views; SelfdevError names the first with NaN or infinite values."""
    for model in models:
        for slot in model.slots:
            if not finite(tensor(slot)):
                raise SelfdevError(
                    f"{model.name}: {slot.name} has NaN or infinite values; give an intact checkpoint"
                )


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _in_scope(model: Checkpoint, pattern: re.Pattern[str]) -> dict[str, TensorSlot]:
    tied = bool(model.config.get("tie_word_embeddings"))
    found = {n: s for n, s in model.slots.items() if pattern.search(n) and not (tied and n == TIED)}
    for slot in found.values():
        if slot.dtype not in FLOATS and slot.dtype not in BUFFERS:
            raise SelfdevError(
                f"{model.name}: {slot.name} is {slot.dtype}; only {', '.join(FLOATS)} merge, convert it first"
            )
    return {n: s for n, s in found.items() if s.dtype in FLOATS}


def _line_up(
    seed: str, wanted: Mapping[str, TensorSlot], expert: str, given: Mapping[str, TensorSlot]
) -> None:
    if TIED in given and TIED not in wanted:
        raise SelfdevError(
            f"{seed} ties {TIED} to its embedding and {expert} does not; leave embeddings out of the scope"
        )
    for name in sorted(wanted.keys() ^ given.keys(), key=natural):
        lacking, holding = (expert, seed) if name in wanted else (seed, expert)
        raise SelfdevError(
            f"{lacking} lacks {name}, which {holding} has; all models must be of one architecture and size"
        )
    for name, slot in wanted.items():
        if given[name].shape != slot.shape:
            raise SelfdevError(
                f"{name} has shape {list(given[name].shape)} in {expert} and {list(slot.shape)} in {seed};"
                " all models must be of one architecture and size"
            )
