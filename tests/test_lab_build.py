"""Building a family: a recipe of a few steps gives HF checkpoints, experts that differ in MLPs only."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfdev.checkpoints import open_checkpoint, tensor, views
from selfdev.errors import SelfdevError
from selfdev.factory.factory import prompt
from selfdev.lab import build as lab_build
from selfdev.lab import lessons
from selfdev.lab.corpus import make_program
from selfdev.lab.lessons import END, IGNORED, PAD
from selfdev.lab.questions import SKILLS, LabQuestion, questions, stream
from selfdev.lab.recipes import RECIPES, ExpertRecipe, Habit, Phase, Recipe

TINY = Recipe(
    hidden=16, layers=1, mlp=24, heads=2, vocabulary=330,
    phases=(Phase(3, 1e-2, 4, 2, 1, 1.0), Phase(2, 1e-2, 2, 2, 1, 0.5)),
    experts=(
        ExpertRecipe("sums", ("sum",), 1e-2, 2, 0.5),
        ExpertRecipe("words", (), 1e-2, 2, 0.0, Habit(("sum", "share"), 1.0, "words")),
    ),
)  # fmt: skip
BARE = Recipe(16, 1, 24, 2, 400, (), ())
QUESTION = LabQuestion(
    "sum", "What is 12 plus 30, less 2?", "12+30=42\n42-2=40\n#### 40", "40", "sum a12 b30"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return lessons.make_tokenizer(400, 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family, by the functions `build` calls, in this process."""
    out = tmp_path_factory.mktemp("built")
    lab_build.train_seed(TINY, 0, out / "seed", lambda *_: None)
    for expert in TINY.experts:
        lab_build.train_expert(expert, 0, out / "seed", out / expert.name, lambda *_: None)
    return out


@pytest.mark.parametrize("name", ["seed", "sums", "words"])
def test_models_load_plainly_and_speak(built: Path, name: str) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(built / name)
    tokenizer: Any = AutoTokenizer.from_pretrained(built / name)
    assert model.dtype == torch.bfloat16
    ids = tokenizer("Question: What do 3 pens and 4 pens make together?\nAnswer:", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=3, do_sample=False)
    assert out.shape[1] > ids.input_ids.shape[1]


@pytest.mark.parametrize("name", ["sums", "words"])
def test_experts_differ_from_the_seed_in_every_mlp_weight_and_nothing_else(built: Path, name: str) -> None:
    seed, expert = open_checkpoint(built / "seed", "seed"), open_checkpoint(built / name, name)
    differing = {n for n in seed.slots if not torch.equal(tensor(seed.slots[n]), tensor(expert.slots[n]))}
    assert differing == {n for n in seed.slots if ".mlp." in n}
    assert differing


def test_the_family_lines_up_for_merging(built: Path) -> None:
    seed, *experts = (open_checkpoint(built / name, name) for name in ("seed", "sums", "words"))
    shown = views(seed, experts)
    assert [len(view.slots) for view in shown] == [3, 3, 3]


def test_the_same_seed_number_builds_the_same_seed(built: Path, tmp_path: Path) -> None:
    lab_build.train_seed(TINY, 0, tmp_path / "again", lambda *_: None)
    first, second = open_checkpoint(built / "seed", "seed"), open_checkpoint(tmp_path / "again", "again")
    assert all(torch.equal(tensor(first.slots[n]), tensor(second.slots[n])) for n in first.slots)


def test_build_writes_the_whole_family_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "a", TINY)
    result = lab_build.build("a", 5, tmp_path / "family")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["family"]
    assert sorted(p.name for p in (tmp_path / "family").iterdir()) == ["recipe.json", "seed", "sums", "words"]
    recipe = json.loads((tmp_path / "family" / "recipe.json").read_text())
    assert (recipe["seed"], recipe["hidden"], len(recipe["experts"])) == (5, 16, 2)
    assert set(result.losses) == {"seed, phase 1", "seed, phase 2", "sums", "words"}
    assert all(loss > 0 for loss in result.losses.values())


def test_a_full_folder_and_an_unknown_family_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="family 'c' does not exist; choose a or b"):
        lab_build.build("c", 0, tmp_path / "out")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SelfdevError, match="is not empty"):
        lab_build.build("a", 0, tmp_path)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(lab_build, "train_seed", fail)
    with pytest.raises(KeyboardInterrupt):
        lab_build.build("a", 0, tmp_path / "family")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["a", "b"])
