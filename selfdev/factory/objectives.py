"""What the factory's training minimises: TRL's trainer for each objective, with its rows and arguments.

dpo    Rafailov et al. 2023, arXiv 2305.18290: the paper's
rpo    the same and the chosen programs' likelihood, Pang et al. 2024, arXiv 2404.19733
ipo    a squared loss with a fixed goal, Azar et al. 2023, arXiv 2310.12036; TRL takes means over tokens
f-dpo  DPO under another divergence than the reverse KL, Wang et al. 2023, arXiv 2309.16240
kto    single programs, good or bad, Ethayarajh et al. 2024, arXiv 2402.01306
sft    the likelihood of the chosen programs alone, as in RAFT, Dong et al. 2023, arXiv 2304.06767
grpo   rewards within a group, `selfdev.factory.grpo`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfdev.config.settings import Dpo
from selfdev.errors import SelfdevError
from selfdev.factory.apart import cut_up, is_first, processes, together
from selfdev.records import Lessons


def make_trainer(
    model: Any, tokenizer: Any, prompt: str, lessons: Lessons, settings: Dpo, seed: int, device: str,
    work: Path,
) -> Any:  # fmt: skip
    """TRL's trainer for the objective of these settings, ready to train."""
    from trl import DPOTrainer, KTOTrainer, SFTTrainer

    from selfdev.factory.grpo import make_grpo_trainer

    if settings.objective == "grpo":
        return make_grpo_trainer(model, tokenizer, prompt, lessons, settings, seed, device, work)
    trainer = {"kto": KTOTrainer, "sft": SFTTrainer}.get(settings.objective, DPOTrainer)
    args = arguments(settings, seed, device, work)
    return trainer(
        model=model,
        args=args,
        train_dataset=_dataset(rows(prompt, lessons, settings), args, work),
        processing_class=tokenizer,
        peft_config=adapters(settings),
    )


def _dataset(lines: list[dict[str, Any]], args: Any, work: Path) -> Any:
    from datasets import Dataset, load_from_disk

    told = Dataset.from_list(lines)
    if not together():
        return told
    # TRL hands the reference's log probabilities from process to process in a file beside the rows.
    with args.main_process_first(local=False):
        if is_first():
            told.save_to_disk(work / "rows")
        return load_from_disk(work / "rows")


def rows(prompt: str, lessons: Lessons, settings: Dpo) -> list[dict[str, Any]]:
    """The lessons as TRL reads them: pairs, judged programs in turn good and bad, or chosen programs once."""
    if settings.objective == "sft":
        chosen = dict.fromkeys(pair.chosen for pair in lessons.pairs)
        return [{"prompt": prompt, "completion": text} for text in chosen]
    if settings.objective == "kto":
        judged = [
            (text, good) for p in lessons.pairs for text, good in ((p.chosen, True), (p.rejected, False))
        ]
        return [{"prompt": prompt, "completion": text, "label": good} for text, good in judged]
    return [{"prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in lessons.pairs]


def arguments(settings: Dpo, seed: int, device: str, work: Path) -> Any:
    """TRL's arguments for these settings."""
    from trl import DPOConfig, KTOConfig, SFTConfig

    at_once, steps = shares(settings, processes())
    shared = {**common(settings, seed, device, work), "num_train_epochs": settings.epochs, "max_length": None}
    shared["gradient_accumulation_steps"] = steps
    if settings.objective == "sft":
        return SFTConfig(**shared, per_device_train_batch_size=at_once)
    # With FSDP the model is only laid on the GPUs when the training begins: the reference is asked then.
    shared |= {"beta": settings.beta, "precompute_ref_log_probs": not cut_up()}
    if settings.objective == "kto":
        return KTOConfig(**shared, per_device_train_batch_size=2 * at_once)
    loss = "ipo" if settings.objective == "ipo" else "sigmoid"
    with_sft = settings.sft_weight > 0
    return DPOConfig(
        **shared,
        per_device_train_batch_size=at_once,
        loss_type=[loss, "sft"] if with_sft else [loss],
        loss_weights=[1.0, settings.sft_weight] if with_sft else None,
        f_divergence_type=settings.divergence if settings.objective == "f-dpo" else "reverse_kl",
    )


def shares(settings: Dpo, number: int) -> tuple[int, int]:
    """Pairs that each of `number` processes works on at once, and how often for one optimiser step.

    SelfdevError where the batch cannot be shared evenly.
    """
    at_once = settings.micro_batch or settings.batch // number
    if not at_once or settings.batch % (at_once * number):
        raise SelfdevError(
            f"dpo.batch is {settings.batch}, which {number} processes with dpo.micro_batch"
            f" {settings.micro_batch or 'not given'} cannot share evenly; make it a multiple of"
            f" {max(at_once, 1) * number}."
        )
    return at_once, settings.batch // (at_once * number)


def common(settings: Dpo, seed: int, device: str, work: Path) -> dict[str, Any]:
    """What every trainer is told alike."""
    on_cpu = device == "cpu"
    return {
        "output_dir": str(work),
        "learning_rate": settings.learning_rate,
        "gradient_checkpointing": not on_cpu,
        "bf16": not on_cpu,
        "use_cpu": on_cpu,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed % 2**32,
        "dataloader_pin_memory": False,
    }


def adapters(settings: Dpo) -> Any:
    """PEFT's description of the low-rank adapters; None where all weights are trained."""
    if settings.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
