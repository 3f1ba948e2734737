"""GRPO of the factory (Shao et al. 2024, arXiv 2402.03300) on the programs that the loop has scored already.

GRPO wants samples of the model that is trained, from one prompt, each with a reward. An iteration's programs
are just that: its factory wrote them, from the one prompt, at the iteration's temperature, and their dev
accuracies are the rewards (0 for one that failed by its own fault). So TRL's trainer is handed these instead
of writing others: nothing is run or scored beyond the loop's budget, and all that is rewarded is in the
archive. The whole iteration is one group; its advantages are spread over steps of `batch` programs, with the
ratio to the factory that wrote them clipped.

Two things are less than exact: texts are read back as tokens, which need not be those that were drawn, and a
program that a race stopped early has the accuracy on the questions it was asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfdev.config.settings import Dpo
from selfdev.records import Lessons


def make_grpo_trainer(
    model: Any, tokenizer: Any, prompt: str, lessons: Lessons, settings: Dpo, seed: int, device: str,
    work: Path,
) -> Any:  # fmt: skip
    """TRL's trainer with a rollout that hands out the rewarded programs."""
    from datasets import Dataset
    from trl import GRPOTrainer

    from selfdev.factory.objectives import adapters

    group = list(lessons.rewarded)
    random.Random(seed).shuffle(group)
    batch = min(settings.batch, len(group))
    group = group[: len(group) - len(group) % batch]  # whole steps only
    return GRPOTrainer(
        model=model,
        reward_funcs=_reward,
        args=grpo_arguments(settings, seed, device, work, len(group), batch, lessons),
        train_dataset=Dataset.from_list([{"prompt": prompt}]),
        processing_class=tokenizer,
        peft_config=adapters(settings),
        rollout_func=_rollout(tokenizer, prompt, group, lessons.longest),
    )


def grpo_arguments(
    settings: Dpo, seed: int, device: str, work: Path, group: int, batch: int, lessons: Lessons
) -> Any:
    """TRL's arguments: one group, cut into steps, gone through `epochs` times."""
    from trl import GRPOConfig

    from selfdev.factory.objectives import common

    return GRPOConfig(
        **common(settings, seed, device, work),
        beta=settings.beta,
        loss_type="grpo",
        num_generations=group,
        per_device_train_batch_size=batch,
        steps_per_generation=group // batch,
        num_iterations=settings.epochs,
        num_train_epochs=1,
        max_completion_length=lessons.longest,
        temperature=lessons.temperature,
    )


def _rollout(
    tokenizer: Any, prompt: str, group: list[tuple[str, float]], longest: int
) -> Callable[[list[str], Any], dict[str, Any]]:
    """What TRL calls for completions; a text that is as long as may be was cut off and has no end."""
    start = tokenizer(prompt).input_ids
    read = [tokenizer(prompt + text).input_ids[len(start) :] for text, _ in group]
    replies = [ids if len(ids) >= longest else [*ids, tokenizer.eos_token_id] for ids in read]

    def hand_out(prompts: list[str], trainer: Any) -> dict[str, Any]:  # noqa: ARG001
        return {
            "prompt_ids": [start] * len(prompts),
            "completion_ids": replies,
            "logprobs": None,
            "reward": [reward for _, reward in group],
        }

    return hand_out


def _reward(reward: list[float], **_: Any) -> list[float]:
    """The rewards that the rollout handed out."""
    return reward
