"""DPO of the factory on preference pairs, by TRL's `DPOTrainer` (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfdev.results import DpoStep
from selfdev.settings import Dpo


@dataclass(frozen=True, slots=True)
class TextPair:
    """A preference in words: what the factory should rather and rather not write."""

    chosen: str
    rejected: str


def train(
    start: Path, out: Path, prompt: str, pairs: Sequence[TextPair], settings: Dpo, seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[DpoStep, ...]:  # fmt: skip
    """Train the factory at `start` on the pairs and write the next one at `out`; returns the log.

    The reference is the factory it starts from. `progress` gets (steps done, steps in all).
    """
    os.environ["TQDM_DISABLE"] = "1"  # TRL's own bars; ours tells how far the training is
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(settings.threads)
    model, tokenizer = _load(start)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with warnings.catch_warnings():
        # TRL 1.16 still uses the name that transformers 5 has deprecated.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        trainer = _trainer(model, tokenizer, prompt, pairs, settings, seed, partial / "work", progress)
        trainer.train()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if settings.method == "lora":
        trained = trained.merge_and_unload()
    if settings.average < 1:
        _average(trained, start, settings.average)
    trained.to(_stored_dtype(start)).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(partial / "work", ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return tuple(
        DpoStep(int(row["step"]), row["loss"], row["rewards/margins"], row["rewards/accuracies"])
        for row in trainer.state.log_history
        if "rewards/margins" in row
    )


def _load(start: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(start, dtype="float32", local_files_only=True)
    return model, AutoTokenizer.from_pretrained(start, local_files_only=True)


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


def _trainer(
    model: Any, tokenizer: Any, prompt: str, pairs: Sequence[TextPair], settings: Dpo, seed: int, work: Path,
    progress: Callable[[int, int], None] | None,
) -> Any:  # fmt: skip
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from transformers import PrinterCallback
    from trl import DPOTrainer

    disable_progress_bar()
    rows = [{"prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    trainer = DPOTrainer(
        model=model,
        args=arguments(settings, seed, work),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_adapters(settings),
        callbacks=[_callback(progress)] if progress else None,
    )
    trainer.remove_callback(PrinterCallback)  # it would print every step
    return trainer


def arguments(settings: Dpo, seed: int, work: Path) -> Any:
    """TRL's arguments for these settings; RPO's likelihood term is TRL's `sft` loss (Pang et al. 2024)."""
    import torch
    from trl import DPOConfig

    on_cpu = not torch.cuda.is_available()
    with_sft = settings.sft_weight > 0
    return DPOConfig(
        output_dir=str(work),
        learning_rate=settings.learning_rate,
        beta=settings.beta,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        loss_type=["sigmoid", "sft"] if with_sft else ["sigmoid"],
        loss_weights=[1.0, settings.sft_weight] if with_sft else None,
        precompute_ref_log_probs=True,
        gradient_checkpointing=not on_cpu,
        bf16=not on_cpu,
        use_cpu=on_cpu,
        max_length=None,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed % 2**32,
        dataloader_pin_memory=False,
    )


def _adapters(settings: Dpo) -> Any:
    if settings.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _callback(progress: Callable[[int, int], None]) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Tells a plain function how far the training is."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            progress(state.global_step, state.max_steps)

    return Progress()
