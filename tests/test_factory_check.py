"""The look at a trained factory: against log-probabilities and a divergence worked out here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Family
from test_dpo import PAIRS, PROMPT, RULE, log_probability, run
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfdev.config.settings import Dpo
from selfdev.factory.check import look
from selfdev.records import Lessons, TextPair

HELD = (TextPair("3", "9 9"), TextPair("7 plus 1", "0"), TextPair("4 4", "3 3"), TextPair("1 1 1", "2"))
QUICK = Dpo(kl_programs=0, batch=3)


@pytest.fixture(scope="module")
def trained(family_fp32: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("look") / "iteration_2"
    run(family_fp32.seed, out, RULE.model_copy(update={"epochs": 3}))
    return out


def next_tokens(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the first token behind the prompt [32] and of the second behind each [32, 32]."""
    prompt = AutoTokenizer.from_pretrained(folder)(PROMPT).input_ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, token] for token in range(32)])).logits.double()
    return torch.log_softmax(logits[0, -2], -1), torch.log_softmax(logits[:, -1], -1)


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum(-1)


def test_held_out_pairs_are_ranked_by_their_log_ratios(family_fp32: Family, trained: Path) -> None:
    start = family_fp32.seed
    seen = look(trained, start, start, PROMPT, Lessons(PAIRS, HELD), QUICK, 0)
    ratios = [
        [
            log_probability(trained, text)[0] - log_probability(start, text)[0]
            for text in (p.chosen, p.rejected)
        ]
        for p in HELD
    ]
    right = sum(good > bad for good, bad in ratios)
    assert 0 < right < len(HELD)  # else the order of the pairs could be anything
    assert (seen.trained, seen.held_out, seen.right) == (2, 4, right)
    assert seen.accuracy == right / 4
    assert seen.low is not None
    assert seen.high is not None
    assert seen.low < seen.accuracy < seen.high
    assert (seen.programs, seen.kl, seen.kl_error) == (0, None, None)


def test_pairs_are_ranked_against_the_start_and_not_the_first(family_fp32: Family, trained: Path) -> None:
    itself = look(trained, trained, family_fp32.seed, PROMPT, Lessons(PAIRS, HELD), QUICK, 0)
    assert itself.right == 0  # no ratio is larger than another


def test_a_factory_is_at_no_distance_from_itself(family_fp32: Family) -> None:
    seed = family_fp32.seed
    seen = look(seed, seed, seed, PROMPT, Lessons((), longest=6), Dpo(kl_programs=5, batch=2), 0)
    assert (seen.programs, seen.held_out, seen.accuracy) == (5, 0, None)
    assert seen.kl == pytest.approx(0, abs=1e-5)
    assert seen.kl_error == pytest.approx(0, abs=1e-5)


def test_the_divergence_is_that_of_all_programs_of_two_tokens(family_fp32: Family, trained: Path) -> None:
    first = family_fp32.seed
    end = AutoTokenizer.from_pretrained(first).eos_token_id
    (p, p_second), (q, q_second) = next_tokens(trained), next_tokens(first)
    further = p.exp() * divergence(p_second, q_second)
    exact = float(divergence(p, q) + further.sum() - further[end])  # nothing follows the end
    settings = Dpo(kl_programs=1500, batch=100)
    seen = look(trained, first, first, PROMPT, Lessons((), longest=2), settings, 1)
    assert seen.kl is not None
    assert seen.kl_error is not None
    assert seen.kl == pytest.approx(exact, abs=4 * seen.kl_error)
    assert exact > 5 * seen.kl_error  # precise enough to tell it from nothing
    assert seen.programs == 1500


def test_the_same_seed_number_gives_the_same_look_and_leaves_the_random_numbers(
    family_fp32: Family, trained: Path
) -> None:
    settings, lessons = Dpo(kl_programs=4), Lessons(PAIRS, HELD, longest=5)
    torch.manual_seed(7)
    looks = [
        look(trained, family_fp32.seed, family_fp32.seed, PROMPT, lessons, settings, seed)
        for seed in (1, 1, 2)
    ]
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    assert looks[0] == looks[1]
    assert looks[0].kl != looks[2].kl
