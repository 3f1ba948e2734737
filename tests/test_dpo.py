"""DPO: TRL's logged loss against the formula computed here, and what the training leaves behind."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Family
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfdev.checkpoints import open_checkpoint
from selfdev.config.settings import Dpo
from selfdev.factory.dpo import train
from selfdev.factory.objectives import arguments
from selfdev.records import Lessons, TextPair
from selfdev.results import DpoStep

PROMPT = "1 plus 2 is "  # ends at a token: prompt and reply are read in one piece
PAIRS = (TextPair("3 #### 3", "4 4 4"), TextPair("5", "6 times 7"))
BETA = 0.5
RULE = Dpo(method="full", learning_rate=0.02, beta=BETA, epochs=1, batch=2)


def run(
    start: Path, out: Path, settings: Dpo, seed: int = 0, pairs: tuple[TextPair, ...] = PAIRS
) -> tuple[DpoStep, ...]:
    return train(start, out, PROMPT, Lessons(pairs), settings, seed)


def token_log_probabilities(folder: Path, completion: str, temperature: float = 1.0) -> list[float]:
    """Log-probability of each token of a completion and of its end token, behind the prompt."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer(PROMPT).input_ids
    reply = [*tokenizer(completion).input_ids, tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + reply])).logits[0]
    probabilities = torch.log_softmax(logits.double() / temperature, -1)
    places = range(len(prompt) - 1, len(prompt) - 1 + len(reply))
    return [float(probabilities[i, t]) for i, t in zip(places, reply, strict=True)]


def log_probability(folder: Path, completion: str) -> tuple[float, int]:
    """Log-probability of a completion and its end token behind the prompt, and its number of tokens."""
    tokens = token_log_probabilities(folder, completion)
    return sum(tokens), len(tokens)


@pytest.fixture(scope="module")
def one_step(
    family_fp32: Family, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[DpoStep, ...]]:
    """A factory after one optimiser step on both pairs, and the log."""
    out = tmp_path_factory.mktemp("dpo") / "iteration_2"
    return out, run(family_fp32.seed, out, RULE)


def test_loss_at_the_reference_is_log_two(one_step: tuple[Path, tuple[DpoStep, ...]]) -> None:
    (step,) = one_step[1]
    assert step.step == 1
    assert step.loss == pytest.approx(math.log(2), abs=1e-5)
    assert step.margin == pytest.approx(0, abs=1e-6)


def test_second_loss_is_the_formula(
    one_step: tuple[Path, tuple[DpoStep, ...]], family_fp32: Family, tmp_path: Path
) -> None:
    # Both runs take the same first step, so the second loss is the first run's model against the start.
    second = run(family_fp32.seed, tmp_path / "two", RULE.model_copy(update={"epochs": 2}))[1]
    margins = []
    for pair in PAIRS:
        (chosen, _), (rejected, _) = (log_probability(one_step[0], t) for t in (pair.chosen, pair.rejected))
        (before, _), (other, _) = (log_probability(family_fp32.seed, t) for t in (pair.chosen, pair.rejected))
        margins.append(BETA * ((chosen - before) - (rejected - other)))
    losses = [-math.log(1 / (1 + math.exp(-margin))) for margin in margins]
    assert abs(sum(margins)) > 0.05  # the step was large enough to see
    assert second.loss == pytest.approx(sum(losses) / 2, abs=2e-4)
    assert second.margin == pytest.approx(sum(margins) / 2, abs=2e-4)
    assert second.accuracy == sum(margin > 0 for margin in margins) / 2


def test_training_widens_the_margin(family_fp32: Family, tmp_path: Path) -> None:
    steps = run(family_fp32.seed, tmp_path / "out", RULE.model_copy(update={"epochs": 6}))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].margin is not None
    assert steps[-1].margin > 0.5
    assert steps[-1].loss < math.log(2)
    assert steps[-1].accuracy == 1.0


def test_likelihood_of_the_chosen_joins_the_loss(family_fp32: Family, tmp_path: Path) -> None:
    weighted = RULE.model_copy(update={"sft_weight": 0.25})
    (step,) = run(family_fp32.seed, tmp_path / "out", weighted)
    parts = [log_probability(family_fp32.seed, pair.chosen) for pair in PAIRS]
    likelihood = -sum(p for p, _ in parts) / sum(n for _, n in parts)  # the mean over all chosen tokens
    assert step.loss == pytest.approx(math.log(2) + 0.25 * likelihood, abs=1e-4)


