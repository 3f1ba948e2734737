"""The lab's questions: arithmetic checked by evaluating, splits disjoint, enough of everything."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from selfdev.lab import questions as lab
from selfdev.tasks.tasks import extract

STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
DEV, TEST = 2000, 5000


@pytest.fixture(scope="module", params=lab.SKILLS)
def skill(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sample(skill: str) -> list[lab.LabQuestion]:
    rng = random.Random(f"sample {skill}")
    return [lab.make_question(skill, rng) for _ in range(300)]


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[lab.LabQuestion, ...]]:
    sizes = {"train": 3000, "dev": DEV, "test": TEST}
    return {split: lab.questions(split, n) for split, n in sizes.items()}


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+", text))


def test_there_are_enough_skills_and_wordings() -> None:
    wordings = [wording for own in lab.WORDINGS.values() for wording in own]
    assert len(lab.SKILLS) >= 6
    assert len(set(wordings)) == len(wordings) >= 40


def test_every_step_is_true_arithmetic(sample: list[lab.LabQuestion]) -> None:
    for question in sample:
        for line in question.solution.split("\n")[:-1]:
            match = STEP.fullmatch(line)
            assert match, question.solution
            left, operator, right, result = match.groups()
            a, b, c = int(left), int(right), int(result)
            assert {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": a == b * c}[operator], line


def test_the_answer_is_the_last_result_in_gsm8ks_form(sample: list[lab.LabQuestion]) -> None:
    for question in sample:
        *steps, last = question.solution.split("\n")
        assert last == f"#### {question.answer}"
        assert steps[-1].split("=")[1] == question.answer
        assert extract(question.solution) == (question.answer, question.answer)


def test_every_step_starts_from_what_is_known(sample: list[lab.LabQuestion]) -> None:
    for question in sample:
        known = numbers(question.text)
        for line in question.solution.split("\n")[:-1]:
            operation, result = line.split("=")
            assert numbers(operation) <= known, question
            known.add(result)


def test_every_number_of_the_story_is_used(sample: list[lab.LabQuestion]) -> None:
    for question in sample:
        operations = [line.split("=")[0] for line in question.solution.split("\n")[:-1]]
        assert numbers(question.text) <= numbers(" ".join(operations))


def test_answers_are_positive_and_vary(sample: list[lab.LabQuestion]) -> None:
    answers = Counter(int(question.answer) for question in sample)
    assert min(answers) > 0
    assert answers.most_common(1)[0][1] < len(sample) / 4


def test_every_wording_is_filled(skill: str, sample: list[lab.LabQuestion]) -> None:
    assert not any("{" in q.text or "}" in q.text for q in sample)
    # Names and things taken out, what is left of the wordings' words must all occur.
    starts = {re.split(r"[{]", wording)[-1] for wording in lab.WORDINGS[skill]}
    ends = {q.text for q in sample}
    assert all(any(text.endswith(start.split("}")[-1]) for text in ends) for start in starts)


def test_number_of_steps_belongs_to_the_skill(sample: list[lab.LabQuestion]) -> None:
    assert len({q.solution.count("=") for q in sample}) == 1


def test_two_and_three_step_questions_exist() -> None:
    rng = random.Random(0)
    steps = {lab.make_question(skill, rng).solution.count("=") for skill in lab.SKILLS}
    assert {2, 3} <= steps


def test_splits_have_distinct_questions_in_full_number(
    splits: dict[str, tuple[lab.LabQuestion, ...]],
) -> None:
    for split, n in (("dev", DEV), ("test", TEST)):
        assert len({q.text for q in splits[split]}) == n


@pytest.mark.parametrize(("one", "other"), [("train", "dev"), ("train", "test"), ("dev", "test")])
def test_splits_are_disjoint_by_canonical_form(
    splits: dict[str, tuple[lab.LabQuestion, ...]], one: str, other: str
) -> None:
    assert not {q.canonical for q in splits[one]} & {q.canonical for q in splits[other]}


def test_every_question_is_in_the_split_of_its_form(
    splits: dict[str, tuple[lab.LabQuestion, ...]],
) -> None:
    assert all(lab.split_of(q.canonical) == split for split, asked in splits.items() for q in asked)


def test_the_form_knows_skill_and_numbers_and_not_the_story(sample: list[lab.LabQuestion]) -> None:
    for question in sample:
        assert question.canonical.split()[0] == question.skill
        assert numbers(question.canonical) == numbers(question.text)
    same_sum: dict[str, set[str]] = {}
    for question in sample:
        same_sum.setdefault(question.canonical, set()).add(question.solution)
    assert all(len(solutions) == 1 for solutions in same_sum.values())


def test_about_a_fifth_of_all_forms_is_test_and_a_tenth_dev() -> None:
    rng = random.Random(0)
    forms = {lab.make_question("three_step", rng).canonical for _ in range(4000)}
    shares = Counter(lab.split_of(form) for form in forms)
    # 70, 10 and 20 %, the first byte of a hash taken modulo ten; three standard deviations are 0.02.
    assert shares["train"] / len(forms) == pytest.approx(0.7, abs=0.025)
    assert shares["dev"] / len(forms) == pytest.approx(0.1, abs=0.02)
    assert shares["test"] / len(forms) == pytest.approx(0.2, abs=0.025)


def test_skills_are_drawn_evenly(splits: dict[str, tuple[lab.LabQuestion, ...]]) -> None:
    counts = Counter(q.skill for q in splits["test"])
    even = TEST / len(lab.SKILLS)
    assert set(counts) == set(lab.SKILLS)
    assert all(0.75 * even < n < 1.25 * even for n in counts.values())


def test_same_seed_same_questions_and_another_seed_others() -> None:
    first, again, other = lab.questions("dev", 20), lab.questions("dev", 20), lab.questions("dev", 20, seed=1)
    assert first == again
    assert first != other
    assert lab.questions("dev", 30)[:20] == first


def test_a_stream_keeps_to_its_split_and_skills() -> None:
    skills = lab.SKILLS[:2]
    drawn = lab.stream("train", random.Random(3), skills)
    asked = [next(drawn) for _ in range(100)]
    assert {q.skill for q in asked} == set(skills)
    assert {lab.split_of(q.canonical) for q in asked} == {"train"}
