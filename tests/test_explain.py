"""Programs made by hand, explained: what matters in them and what does not is known, and must be found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_bad_input import failing
from typer.testing import CliRunner
from writing_family import build
from writing_run import settings

from selfdev import api
from selfdev.cli.answer import to_json
from selfdev.cli.cli import app
from selfdev.config.config import dump
from selfdev.errors import SelfdevError
from selfdev.explain.explain import is_no_loss
from selfdev.explain.explanation import Effect, Explanation, difference_of, differences, verdict_of
from selfdev.gate import gate
from selfdev.records import Score
from selfdev.report.explain import render

# `good` alone makes the score; `bad` has no part in it, line 6 is dead, and so is the constant there.
KNOWN = """def merge_models(models, device):
    seed, good = models["seed"], models["good"]
    merged = {}
    for name in seed:
        vector = good[name] - seed[name]
        dead = vector * 7.5
        merged[name] = seed[name] + 1.0 * vector
    return merged
"""
SIMPLE = """def merge_models(models, device):
    seed, good = (models['seed'], models['good'])
    merged = {}
    for name in seed:
        vector = good[name] - seed[name]
        merged[name] = seed[name] + vector
    return merged
"""
GUARDED = """def merge_models(models, device):
    seed, expert = list(models.values())[:2]
    merged = {}
    for name in seed:
        vector = expert[name].float() - seed[name].float()
        merged[name] = seed[name] + vector / (vector.norm() + 1e-8)
    return merged
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def config(root: Path) -> Path:
    file = root / "mine.yaml"
    file.write_text(dump(settings(root, task={"first_block": 0})))
    return file


@pytest.fixture(scope="module")
def known(root: Path, config: Path) -> Explanation:
    """The program above, explained on the models."""
    file = root / "known.py"
    file.write_text(KNOWN)
    return api.explain(file, config, by_score=True, out=root / "simple.py")


@pytest.fixture(scope="module")
def ties() -> Explanation:
    """A program explained by its behaviour alone."""
    return api.explain("task_arithmetic", parameters={"WEIGHT": [0.5, 0.0, 0.25]})


def effect(found: Explanation, what: str) -> Effect:
    (one,) = (effect for effect in found.effects if effect.what == what)
    return one


def test_a_dead_statement_changes_nothing_and_the_others_do(known: Explanation) -> None:
    verdicts = {e.what: e.verdict for e in known.of("statement")}
    assert verdicts == {
        "seed, good = (models['seed'], models['good'])": "fails",
        "merged = {}": "fails",
        "for name in seed:": "fails",
        "vector = good[name] - seed[name]": "fails",
        "dead = vector * 7.5": "same behaviour",
        "merged[name] = seed[name] + 1.0 * vector": "fails",
        "return merged": "fails",
    }


def test_the_expert_that_makes_the_score_is_found(known: Explanation) -> None:
    assert effect(known, "without bad").verdict == "same behaviour"
    assert effect(known, "good alone").verdict == "same behaviour"
    lost = effect(known, "without good")
    assert lost.verdict == "lower"
    assert lost.moved == pytest.approx(1)
    assert known.score is not None
    assert lost.score is not None
    assert lost.difference is not None
    assert (known.questions, known.score.n, lost.score.n) == (20, 20, 20)
    assert known.score.accuracy == 1.0  # the questions' answers are those of `good`
    assert lost.score == known.seed_score
    assert lost.difference.points == pytest.approx(lost.score.accuracy - 1)
    assert lost.difference.low <= lost.difference.points <= lost.difference.high < 0


def test_a_constant_without_effect_is_found_and_one_with_effect_too(known: Explanation) -> None:
    assert effect(known, "7.5 → 0.0").verdict == "same behaviour"
    assert effect(known, "1.0 → 0.0").verdict == "lower"


def test_the_simplified_program_is_the_one_made_by_hand(known: Explanation, root: Path) -> None:
    assert known.simplified.code == SIMPLE
    assert (known.statements, known.simplified.statements) == (7, 6)
    assert (root / "simple.py").read_text() == (known.simplified_by_score or known.simplified).code
    gate.check(known.simplified.code)


def test_by_score_it_loses_no_more_than_was_allowed(known: Explanation) -> None:
    simple = known.simplified_by_score
    assert simple is not None
    assert simple.score is not None
    assert simple.difference is not None
    assert simple.statements <= known.simplified.statements
    assert simple.difference.points >= -0.01


