"""Hugging Face checkpoints on disk: opened by their headers, weights mapped on use, results written whole.

Nothing here unpickles or runs anything from a checkpoint: safetensors and JSON are all that is read.
"""

from selfdev.checkpoints.headers import INDEX, SINGLE, text_config
from selfdev.checkpoints.lora import is_adapter
from selfdev.checkpoints.reading import open_checkpoint
from selfdev.checkpoints.scratch import fill, lay_out
from selfdev.checkpoints.slots import FLOATS, Checkpoint, LowRank, ModelView, Rows, TensorSlot, tensor
from selfdev.checkpoints.viewing import SCOPES, check_finite, views
from selfdev.checkpoints.vocabulary import check_rows, shared_tokens, vocabulary
from selfdev.checkpoints.writing import Draft, check_free, check_shard_size, drafted, save_merged

__all__ = [
    "FLOATS",
    "INDEX",
    "SCOPES",
    "SINGLE",
    "Checkpoint",
    "Draft",
    "LowRank",
    "ModelView",
    "Rows",
    "TensorSlot",
    "check_finite",
    "check_free",
    "check_rows",
    "check_shard_size",
    "drafted",
    "fill",
    "is_adapter",
    "lay_out",
    "open_checkpoint",
    "save_merged",
    "shared_tokens",
    "tensor",
    "text_config",
    "views",
    "vocabulary",
]