def test_batch_and_epochs_give_the_number_of_steps(family_fp32: Family, tmp_path: Path) -> None:
    single = RULE.model_copy(update={"batch": 1, "epochs": 2})
    assert [s.step for s in run(family_fp32.seed, tmp_path / "out", single)] == [1, 2, 3, 4]


def test_trained_factory_is_a_checkpoint_like_its_start(family: Family, tmp_path: Path) -> None:
    out = tmp_path / "iteration_2"
    run(family.seed, out, RULE)
    start, trained = open_checkpoint(family.seed, "start"), open_checkpoint(out, "trained")
    assert {n: (s.dtype, s.shape) for n, s in trained.slots.items()} == {
        n: (s.dtype, s.shape) for n, s in start.slots.items()
    }
    assert AutoTokenizer.from_pretrained(out)(PROMPT).input_ids == [4, 13, 5, 15]
    old, new = (load_file(path / "model.safetensors") for path in (family.seed, out))
    assert any(not torch.equal(old[name], new[name]) for name in old)
    assert [path.name for path in tmp_path.iterdir()] == ["iteration_2"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def test_the_next_factory_may_be_an_average_with_its_start(family_fp32: Family, tmp_path: Path) -> None:
    run(family_fp32.seed, tmp_path / "whole", RULE)
    run(family_fp32.seed, tmp_path / "part", RULE.model_copy(update={"average": 0.25}))
    before, whole, part = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (family_fp32.seed, tmp_path / "whole", tmp_path / "part")
    )
    assert any(not torch.equal(before[name], whole[name]) for name in before)
    for name, start in before.items():
        torch.testing.assert_close(part[name], 0.75 * start + 0.25 * whole[name])


def test_same_seed_number_gives_the_same_factory(
    one_step: tuple[Path, tuple[DpoStep, ...]], family_fp32: Family, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    assert run(family_fp32.seed, out, RULE) == one_step[1]
    first, second = weights(one_step[0]), weights(out)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_torn_training_is_started_again(family: Family, tmp_path: Path) -> None:
    out = tmp_path / "iteration_2"
    torn = tmp_path / ".iteration_2.partial"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half of it")
    shutil.copytree(family.seed, out)  # finished, but never logged in the archive
    run(family.seed, out, RULE)
    assert not torn.exists()
    assert not torch.equal(*(weights(p)["model.embed_tokens.weight"] for p in (family.seed, out)))


def test_adapters_change_linear_layers_only(family_fp32: Family, tmp_path: Path) -> None:
    lora = Dpo(method="lora", lora_rank=4, lora_alpha=8.0, learning_rate=0.05, beta=BETA, epochs=2, batch=2)
    run(family_fp32.seed, tmp_path / "out", lora)
    old, new = weights(family_fp32.seed), weights(tmp_path / "out")
    assert old.keys() == new.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {name for name in old if "_proj" in name}
    name = "model.layers.1.mlp.down_proj.weight"
    assert int(torch.linalg.matrix_rank((new[name] - old[name]).double(), atol=1e-5)) <= 4


def test_progress_counts_steps(family: Family, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    two = RULE.model_copy(update={"epochs": 2})
    train(
        family.seed,
        tmp_path / "out",
        PROMPT,
        Lessons(PAIRS),
        two,
        0,
        progress=lambda *step: told.append(step),
    )
    assert told == [(1, 2), (2, 2)]


def test_arguments_hold_the_settings(tmp_path: Path) -> None:
    args = arguments(Dpo(beta=0.3, learning_rate=1e-4, epochs=3, batch=5, sft_weight=0.0), 7, "cpu", tmp_path)
    assert (args.beta, args.learning_rate, args.num_train_epochs) == (0.3, 1e-4, 3)
    assert (args.per_device_train_batch_size, args.seed) == (5, 7)
    assert args.loss_type == ["sigmoid"]
    assert args.max_length is None  # a longer program must not lose its end
