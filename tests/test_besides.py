"""What changed besides the score: marks of replies, changes by kind, and the words for what got worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_result import result

from selfdev import stats
from selfdev.besides import by_kind, changes, warnings, what_changed
from selfdev.records import Score
from selfdev.report.besides import besides_section
from selfdev.report.report import render
from selfdev.results import Besides, Lengths
from selfdev.store.archive import Archive
from selfdev.tasks.replies import MARKS, is_degenerate, marked, note

FORM, NONE, EMPTY, ROUND, REFUSAL = MARKS


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("text", "read", "marks"),
    [
        ("#### 3", ("3", "3"), set()),
        ("it is 3", (None, "3"), {FORM}),
        ("well", (None, None), {FORM, NONE}),
        (" \n", (None, None), {FORM, NONE, EMPTY}),
        ("12" * 60, (None, "12"), {FORM, ROUND}),
        ("12" * 10, (None, "12"), {FORM}),
        ("I'm sorry, but that is 3", (None, "3"), {FORM, REFUSAL}),
        ("I cannot answer this.", (None, None), {FORM, NONE, REFUSAL}),
        ("As an AI model I add 1 and 2. #### 3", ("3", "3"), {REFUSAL}),
        ("She said that. " * 7 + "I cannot", (None, None), {FORM, NONE, ROUND}),
        ("Mia cannot pay: #### 3", ("3", "3"), set()),
    ],
)
def test_a_reply_has_the_marks_of_its_rules(
    text: str, read: tuple[str | None, str | None], marks: set[str]
) -> None:
    noted = note(["sum"], [text], [read])
    assert {mark for mark in MARKS if marked(noted, mark)[0]} == marks
    assert (noted.kinds, noted.lengths) == (("sum",), (len(text),))


def test_degenerate_is_empty_or_repetitive() -> None:
    assert [is_degenerate(text) for text in ("", "  ", "12" * 60, "12" * 10)] == [True, True, True, False]


def right(*shares: tuple[int, int]) -> tuple[bool, ...]:
    """Results in blocks: so many right of so many."""
    return tuple(place < correct for correct, n in shares for place in range(n))


def score(*shares: tuple[int, int]) -> Score:
    return Score(right(*shares), right(*shares))


SEED, BEST = score((40, 100), (90, 100), (50, 100)), score((90, 100), (40, 100), (52, 100))
KINDS = ("sum",) * 100 + ("times",) * 100 + ("share",) * 100


def test_changes_are_paired_and_adjusted_over_the_kinds() -> None:
    found = {c.name: c for c in changes(by_kind((BEST, SEED), KINDS))}
    assert list(found) == ["share", "sum", "times"]
    exact = [stats.mcnemar(right((a, 100)), right((b, 100))) for a, b in ((52, 50), (90, 40), (40, 90))]
    assert [c.p for c in found.values()] == exact
    assert [c.p_holm for c in found.values()] == stats.holm(exact)
    assert [c.moved for c in found.values()] == ["not shown", "up", "down"]
    worse = found["times"]
    assert (worse.n, worse.seed, worse.best) == (100, 0.9, 0.4)
    assert (worse.low, worse.high) == stats.paired_difference(right((40, 100)), right((90, 100)))


def test_what_is_surely_worse_alone_is_not_among_many_kinds() -> None:
    alone = {"a": (right((0, 6)), right((6, 6)))}  # p = 2 / 2**6 = 0.031
    others = {str(i): (right((3, 6)), right((3, 6))) for i in range(9)}
    assert changes(alone)[0].moved == "down"
    assert changes({**alone, **others})[0].moved == "not shown"


def test_one_kind_is_no_comparison_of_kinds() -> None:
    assert by_kind((BEST, SEED), ("",) * 300) == {}
    assert by_kind((BEST, SEED), ()) == {}
    assert list(by_kind((BEST, SEED), ("",) * 150 + ("algebra",) * 150)) == ["no kind given", "algebra"]


def examined(archive: Archive, name: str, results: Score, texts: list[str]) -> None:
    archive.add_examined(name, "seed", "test", None, results)
    archive.add_replies(name, "test", note(KINDS, texts, [(None, None)] * len(texts)))


def test_the_archive_tells_what_changed_without_a_question(archive: Archive) -> None:
    examined(archive, "seed", SEED, ["a reply"] * 300)
    examined(archive, "program 1.0", BEST, ["a reply"] * 250 + [""] * 50)
    found = what_changed(archive, "program 1.0")
    assert found is not None
    assert [c.name for c in found.kinds] == ["share", "sum", "times"]
    rows = {c.name: c for c in found.replies}
    assert list(rows) == ["right in another form only", *MARKS]
    assert (rows[EMPTY].seed, rows[EMPTY].best, rows[EMPTY].moved) == (0, 50 / 300, "up")
    assert rows[NONE].moved == "not shown"
    assert found.lengths is not None
    assert (found.lengths.seed, found.lengths.best) == (7, 7 * 250 / 300)
    said = warnings(found)
    assert said[0].startswith("Besides: worse than the seed on times (40.0 % right after 90.0 %, ")
    assert said[1].startswith("Besides: more replies are empty (16.7 % after 0.0 %, ")
    assert len(said) == 2


def test_answers_right_in_another_form_only_are_counted(archive: Archive) -> None:
    archive.add_examined("seed", "seed", "test", None, Score((True, True), (True, True)))
    archive.add_examined("program 1.0", "discovered", "test", None, Score((True, False), (True, True)))
    found = what_changed(archive, "program 1.0")
    assert found is not None
    (row,) = found.replies
    assert (row.seed, row.best, found.kinds, found.lengths) == (0, 0.5, (), None)


def test_the_seed_did_not_change(archive: Archive) -> None:
    archive.add_examined("seed", "seed", "test", None, SEED)
    assert what_changed(archive, "seed") is None
    assert what_changed(archive, "program 1.0") is None
    assert warnings(None) == []


def sample() -> Besides:
    kinds = changes(by_kind((BEST, SEED), KINDS))
    return Besides(
        kinds, changes({EMPTY: (right((1, 9)), right((0, 9)))}), Lengths(9, 20.0, 14.5, -6.0, -5.0)
    )


def test_the_report_shows_what_changed() -> None:
    page = render(result(besides=sample()))
    assert "<h2>What changed besides</h2>" in page
    for words in ("times", "−50.0", "worse", "better", "not shown", "14.5 characters after 20.0", "shorter"):
        assert words in page
    assert page.index("times") < page.index("<td>+50.0</td>")  # the worst comes first
    assert "What changed besides" not in render(result())


def test_inside_the_interval_nothing_is_called_a_gain_or_a_loss() -> None:
    kinds = changes({"sum": (right((51, 100)), right((50, 100)))})
    words = besides_section(Besides(kinds, (), Lengths(9, 20.0, 20.5, -0.5, 1.5)))
    assert "better" not in words
    assert "worse" not in words
    assert "no change shown" in words
    assert warnings(Besides(kinds, (), None)) == []


def test_a_task_that_grades_itself_has_no_lengths() -> None:
    assert "The task grades its own replies" in besides_section(Besides((), (), None))
