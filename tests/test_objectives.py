"""Every objective: TRL's logged loss against its formula, worked out here from log-probabilities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Family
from test_dpo import BETA, PAIRS, PROMPT, RULE, log_probability, run, token_log_probabilities, weights

from selfdev.config.config import parse_config
from selfdev.config.settings import Dpo
from selfdev.errors import SelfdevError
from selfdev.factory.dpo import train
from selfdev.factory.grpo import grpo_arguments
from selfdev.factory.objectives import rows
from selfdev.records import Lessons, TextPair
from selfdev.results import DpoStep


def rule(**changes: object) -> Dpo:
    return Dpo.model_validate({**RULE.model_dump(), **changes})


def both_steps(start: Path, folder: Path, settings: Dpo) -> tuple[Path, tuple[DpoStep, ...]]:
    """The factory after one step, and the log of two: the second loss is that factory against the start."""
    run(start, folder / "one", settings)
    steps = run(start, folder / "two", settings.model_copy(update={"epochs": 2}))
    assert len(steps) == 2
    return folder / "one", steps


def ratios(start: Path, now: Path) -> list[tuple[float, float, int, int]]:
    """Per pair: log-ratios of chosen and rejected to the start, and their numbers of tokens."""
    found = []
    for pair in PAIRS:
        (good, n), (bad, m) = (log_probability(now, text) for text in (pair.chosen, pair.rejected))
        (before, _), (other, _) = (log_probability(start, text) for text in (pair.chosen, pair.rejected))
        found.append((good - before, bad - other, n, m))
    assert sum(abs(c) + abs(r) for c, r, *_ in found) > 0.1  # the step was large enough to see
    return found


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_ipo_pulls_the_mean_log_ratios_to_a_fixed_distance(family_fp32: Family, tmp_path: Path) -> None:
    now, (first, second) = both_steps(family_fp32.seed, tmp_path, rule(objective="ipo"))
    assert first.loss == pytest.approx((1 / (2 * BETA)) ** 2, abs=1e-4)
    losses = [(c / n - r / m - 1 / (2 * BETA)) ** 2 for c, r, n, m in ratios(family_fp32.seed, now)]
    assert second.loss == pytest.approx(mean(losses), abs=2e-4)


def test_rpo_is_dpo_with_the_likelihood_of_the_chosen(family_fp32: Family, tmp_path: Path) -> None:
    now, (first, second) = both_steps(family_fp32.seed, tmp_path, rule(objective="rpo", sft_weight=0.25))
    chosen = [log_probability(now, pair.chosen) for pair in PAIRS]
    likelihood = -sum(p for p, _ in chosen) / sum(n for _, n in chosen)
    losses = [-math.log(sigmoid(BETA * (c - r))) for c, r, *_ in ratios(family_fp32.seed, now)]
    assert second.loss == pytest.approx(mean(losses) + 0.25 * likelihood, abs=2e-4)
    assert first.margin == pytest.approx(0, abs=1e-6)
    assert run(family_fp32.seed, tmp_path / "dpo", rule(sft_weight=0.25)) == (first,)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence"])
def test_f_dpo_takes_the_derivative_of_its_divergence(
    family_fp32: Family, tmp_path: Path, divergence: str
) -> None:
    settings = rule(objective="f-dpo", divergence=divergence)
    now, (first, second) = both_steps(family_fp32.seed, tmp_path, settings)

    def derivative(ratio: float) -> float:
        t = math.exp(ratio)
        return 1 - 1 / t if divergence == "forward_kl" else math.log(2 * t / (1 + t))

    pairs = ratios(family_fp32.seed, now)
    losses = [-math.log(sigmoid(BETA * (derivative(c) - derivative(r)))) for c, r, *_ in pairs]
    assert first.loss == pytest.approx(math.log(2), abs=1e-5)
    assert second.loss == pytest.approx(mean(losses), abs=2e-4)
    assert abs(mean(losses) - mean([-math.log(sigmoid(BETA * (c - r))) for c, r, *_ in pairs])) > 1e-3


def test_kto_judges_single_programs_against_their_mean_ratio(family_fp32: Family, tmp_path: Path) -> None:
    now, (first, second) = both_steps(family_fp32.seed, tmp_path, rule(objective="kto"))
    pairs = ratios(family_fp32.seed, now)
    middle = max(0.0, mean([ratio for c, r, *_ in pairs for ratio in (c, r)]))
    good = [1 - sigmoid(BETA * (c - middle)) for c, *_ in pairs]
    bad = [1 - sigmoid(BETA * (middle - r)) for _, r, *_ in pairs]
    assert first.loss == pytest.approx(0.5, abs=1e-5)
    assert second.loss == pytest.approx(mean(good + bad), abs=2e-4)
    assert second.margin == pytest.approx(BETA * mean([c - r for c, r, *_ in pairs]), abs=2e-4)
    assert second.accuracy is None  # single programs rank no pairs


def test_kto_sees_a_good_and_a_bad_program_in_every_step() -> None:
    made = rows("p", Lessons(PAIRS), rule(objective="kto"))
    assert [(row["completion"], row["label"]) for row in made] == [
        (PAIRS[0].chosen, True),
        (PAIRS[0].rejected, False),
        (PAIRS[1].chosen, True),
        (PAIRS[1].rejected, False),
    ]


def test_sft_is_the_likelihood_of_each_chosen_program_once(family_fp32: Family, tmp_path: Path) -> None:
    alone = rule(objective="sft")
    pairs = (*PAIRS, TextPair(PAIRS[0].chosen, "9"))
    (step,) = run(family_fp32.seed, tmp_path / "out", alone, pairs=pairs)
    chosen = [log_probability(family_fp32.seed, pair.chosen) for pair in PAIRS]
    assert step.loss == pytest.approx(-sum(p for p, _ in chosen) / sum(n for _, n in chosen), abs=1e-4)
    assert (step.margin, step.accuracy) == (None, None)
    others = tuple(TextPair(pair.chosen, "0 0") for pair in pairs)
    run(family_fp32.seed, tmp_path / "others", alone, pairs=others)
    first, second = weights(tmp_path / "out"), weights(tmp_path / "others")
    assert all(torch.equal(first[name], second[name]) for name in first)


REWARDED = (("3 #### 3", 0.75), ("4 4 4", 0.25))
WARM = 1.25


def grpo(start: Path, out: Path, **changes: object) -> tuple[DpoStep, ...]:
    lessons = Lessons(PAIRS, (), REWARDED, WARM, 8)
    return train(start, out, PROMPT, lessons, rule(objective="grpo", **changes), 0)


def test_grpo_is_the_clipped_ratio_times_the_advantage(family_fp32: Family, tmp_path: Path) -> None:
    start = family_fp32.seed
    grpo(start, tmp_path / "one")
    first, second = grpo(start, tmp_path / "two", epochs=2)
    spread = 0.5 / math.sqrt(2)  # of 0.75 and 0.25, as a sample
    losses = []
    for text, reward in REWARDED:
        advantage = (reward - 0.5) / (spread + 1e-4)
        before, now = (token_log_probabilities(folder, text, WARM) for folder in (start, tmp_path / "one"))
        terms = []
        for old, new in zip(before, now, strict=True):
            ratio = math.exp(new - old)
            kept = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
            away = math.exp(old - new) - (old - new) - 1  # from the reference, which is the start
            terms.append(-kept + BETA * ratio * away)
        losses.append(mean(terms))
    assert first.loss == pytest.approx(0, abs=1e-6)  # the advantages of a whole group sum to nothing
    assert abs(second.loss) > 0.05
    assert second.loss == pytest.approx(mean(losses), abs=3e-4)
    assert (second.margin, second.accuracy) == (None, None)


def test_grpo_makes_what_was_rewarded_likelier(family_fp32: Family, tmp_path: Path) -> None:
    grpo(family_fp32.seed, tmp_path / "out", epochs=4, learning_rate=0.005)
    good, bad = (
        log_probability(tmp_path / "out", text)[0] - log_probability(family_fp32.seed, text)[0]
        for text, _ in REWARDED
    )
    assert good > 0.1
    assert bad < -0.1


def test_grpo_goes_through_the_whole_group_in_steps(family_fp32: Family, tmp_path: Path) -> None:
    five = (*REWARDED, ("5", 0.5), ("6 6", 0.0), ("7", 1.0))
    settings = rule(objective="grpo", batch=2, epochs=3)
    steps = train(family_fp32.seed, tmp_path / "out", PROMPT, Lessons(PAIRS, (), five, 1.0, 8), settings, 0)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]  # two steps of two, one program left over
    args = grpo_arguments(settings, 0, "cpu", tmp_path, 4, 2, Lessons((), (), (), 1.5, 8))
    assert (args.temperature, args.beta, args.num_generations) == (1.5, BETA, 4)


@pytest.mark.parametrize("objective", ["kto", "sft", "grpo"])
def test_adapters_serve_the_other_trainers(family_fp32: Family, tmp_path: Path, objective: str) -> None:
    lora = rule(objective=objective, method="lora", lora_rank=4, lora_alpha=8.0, learning_rate=0.05, epochs=2)
    lessons = Lessons(PAIRS, (), REWARDED, 1.0, 8)
    train(family_fp32.seed, tmp_path / "out", PROMPT, lessons, lora, 0)
    old, new = weights(family_fp32.seed), weights(tmp_path / "out")
    assert {name for name in old if not torch.equal(old[name], new[name])} == {n for n in old if "_proj" in n}


@pytest.mark.parametrize(
    ("dpo", "words"),
    [
        ({"objective": "rpo"}, "objective is rpo and sft_weight is 0.*give sft_weight"),
        ({"objective": "grpo", "restart": "seed"}, "objective is grpo and restart is seed.*set restart"),
        ({"objective": "grpo", "batch": 1}, "batch is 1 and grpo needs at least 2.*raise it"),
        ({"objective": "orpo"}, "objective"),
    ],
)
def test_settings_that_do_not_fit_the_objective_are_refused(dpo: dict[str, Any], words: str) -> None:
    values = {
        "name": "x",
        "models": {"seed": "s", "experts": {"e": "x"}},
        "task": {"name": "lab"},
        "dpo": dpo,
    }
    with pytest.raises(SelfdevError, match=words):
        parse_config(values, "here")
