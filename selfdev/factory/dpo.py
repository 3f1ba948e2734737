"""One training of the factory by TRL, from the folder of one to that of the next."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfdev.config.settings import Dpo
from selfdev.factory import objectives
from selfdev.factory.apart import is_first, together
from selfdev.records import Lessons
from selfdev.results import DpoStep


def train(
    start: Path, out: Path, prompt: str, lessons: Lessons, settings: Dpo, seed: int,
    device: str = "cpu", progress: Callable[[int, int], None] | None = None,
) -> tuple[DpoStep, ...]:  # fmt: skip
    """Train the factory at `start` on the lessons and write the next one at `out`; returns the log.

    The reference is the factory it starts from. `progress` gets (steps done, steps in all). `device` is
    "cpu", in float32, or "cuda", computing in bfloat16. Called by each of several processes that accelerate
    started, they train one factory together and the first one writes it.
    """
    os.environ["TQDM_DISABLE"] = "1"  # TRL's own bars; ours tells how far the training is
    import torch
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging

    disable_progress_bar()
    logging.disable_progress_bar()
    torch.set_num_threads(settings.threads)
    model, tokenizer = _load(start, _dtype(settings, device))
    partial = out.with_name(f".{out.name}.partial")
    if is_first():
        shutil.rmtree(partial, ignore_errors=True)
    with warnings.catch_warnings():
        # TRL 1.16 still uses the name that transformers 5 has deprecated.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        # What GRPO's programs come in by; a later TRL may do it otherwise.
        warnings.filterwarnings("ignore", message=".*'rollout_func'", category=UserWarning)
        trainer = objectives.make_trainer(
            model, tokenizer, prompt, lessons, settings, seed, device, partial / "work"
        )
        _attend(trainer, progress)
        trainer.train()
        trained = _whole(trainer, start, settings)
    if trained is not None:
        _store(trained, start, partial, settings)
        tokenizer.save_pretrained(partial)
        shutil.rmtree(partial / "work", ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        partial.replace(out)
    return tuple(
        DpoStep(int(row["step"]), row["loss"], row.get("rewards/margins"), row.get("rewards/accuracies"))
        for row in trainer.state.log_history
        if "loss" in row
    )


def _dtype(settings: Dpo, device: str) -> str:
    # Frozen weights need no more digits than they have; what is trained stays in float32.
    return "auto" if device == "cuda" and settings.method == "lora" else "float32"


def _load(start: Path, dtype: str = "float32") -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(start, dtype=dtype, local_files_only=True)
    return model, AutoTokenizer.from_pretrained(start, local_files_only=True)


def _whole(trainer: Any, start: Path, settings: Dpo) -> Any:
    """The trained model in one piece, with its adapters; None in processes that do not write it."""
    if not together():
        return trainer.accelerator.unwrap_model(trainer.model)
    # Cut over processes: each gives its part, the first one puts them into a model of its own.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not is_first():
        return None
    model, adapters = _load(start)[0], objectives.adapters(settings)
    if adapters is not None:
        from peft import get_peft_model

        model = get_peft_model(model, adapters)
    model.load_state_dict(weights)
    return model


def _store(trained: Any, start: Path, folder: Path, settings: Dpo) -> None:
    """Write the weights as those of `start` are stored, adapters merged in."""
    if settings.method == "lora":
        trained = trained.merge_and_unload()
    if settings.average < 1:
        _average(trained, start, settings.average)
    trained.to(_stored_dtype(start)).save_pretrained(folder)


def _average(trained: Any, start: Path, share: float) -> None:
    """Move the trained weights towards those of `start`: share x trained + (1 - share) x start."""
    import torch

    before = dict(_load(start)[0].named_parameters())
    with torch.no_grad():
        for name, weights in trained.named_parameters():
            weights.lerp_(before[name].to(weights), 1 - share)


def _stored_dtype(start: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(start, local_files_only=True).dtype or "float32"


def _attend(trainer: Any, progress: Callable[[int, int], None] | None) -> None:
    """Have the trainer tell `progress` of its steps rather than print every one."""
    from transformers import PrinterCallback, TrainerCallback

    trainer.remove_callback(PrinterCallback)
    if progress is None:
        return
    tell = progress

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Tells a plain function how far the training is."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            tell(state.global_step, state.max_steps)

    trainer.add_callback(Progress)
