"""The line of seeds: who wins an iteration, when it is promoted, and what the next iteration then merges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import Family
from fakes import of_accuracy, small_config
from sample_result import result

from selfdev.checkpoints import save_merged, tensor
from selfdev.errors import SelfdevError
from selfdev.lineage import EVENT, Lineage, decision, promotions, winner_of
from selfdev.records import Outcome, Score, State
from selfdev.report.findings import promotion_words
from selfdev.report.report import render
from selfdev.results import Promotion
from selfdev.stats import paired_difference
from selfdev.store.archive import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


def tried(archive: Archive, iteration: int, *results: tuple[int | None, str | None]) -> None:
    """An iteration of programs with so many right answers, or none, and what they are a copy of."""
    before = len(archive.attempts())
    texts = ["x"] * len(results)
    archive.add_written("factory", iteration, [""] * len(texts), texts, [0] * len(texts))
    for ident, (correct, copy_of) in enumerate(results, before + 1):
        score = None if correct is None else of_accuracy(correct)
        archive.set_result(ident, Outcome(State.MERGED, copy_of=copy_of), score)


def asked(archive: Archive, name: str, right: int, n: int = 100) -> None:
    answers = tuple(i < right for i in range(n))
    archive.add_examined(name, "discovered", "finalist_dev", None, Score(answers, answers))


def note(archive: Archive, decided: Promotion) -> Promotion:
    archive.log(EVENT, **asdict(decided))
    return decided


def test_the_winner_is_the_best_by_dev_of_its_iteration_and_no_copy(archive: Archive) -> None:
    tried(archive, 1, (9, None), (12, None), (12, None), (15, "one"), (None, None))
    tried(archive, 2, (7, None), (6, None))
    winners = [winner_of(archive, t) for t in (1, 2, 3)]
    assert [(w.iteration, w.index) if w else None for w in winners] == [(1, 1), (2, 0), None]


def test_who_was_stopped_early_is_no_winner(archive: Archive) -> None:
    tried(archive, 1, (9, None), (3, None))
    archive.set_result(1, Outcome(State.MERGED), Score((True,) * 5, (True,) * 5))
    winner = winner_of(archive, 1)
    assert winner is not None
    assert winner.index == 1


def test_a_sure_gain_is_promoted_and_an_unsure_one_is_not(archive: Archive) -> None:
    asked(archive, "seed", 40)
    asked(archive, "program 1.1", 60)
    asked(archive, "program 1.2", 42)
    sure, unsure = decision(archive, 1, "program 1.1"), decision(archive, 1, "program 1.2")
    a, b = tuple(i < 60 for i in range(100)), tuple(i < 40 for i in range(100))
    assert (sure.low, sure.high) == paired_difference(a, b)
    assert (sure.promoted, sure.reason, sure.n) == (True, "", 100)
    assert (sure.seed_accuracy, sure.accuracy) == (0.4, 0.6)
    assert (unsure.promoted, unsure.reason) == (False, "the interval of its gain is not above zero")


def test_the_next_winner_is_measured_against_the_promoted_seed(archive: Archive) -> None:
    for name, right in (("seed", 40), ("program 1.1", 60), ("program 2.3", 62), ("program 3.0", 80)):
        asked(archive, name, right)
    note(archive, decision(archive, 1, "program 1.1"))
    second = note(archive, decision(archive, 2, "program 2.3"))
    third = note(archive, decision(archive, 3, "program 3.0"))
    assert (second.seed, second.promoted) == ("program 1.1", False)
    assert (third.seed, third.promoted, third.seed_accuracy) == ("program 1.1", True, 0.6)
    assert promotions(archive)[1:] == (second, third)


def test_without_a_winner_the_seed_stays(archive: Archive) -> None:
    decided = note(archive, decision(archive, 1, None))
    assert promotions(archive) == (decided,)
    assert (
        promotion_words(decided) == "Iteration 1: the seed stays, no program was scored on all dev questions."
    )


@pytest.fixture
def line(family: Family, archive: Archive, tmp_path: Path) -> Lineage:
    """A line in which the program 1.0, whose model is one expert, was promoted, and later ones were not."""
    seed, experts = family.open()
    made = Lineage(seed, tuple(experts), "mlp", None, tmp_path / "seeds", tmp_path, archive)
    model = {name: tensor(slot) for name, slot in experts[1].slots.items() if ".mlp." in name}
    save_merged(seed, model, made.place(1))
    asked(archive, "seed", 40)
    asked(archive, "program 1.0", 60)
    note(archive, decision(archive, 1, "program 1.0"))
    note(archive, decision(archive, 2, None))
    return made


def test_iterations_behind_a_promotion_merge_the_new_seed(line: Lineage) -> None:
    assert line.parents(0) is line.parents(1) is None
    second, third = line.parents(2), line.parents(3)
    assert second == third
    assert second is not None
    assert (second.number, second.seed.name) == (2, "seed")
    assert second.seed.path == line.folder / "iteration_2"
    name = next(name for name in second.seed.slots if ".mlp." in name)
    assert tensor(second.seed.slots[name]).equal(tensor(line.experts[1].slots[name]))


def test_the_earlier_seed_stands_behind_the_experts(line: Lineage) -> None:
    second = line.parents(2)
    assert second is not None
    names = [model.name for model in second.experts]
    assert names == [*(expert.name for expert in line.experts), "seed_1"]
    assert second.experts[-1] == replace(line.seed, name="seed_1")
    assert [view.name for view in second.probes] == ["seed", *names]


def test_names_of_earlier_seeds_are_not_for_experts() -> None:
    models = {"experts": {"seed_1": "one"}}
    assert small_config(models=models).promote == "none"
    with pytest.raises(SelfdevError, match=r"models\.experts\.seed_1 has a name that promote: best gives"):
        small_config(models=models, promote="best")


def test_the_report_shows_the_line() -> None:
    sure = Promotion(1, "seed", "program 1.7", True, "", 2000, 0.483, 0.552, 0.05, 0.09)
    unsure = Promotion(2, "program 1.7", "program 2.1", False, "too small", 2000, 0.552, 0.56, -0.01, 0.03)
    page = render(result(promotions=(sure, unsure)))
    for words in ("The line of seeds", "program 1.7", "+6.9", "+5.0 to +9.0", "the same: too small"):
        assert words in page
    assert "The line of seeds" not in render(result())
    assert promotion_words(sure) == (
        "Iteration 1: program 1.7 became the seed of the next (55.2 % after 48.3 %, 95 % interval of the gain"
        " +5.0 to +9.0 points, n = 2,000)."
    )
    assert "the seed stays, program 2.1 is not promoted: too small" in promotion_words(unsure)