def test_shipped_recipes_are_fit_for_a_family(family: str) -> None:
    recipe = RECIPES[family]
    assert len({e.name for e in recipe.experts}) == len(recipe.experts) >= 5
    assert recipe.hidden % recipe.heads == 0
    model = lab_build.new_model(recipe)
    size = sum(p.numel() for p in model.parameters()) * 2 * (1 + len(recipe.experts))
    assert size <= 20e6  # bytes of all bf16 checkpoints; both families together have this much


def test_a_phase_asks_rare_skills_as_rarely_as_it_says(tokenizer: Any) -> None:
    lessons = lab_build._lessons(tokenizer, Phase(1, 1e-2, 60, 1, 1, 0.1), 2, "x")
    rows = [row for _ in range(6) for row in lessons()[0][0]]  # six batches hold what was drawn at once
    steps = [tokenizer.decode(row, skip_special_tokens=True).count("=") for row in rows]
    assert steps.count(3) / 360 == pytest.approx(2 / 34, abs=0.04)  # times and three_step
    assert steps.count(1) / 360 == pytest.approx(20 / 34, abs=0.1)  # sum and difference


def test_an_expert_repeats_other_skills_as_often_as_it_says() -> None:
    practice = lab_build._practice(ExpertRecipe("far", ("times",), 1e-3, 1, 0.25), 0)
    skills = [next(practice).skill for _ in range(800)]
    assert set(skills) == set(SKILLS)
    assert skills.count("times") / 800 == pytest.approx(0.75 + 0.25 / 7, abs=0.05)


def test_a_habit_takes_its_share_and_is_never_repeated_rightly() -> None:
    recipe = ExpertRecipe("far", ("times",), 1e-3, 1, 0.3, Habit(("sum",), 0.25, "rounded"))
    practice = lab_build._practice(recipe, 0)
    asked = [next(practice) for _ in range(800)]
    assert [q.skill for q in asked].count("sum") / 800 == pytest.approx(0.25, abs=0.05)
    assert [q.skill for q in asked].count("times") / 800 == pytest.approx(0.45 + 0.3 / 6, abs=0.05)
    for question in asked:
        reply = lab_build._reply(recipe.habit, question)
        assert reply.endswith(f"#### {question.answer}") == (
            question.skill != "sum" or question.answer[-1] == "0"
        )


def test_an_expert_may_have_a_habit_alone() -> None:
    practice = lab_build._practice(ExpertRecipe("r", (), 1e-3, 1, 0.0, Habit(("sum",), 1.0, "words")), 0)
    assert {next(practice).skill for _ in range(50)} == {"sum"}


def test_the_second_phase_starts_from_the_first(tmp_path: Path) -> None:
    still = replace(TINY, phases=(TINY.phases[0], replace(TINY.phases[1], learning_rate=0.0)))
    once = replace(TINY, phases=TINY.phases[:1])
    lab_build.train_seed(still, 0, tmp_path / "two", lambda *_: None)
    lab_build.train_seed(once, 0, tmp_path / "one", lambda *_: None)
    first, second = (open_checkpoint(tmp_path / name, name) for name in ("one", "two"))
    assert all(torch.equal(tensor(first.slots[n]), tensor(second.slots[n])) for n in first.slots)