def test_the_words_are_the_facts(known: Explanation) -> None:
    words = " ".join(known.words)
    assert "It is the seed plus a weighted sum of task vectors: +1 good, +0 bad." in words
    assert "It answers 100.0 % of 20 dev questions" in words
    assert "same behaviour: bad" in words
    assert "6 of 7 statements and does the same (same fingerprint and same weights)" in words
    assert "It is local" in words
    assert known.local


def test_only_dev_questions_are_asked(root: Path, known: Explanation) -> None:
    rows = (root / "questions.jsonl").read_text().splitlines()
    assert len(rows) == 60  # half of them test; 10 dev and 20 finalist_dev are all that is left
    assert known.questions == 20


def test_the_page_shows_every_part(known: Explanation) -> None:
    page = render(known)
    for words in ("dead = vector * 7.5", "Without each part", "Simplified by behaviour", "without good"):
        assert words in page
    assert json.loads(to_json(known))["effects"][0]["verdict"] == "fails"


def test_without_models_an_idle_expert_and_dead_branches_are_found(ties: Explanation) -> None:
    assert ties.questions == 0
    assert ties.score is None
    assert effect(ties, "without expert_2").verdict == "same behaviour"
    assert effect(ties, "without expert_1").verdict == "behaves differently"
    assert ties.weighted_sums[0].weights == pytest.approx(
        {"expert_1": 0.5, "expert_2": 0.0, "expert_3": 0.25}
    )
    assert ties.weighted_sums[0].rest < 1e-6
    assert "NORMALIZE" not in ties.simplified.code
    assert ties.local
    assert {one.distance for one in ties.per_probe} != {0.0}


def test_a_guard_against_nothing_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "guarded.py"
    file.write_text(GUARDED)
    found = api.explain(file)
    assert effect(found, "1e-08 → 0.0").verdict == "fails"
    assert "1e-08" in found.simplified.code


@pytest.mark.parametrize(
    ("right", "verdict"), [(50, "no measurable change"), (49, "no measurable change"), (20, "lower")]
)
def test_a_change_inside_its_interval_is_none(right: int, verdict: str) -> None:
    assert verdict_of(difference_of(answers(right), answers(50))) == verdict


def test_one_of_many_comparisons_may_be_chance() -> None:
    one = {"x": answers(43)}
    many = one | {str(i): answers(50) for i in range(30)}
    assert verdict_of(differences(one, answers(50))["x"]) == "lower"
    assert verdict_of(differences(many, answers(50))["x"]) == "lower, perhaps by chance"


def test_a_loss_beyond_the_margin_is_one() -> None:
    assert is_no_loss(difference_of(answers(50), answers(50)), 0.0)
    assert not is_no_loss(difference_of(answers(49), answers(50)), 0.01)
    assert is_no_loss(difference_of(answers(49), answers(50)), 0.02)


def answers(right: int) -> Score:
    bits = tuple(i < right for i in range(80))
    return Score(bits, bits)


def test_bad_input_ends_in_one_sentence(config: Path, tmp_path: Path) -> None:
    taken, crashing = tmp_path / "taken.py", tmp_path / "crashing.py"
    taken.write_text("")
    crashing.write_text("def merge_models(models, device):\n    return models['nobody']\n")
    cases = {
        ("nothing_like_it",): "neither a file nor built in",
        ("linear", "--out", str(taken)): "is there already; choose another file",
        ("linear", "--questions", "5"): "give --config",
        ("linear", "--by-score"): "give --config",
        ("linear", "--config", str(config), "--questions", "21"): "give a number from 1 to 20",
        ("linear", "--config", str(config), "--margin", "2"): "margin is 2 and must be from 0 to below 1",
        ("linear", "--param", "NOTHING=1"): "NOTHING is no parameter of this program",
        (str(tmp_path),): "is not a run folder",
        (str(crashing),): "ends in CRASHED on probes",
    }
    for words, said in cases.items():
        assert said in failing(["explain", *words]), words
    assert os.listdir(tmp_path) and taken.read_text() == ""  # noqa: PTH208, PT018


def test_wrong_usage_ends_with_two() -> None:
    assert CliRunner().invoke(app, ["explain", "linear", "--questions", "0"]).exit_code == 2


def test_a_config_is_refused_beside_a_run(config: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="is a run, which has its own config"):
        api.explain(tmp_path, config)
