"""The end of a run: tuned baselines, finalists, the test set opened once, the table and its notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeTrain, FakeWorkers, Killed, of_accuracy, silent, small_config

from selfdev import collect
from selfdev.besides import split_of, what_changed
from selfdev.checkpoints import Checkpoint
from selfdev.finish import (
    Candidate,
    final_examination,
    finalists,
    name_of,
    notes,
    test_table,
    tune_baselines,
    tuned,
)
from selfdev.library import load_program
from selfdev.loop import run_loop
from selfdev.records import Outcome, Score, State
from selfdev.results import Kind, TestRow
from selfdev.stats import mcnemar, wilson
from selfdev.store.archive import Archive

make_table = test_table
del test_table  # pytest would take it for a test

CONFIG = small_config()
MODELS = [Checkpoint(name, Path(name), {}, {}) for name in ("seed", "one", "two")]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


@pytest.fixture
def looped(archive: Archive, tmp_path: Path) -> Archive:
    """A finished loop with tuned baselines."""
    run_loop(CONFIG, Path("seed"), tmp_path, archive, FakeWorkers(), FakeTrain(), silent)
    tune_baselines(CONFIG, archive, FakeWorkers(), silent)
    return archive


def examination(archive: Archive, workers: FakeWorkers | None = None) -> tuple[Candidate, FakeWorkers]:
    workers = workers or FakeWorkers()
    return final_examination(CONFIG, MODELS[0], MODELS[1:], archive, workers, silent), workers


def test_baselines_are_tried_with_every_parameter_set(archive: Archive) -> None:
    tune_baselines(CONFIG, archive, FakeWorkers(), silent)
    tried = archive.attempts("baseline")
    assert [a.name for a in tried] == [
        "linear as it is",
        "task_arithmetic WEIGHT=0.3",
        "task_arithmetic WEIGHT=0.5",
    ]
    assert {a.outcome.state for a in tried} == {State.SCORED}
    assert tried[2].text == load_program("task_arithmetic", {"WEIGHT": 0.5}).code


def test_baselines_are_tried_once(archive: Archive) -> None:
    tune_baselines(CONFIG, archive, FakeWorkers(), silent)
    again = FakeWorkers()
    tune_baselines(CONFIG, archive, again, silent)
    assert (again.probed, again.tried) == ([], [])
    assert len(archive.attempts("baseline")) == 3


def test_the_best_parameters_of_each_method_are_tuned(archive: Archive) -> None:
    names = ["linear", "ties DENSITY=0.2", "ties DENSITY=0.5", "ties DENSITY=0.8", "slerp"]
    archive.add_written("baseline", 0, names, names, [0] * 5)
    for ident, correct in enumerate((10, 12, 15, 15), 1):
        archive.set_result(ident, Outcome(State.MERGED), of_accuracy(correct))
    archive.set_result(5, Outcome(State.CRASHED), None)
    assert [a.name for a in tuned(archive)] == ["ties DENSITY=0.5", "linear"]


def finished(archive: Archive, *results: tuple[str | None, int], kind: str = "factory") -> None:
    """Attempts with these prints and right answers."""
    before = len(archive.attempts())
    archive.add_written(
        kind, len(archive.attempts()) + 1, [""] * len(results), ["x"] * len(results), [0] * len(results)
    )
    for ident, (fingerprint, correct) in enumerate(results, before + 1):
        probed = replace(archive.attempt(ident), code="x", fingerprint=fingerprint)
        archive.set_probe(replace(probed, outcome=Outcome(State.MERGED)))
        archive.set_result(ident, Outcome(State.MERGED), of_accuracy(correct))


def test_finalists_are_the_best_by_dev_once_per_behaviour(archive: Archive) -> None:
    finished(archive, ("a", 5), ("b", 9), ("b", 9), ("c", 7))
    finished(archive, ("d", 8), ("a", 5))
    assert [a.id for a in finalists(archive, 15)] == [2, 5, 4, 1]
    assert [a.id for a in finalists(archive, 2)] == [2, 5]


def test_known_methods_and_copies_are_no_finalists(archive: Archive) -> None:
    finished(archive, ("a", 5), ("b", 9), ("c", 7))
    archive.set_result(3, Outcome(State.MERGED, copy_of="one"), of_accuracy(7))
    archive.add_written("baseline", 0, ["ties"], ["t"], [0])
    archive.set_probe(replace(archive.attempt(4), fingerprint="b"))
    assert [a.id for a in finalists(archive, 15)] == [1]


def test_finalists_rivals_and_seed_meet_on_fresh_dev_questions(looped: Archive) -> None:
    examination(looped)
    chosen, baselines = finalists(looped, 3), looped.attempts("baseline")
    assert (len(chosen), len(baselines)) == (3, 3)
    expected = {"seed", *(a.name for a in baselines), *(name_of(a) for a in chosen)}
    assert set(looped.examined("finalist_dev")) == expected


def test_fresh_questions_decide_between_leading_parameter_sets(looped: Archive) -> None:
    first, second = (f"task_arithmetic WEIGHT={weight}" for weight in (0.3, 0.5))
    assert first in {a.name for a in tuned(looped)}
    looped.add_examined(first, "baseline", "finalist_dev", None, of_accuracy(4))
    looped.add_examined(second, "baseline", "finalist_dev", None, of_accuracy(5))
    assert {a.name for a in tuned(looped)} == {"linear as it is", second}


def test_test_questions_are_for_the_best_and_its_rivals(looped: Archive) -> None:
    best, _ = examination(looped)
    assert best.attempt == finalists(looped, 1)[0]
    assert set(looped.examined("test")) == {"seed", "one", "two", *(a.name for a in tuned(looped)), best.name}


def test_the_best_is_chosen_on_fresh_questions_not_on_test(looped: Archive) -> None:
    class Fickle(FakeWorkers):
        """On fresh questions the second finalist is better, on test the third."""

        def try_programs(self, jobs, bar=0.0, parents=None):  # type: ignore[no-untyped-def]
            order = {a.code: i for i, a in enumerate(finalists(looped, 3))}
            scores = {"finalist_dev": (5, 9, 7), "test": (5, 6, 19)}
            for place, tried in super().try_programs(jobs, bar, parents):
                code, _, exam = jobs[place]
                right = scores[exam][order[code]] if code in order else 4
                yield place, replace(tried, score=of_accuracy(right))

    best, _ = examination(looped, Fickle())
    assert best.name == name_of(finalists(looped, 3)[1])


def test_the_test_set_is_opened_once_and_logged(looped: Archive) -> None:
    best, _ = examination(looped)
    again, workers = examination(looped)
    assert again.name == best.name
    assert (workers.tried, workers.examined) == ([], [])
    (event,) = looped.events("test opened")
    assert set(event["for_"]) == set(looped.examined("test"))


@pytest.mark.parametrize("lives", [0, 3, 6, 7, 9])
def test_a_killed_examination_goes_on_with_what_is_missing(looped: Archive, lives: int) -> None:
    first = FakeWorkers(lives=lives)
    with pytest.raises(Killed):
        examination(looped, first)
    _, second = examination(looped)
    asked = [(code, exam) for w in (first, second) for code, _, exam in w.tried]
    assert len(asked) == len(set(asked)) == (3 + 3) + (2 + 1)  # baselines and programs, dev and test
    models = first.examined + second.examined
    assert sorted(models) == [("one", "test"), ("seed", "finalist_dev"), ("seed", "test"), ("two", "test")]
    assert len(looped.events("test opened")) == 1


def test_tasks_besides_are_asked_of_seed_and_best_alone(looped: Archive) -> None:
    config = small_config(besides=["gsm8k", {"name": "other.jsonl", "test": 7}])
    for _ in range(2):  # going on asks nothing again
        best = final_examination(config, MODELS[0], MODELS[1:], looped, FakeWorkers(), silent)
    for title in ("gsm8k", "other.jsonl"):
        assert set(looped.examined(split_of(title))) == {"seed", best.name}
    found = what_changed(looped, best.name, [task.title for task in config.besides])
    assert found is not None
    assert [(c.name, c.n) for c in found.tasks] == [("gsm8k", 20), ("other.jsonl", 20)]


def test_where_the_best_is_the_seed_no_task_besides_is_asked(archive: Archive) -> None:
    config = small_config(besides=["gsm8k"])
    final_examination(config, MODELS[0], MODELS[1:], archive, FakeWorkers(), silent)
    assert archive.examined(split_of("gsm8k")) == {}


def test_without_any_finalist_the_best_is_the_seed(archive: Archive) -> None:
    best, _ = examination(archive)
    assert (best.name, best.kind) == ("seed", "seed")
    assert set(archive.examined("test")) == {"seed", "one", "two"}


def test_a_program_that_no_longer_merges_is_our_failure(looped: Archive) -> None:
    class Broken(FakeWorkers):
        def try_programs(self, jobs, bar=0.0, parents=None):  # type: ignore[no-untyped-def]
            for place, tried in super().try_programs(jobs, bar, parents):
                yield place, replace(tried, outcome=Outcome(State.TIMED_OUT), score=None)

    with pytest.raises(RuntimeError, match="merged before and now ends in TIMED_OUT"):
        examination(looped, Broken())


def answers(text: str, flexible: str = "") -> Score:
    """`1` for a right answer, `0` for a wrong one."""
    strict = tuple(c == "1" for c in text)
    return Score(strict, tuple(c == "1" for c in flexible) if flexible else strict)


TEST = {
    "seed": answers("1100000000"),
    "one": answers("1110000000"),
    "ties DENSITY=0.5": answers("1111100000"),
    "linear": answers("1111000000"),
    "program 1.2": answers("0111111110", "1111111110"),
}
KINDS: list[tuple[str, Kind]] = [
    ("seed", "seed"),
    ("one", "expert"),
    ("ties DENSITY=0.5", "baseline"),
    ("linear", "baseline"),
    ("program 1.2", "discovered"),
]


def table() -> dict[str, TestRow]:
    rows = make_table(KINDS, TEST, {"program 1.2": answers("10")})
    return {row.name: row for row in rows}


def test_rows_count_and_bound_what_was_answered() -> None:
    row = table()["program 1.2"]
    assert (row.n, row.correct, row.accuracy, row.flexible_accuracy) == (10, 8, 0.8, 0.9)
    assert (row.low, row.high) == wilson(8, 10)
    assert (row.dev_n, row.dev_accuracy) == (2, 0.5)
    assert table()["seed"].dev_n is None


def test_p_values_are_paired_against_seed_and_best_baseline() -> None:
    rows = table()
    # Against ties: right alone on four questions, wrong alone on one. Against the seed: seven and one.
    assert rows["program 1.2"].p_vs_best_baseline == pytest.approx(2 * (1 + 5) / 2**5)
    assert rows["program 1.2"].p_vs_seed == pytest.approx(2 * (1 + 8) / 2**8)
    assert rows["linear"].p_vs_best_baseline == mcnemar([True, False], [True, True])


def test_nothing_is_compared_with_itself() -> None:
    rows = table()
    assert rows["seed"].p_vs_seed is None
    assert rows["seed"].p_vs_best_baseline is not None
    assert rows["ties DENSITY=0.5"].p_vs_best_baseline is None


def test_without_baselines_there_is_no_best_one() -> None:
    rows = make_table(KINDS[:2], TEST, {})
    assert [row.p_vs_best_baseline for row in rows] == [None, None]


def test_candidates_that_were_not_tested_have_no_row() -> None:
    assert [r.name for r in make_table([*KINDS, ("program 9.9", "discovered")], TEST, {})] == list(TEST)


def row(
    name: str, kind: Kind, accuracy: float, flexible: float, p_best: float | None, p_seed: float | None
) -> TestRow:
    return TestRow(name, kind, 1000, 0, accuracy, 0.0, 1.0, flexible, None, None, p_best, p_seed)


SEED = row("seed", "seed", 0.5, 0.5, None, None)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (row("p", "discovered", 0.6, 0.6, 0.001, 0.001), []),
        (row("p", "discovered", 0.6, 0.6, 0.001, 0.2), ["No gain over the seed"]),
        (row("p", "discovered", 0.4, 0.4, 0.001, 0.001), ["No gain over the seed"]),
        (row("p", "discovered", 0.6, 0.6, 0.2, 0.001), ["No gain over the best tuned baseline"]),
        (
            row("p", "discovered", 0.6, 0.52, 0.001, 0.001),
            ["At least half of the gain is in the answer's format"],
        ),
    ],
    ids=["gain", "too small", "worse", "below the baseline", "format only"],
)
def test_notes_say_what_must_not_be_missed(found: TestRow, said: list[str]) -> None:
    made = notes([SEED, found], "p")
    assert len(made) == len(said)
    assert all(note.startswith(words) for note, words in zip(made, said, strict=True))


def test_best_equals_seed_is_said_loudly() -> None:
    (note,) = notes([SEED], "seed")
    assert "the best model is the seed itself" in note


def test_baselines_with_the_same_score_stand_in_the_order_of_the_config(archive: Archive) -> None:
    # Two workers are done with them in any order.
    for name in ("task_arithmetic WEIGHT=0.3", "linear as it is", "seed"):
        archive.add_examined(name, "baseline", "test", None, of_accuracy(3))
    named = [name for name, _ in collect.tested(CONFIG, archive, "seed")[0]]
    assert named == ["seed", "one", "two", "linear as it is", "task_arithmetic WEIGHT=0.3"]