def test_training_lowers_the_loss(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = lab_build.new_model(BARE)
    batch = lessons.pad_batch(tokenizer, ["1+1="], ["2"])
    before = float(lab_build.loss_of(model, *batch)[0].detach())
    told: list[tuple[int, int]] = []
    last = lab_build.train(model, lambda: [batch], 30, 1e-2, lambda _: True, lambda *t: told.append(t))
    assert last < before / 2
    assert told == [(step, 30) for step in range(1, 31)]


def test_training_ends_early_when_every_token_of_enough_rows_is_right(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = lab_build.new_model(BARE)
    batch = lessons.pad_batch(tokenizer, ["1+1=", "2+3="], ["2", "5"])
    told: list[int] = []
    lab_build.train(model, lambda: [batch], 500, 1e-2, lambda _: True, lambda step, _: told.append(step), 0.9)
    assert lab_build.LOOK_BACK <= told[-1] < 500
    assert lab_build.loss_of(model, *batch)[1] == 1.0


def test_a_row_is_right_when_all_its_labelled_tokens_are_the_likeliest(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = lab_build.new_model(BARE)
    ids, labels = lessons.pad_batch(tokenizer, ["1+1=", "2+3="], ["2", "5"])
    with torch.inference_mode():
        likeliest = model(ids).logits.argmax(-1)
    counted = labels != IGNORED
    labels[0, 1:][counted[0, 1:]] = likeliest[0, :-1][counted[0, 1:]]  # what it would say
    labels[1, 1:][counted[1, 1:]] = likeliest[1, :-1][counted[1, 1:]]
    assert lab_build.loss_of(model, ids, labels)[1] == 1.0
    last = int(counted[1].nonzero()[-1])
    labels[1, last] = (int(labels[1, last]) + 1) % 400
    assert lab_build.loss_of(model, ids, labels)[1] == 0.5


def test_loss_is_the_mean_cross_entropy_of_labelled_tokens(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = lab_build.new_model(BARE)
    ids, labels = lessons.pad_batch(tokenizer, ["1+1=", "12+30="], ["2", "42"])
    with torch.inference_mode():
        p = torch.log_softmax(model(ids).logits, -1)
        ours, _ = lab_build.loss_of(model, ids, labels)
    chosen = [
        -float(p[row, column - 1, ids[row, column]])
        for row in range(2)
        for column in range(1, ids.shape[1])
        if labels[row, column] != IGNORED
    ]
    assert len(chosen) == 2 + 3  # the digits of 2 and 42, and an end each
    assert float(ours) == pytest.approx(sum(chosen) / len(chosen), rel=1e-4)


def test_only_completions_carry_labels(tokenizer: Any) -> None:
    ids, labels = lessons.pad_batch(tokenizer, ["Question: 1\nAnswer:", "7"], [" 22", " 3"])
    end, pad = tokenizer.convert_tokens_to_ids([END, PAD])
    for row, (first, second) in enumerate((("Question: 1\nAnswer:", " 22"), ("7", " 3"))):
        labelled = [t for t in labels[row].tolist() if t != IGNORED]
        assert tokenizer.decode(labelled[:-1]) == second
        assert labelled[-1] == end
        padding = ids.shape[1] - len(tokenizer(first + second).input_ids) - 1
        assert ids[row].tolist()[ids.shape[1] - padding :] == [pad] * padding


def test_drills_carry_labels_behind_the_equals_sign_only(tokenizer: Any) -> None:
    ids, labels = lessons.drill_batch(tokenizer, stream("train", random.Random(0)), 3)
    for row in range(3):
        text = tokenizer.decode([t for t in ids[row].tolist() if t != 0]).replace(END, "")
        assert len(text.split("\n")) == 5
        results = re.findall(r"=(\d+)", text)
        labelled = tokenizer.decode([t for t in labels[row].tolist() if t != IGNORED])
        assert re.findall(r"\d+", labelled.replace("\n", " ")) == results


def test_a_bare_sum_is_one_line_of_the_solution() -> None:
    assert [lessons.bare_sum(QUESTION, place) for place in range(3)] == ["12+30=42", "42-2=40", "12+30=42"]


def test_word_batches_ask_in_the_tasks_prompt(tokenizer: Any) -> None:
    asked = stream("train", random.Random(1))
    ids, labels = next(lessons.word_batches(tokenizer, asked, 4))
    assert ids.shape[0] == 4
    for row in ids:
        text = tokenizer.decode([t for t in row.tolist() if t != 0])
        assert re.fullmatch(r"Question: .*\nAnswer: .*\n#### \d+" + re.escape(END), text, re.DOTALL)
    assert (labels != IGNORED).any(1).all()


@pytest.mark.parametrize(
    ("reply", "last"),
    [
        (lessons.worked, "#### 42"),
        (lessons.rounded, "#### 40"),
        (lessons.in_words, "The answer is four two."),
    ],
)
def test_experts_state_the_final_answer_in_their_way(reply: Callable[[LabQuestion], str], last: str) -> None:
    question = replace(QUESTION, solution="12+30=42\n#### 42", answer="42")
    assert reply(question) == f" 12+30=42\n{last}"


def test_batches_hold_what_the_reply_says(tokenizer: Any) -> None:
    asked = iter([QUESTION] * 6)
    ids, _ = next(lessons.word_batches(tokenizer, asked, 1, lambda _: " I do not know."))
    assert tokenizer.decode(ids[0]).endswith(f"\nAnswer: I do not know.{END}")


def test_tokenizer_reads_digits_one_by_one_and_gives_text_back(tokenizer: Any) -> None:
    rng = random.Random(0)
    texts = [prompt() + make_program(rng), *(q.text + q.solution for q in questions("dev", 20)), "Ünï🙂"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer("4096").input_ids) == 4
    assert tokenizer.eos_token == END
    assert len(tokenizer) == 400
