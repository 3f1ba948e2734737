"""The archive: what is written is there at once, complete, and again after closing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selfdev.errors import SelfdevError
from selfdev.records import Attempt, Outcome, Pair, Replies, Score, State
from selfdev.results import DpoStep, FactoryCheck, Trained, factory_check
from selfdev.stats import wilson
from selfdev.store.archive import Archive

SCORE = Score((True, False, True), (True, True, True))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


@pytest.fixture
def written(archive: Archive) -> Archive:
    """Three texts of iteration 1 with the ids 1, 2 and 3."""
    archive.add_written("factory", 1, ["", "", ""], ["first", "second", "third"], [11, 12, 13])
    return archive


def probed(attempt: Attempt, outcome: Outcome, fingerprint: str | None) -> Attempt:
    return replace(
        attempt, code="code", outcome=outcome, fingerprint=fingerprint, nearest="ties", distance=0.25
    )


def test_a_folder_without_archive_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match=r"is not a run folder: it has no archive\.sqlite"):
        Archive(tmp_path / "archive.sqlite")


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    path.write_bytes(b"no database at all, only words" * 100)
    with pytest.raises(SelfdevError, match=r"is damaged .*; put back a copy of it, or move it away"):
        Archive(path)


def test_another_schema_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.put("schema", "99")
    with pytest.raises(SelfdevError, match=r"has schema 99.* reads 4; start a new run"):
        Archive(tmp_path / "archive.sqlite")


def test_an_older_schema_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.put("schema", "2")
    with pytest.raises(SelfdevError, match=r"has schema 2, this version reads 4; start a new run"):
        Archive(tmp_path / "archive.sqlite")


def test_journal_is_write_ahead(archive: Archive, tmp_path: Path) -> None:
    archive.put("key", "value")
    other = sqlite3.connect(tmp_path / "archive.sqlite")
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_a_key_never_put_is_none(archive: Archive) -> None:
    assert archive.get("best") is None


def test_the_last_value_of_a_key_counts(archive: Archive) -> None:
    archive.put("best", "seed")
    archive.put("best", "program 1.2")
    assert archive.get("best") == "program 1.2"


def test_events_come_back_in_order_by_kind(archive: Archive) -> None:
    archive.log("stage", name="write", seconds=1.5)
    archive.log("test opened", for_=["seed"])
    archive.log("stage", name="score", seconds=2.0)
    assert archive.events("stage") == [
        {"name": "write", "seconds": 1.5},
        {"name": "score", "seconds": 2.0},
    ]
    assert archive.events("test opened") == [{"for_": ["seed"]}]


def test_written_texts_are_unfinished_attempts_in_order(written: Archive) -> None:
    attempts = written.attempts()
    assert [(a.id, a.index, a.text, a.seed) for a in attempts] == [
        (1, 0, "first", 11),
        (2, 1, "second", 12),
        (3, 2, "third", 13),
    ]
    assert {(a.kind, a.iteration, a.code, a.score) for a in attempts} == {("factory", 1, "", None)}
    assert written.unfinished("factory", 1) == {1, 2, 3}


def test_an_iteration_is_written_whole_or_not_at_all(written: Archive) -> None:
    with pytest.raises(ValueError, match="zip"):
        written.add_written("factory", 2, ["", ""], ["a", "b"], [1])
    assert written.attempts("factory", 2) == []


def test_an_iteration_cannot_be_written_twice(written: Archive) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        written.add_written("factory", 1, [""], ["again"], [1])
    assert [a.text for a in written.attempts()] == ["first", "second", "third"]


def test_attempts_are_chosen_by_kind_and_iteration(written: Archive) -> None:
    written.add_written("factory", 2, [""], ["later"], [21])
    written.add_written("baseline", 0, ["ties"], ["known"], [0])
    assert [a.text for a in written.attempts("factory")] == ["first", "second", "third", "later"]
    assert [a.text for a in written.attempts("factory", 2)] == ["later"]
    assert [a.text for a in written.attempts(iteration=0)] == ["known"]
    assert [a.name for a in written.attempts("baseline")] == ["ties"]


def test_unknown_id_is_a_key_error(written: Archive) -> None:
    with pytest.raises(KeyError):
        written.attempt(4)


def test_a_probe_that_merged_leaves_the_attempt_open(written: Archive) -> None:
    written.set_probe(probed(written.attempt(2), Outcome(State.MERGED, seconds=0.5), "abc"))
    kept = written.attempt(2)
    assert (kept.code, kept.fingerprint, kept.nearest, kept.distance) == ("code", "abc", "ties", 0.25)
    assert kept.outcome == Outcome(State.MERGED)  # the probe's seconds are not the program's
    assert written.unfinished("factory", 1) == {1, 2, 3}


def test_a_probe_that_failed_ends_the_attempt(written: Archive) -> None:
    outcome = Outcome(State.CRASHED, "ZeroDivisionError", 0.5, "Traceback")
    written.set_probe(probed(written.attempt(2), outcome, None))
    assert written.attempt(2).outcome == outcome
    assert written.unfinished("factory", 1) == {1, 3}


def test_a_scored_attempt_comes_back_whole(written: Archive) -> None:
    written.set_probe(probed(written.attempt(1), Outcome(State.MERGED), "abc"))
    outcome = Outcome(State.MERGED, "fine", 1.25, "warning", "seed", "hash")
    written.set_result(1, outcome, SCORE)
    kept = written.attempt(1)
    assert kept.outcome == replace(outcome, state=State.SCORED)
    assert kept.score == SCORE
    assert kept.fingerprint == "abc"
    assert written.unfinished("factory", 1) == {2, 3}


def test_a_result_without_score_keeps_its_state(written: Archive) -> None:
    written.set_result(3, Outcome(State.TIMED_OUT, "10 s", 10.0), None)
    assert written.attempt(3).outcome == Outcome(State.TIMED_OUT, "10 s", 10.0)
    assert written.attempt(3).score is None


def test_a_reused_score_names_its_origin(written: Archive) -> None:
    written.set_result(1, Outcome(State.MERGED), SCORE)
    written.set_result(2, Outcome(State.MERGED), SCORE, same_as=1)
    assert written.attempt(2).same_as == 1
    assert written.attempt(1).same_as is None


def test_results_are_there_at_once_for_another_reader(written: Archive, tmp_path: Path) -> None:
    written.set_result(1, Outcome(State.MERGED), SCORE)
    reader = Archive(tmp_path / "archive.sqlite")
    assert reader.attempt(1).score == SCORE
    reader.close()


def test_everything_is_there_after_closing(written: Archive, tmp_path: Path) -> None:
    written.set_result(1, Outcome(State.MERGED), SCORE)
    before = written.attempts()
    written.close()
    again = Archive(tmp_path / "archive.sqlite", create=True)
    assert again.attempts() == before
    again.close()


def test_pairs_keep_their_order(written: Archive) -> None:
    pairs = [Pair(3, 1), Pair(2, 1), Pair(3, 2)]
    written.add_pairs(1, pairs)
    assert written.pairs(1) == pairs
    assert written.pairs(2) == []


def test_training_comes_back_by_step(archive: Archive) -> None:
    steps = [DpoStep(2, 0.5, None, None), DpoStep(1, 0.69, 0.0, 0.0)]
    check = factory_check(20, 4, 3, 64, 1.5, 0.25)
    archive.add_training(1, Trained(tuple(steps), check), "hash")
    assert archive.training(1) == (steps[1], steps[0])
    assert archive.training(2) == ()
    assert archive.check(1) == check
    assert (check.accuracy, (check.low, check.high)) == (0.75, wilson(3, 4))
    assert archive.check(2) is None
    assert archive.factories() == {2: "hash"}


def test_what_was_not_measured_of_a_factory_stays_unknown(archive: Archive) -> None:
    archive.add_training(1, Trained((), factory_check(20, 0, 0, 0, None, None)), "hash")
    assert archive.check(1) == FactoryCheck(20, 0, 0, None, None, None, 0, None, None)


def test_training_is_stored_whole_or_not_at_all(archive: Archive) -> None:
    twice = (DpoStep(1, 0.5, 0.2, 1.0), DpoStep(1, 0.4, 0.3, 1.0))
    trained = Trained(twice, factory_check(20, 0, 0, 0, None, None))
    with pytest.raises(sqlite3.IntegrityError):
        archive.add_training(1, trained, "hash")
    assert archive.training(1) == ()
    assert archive.check(1) is None
    assert archive.factories() == {}


def test_examined_scores_by_split(written: Archive) -> None:
    other = Score((False,), (False,))
    written.add_examined("seed", "seed", "test", None, SCORE)
    written.add_examined("program 1.0", "discovered", "finalist_dev", 1, other)
    assert written.examined("test") == {"seed": SCORE}
    assert written.examined("finalist_dev") == {"program 1.0": other}


def test_nothing_is_examined_twice(archive: Archive) -> None:
    archive.add_examined("seed", "seed", "test", None, SCORE)
    with pytest.raises(sqlite3.IntegrityError):
        archive.add_examined("seed", "seed", "test", None, SCORE)


def test_what_was_noted_of_replies_comes_back_whole(archive: Archive) -> None:
    noted = Replies(("times", "share"), (12, 0), (0, 31))
    archive.add_replies("seed", "test", noted)
    archive.add_replies("one", "test", Replies(("times", "share")))
    assert archive.replies("seed", "test") == noted
    assert archive.replies("one", "test") == Replies(("times", "share"), (), ())
    assert archive.replies("seed", "finalist_dev") is None
