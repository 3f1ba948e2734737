"""Questions in JSON lines: what is read, and the sentence for each kind of line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfdev.errors import SelfdevError
from selfdev.tasks.rows import read_rows

GOOD = '{"question": "1+1?", "answer": "2"}'


def rows(tmp_path: Path, text: str, **given: tuple[str, ...]) -> list[dict[str, object]]:
    path = tmp_path / "q.jsonl"
    path.write_text(text, encoding="utf-8")
    return read_rows(path, ("question", "answer"), **given)


def test_rows_come_in_order_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    found = rows(tmp_path, f'\ufeff{GOOD}\n\n  \n{{"question": "x", "answer": 7, "more": [1]}}\n')
    assert found == [{"question": "1+1?", "answer": "2"}, {"question": "x", "answer": 7, "more": [1]}]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{'question': 1}", "line 3 is not JSON; correct or remove it"),
        ("[" * 100_000, "line 3 is not JSON"),
        ("[1, 2]", "line 3 has no question; every row needs one"),
        ('"text"', "line 3 has no question"),
        ('{"question": "x"}', "line 3 has no answer"),
        ('{"question": "x", "answer": null}', "line 3 has no answer"),
        ('{"question": " ", "answer": "2"}', "line 3 has no question"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(SelfdevError, match=problem):
        rows(tmp_path, f"{GOOD}\n\n{line}\n{GOOD}")


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ('"solution": 5', "has 5 for solution; give a text, or leave it out"),
        ('"choices": ["a", 2]', "for choices; give a list of at most 26 texts"),
        (f'"choices": {["x"] * 27}'.replace("'", '"'), "for choices; give a list of at most 26"),
        ('"subject": {}', "has {} for subject; give a text"),
    ],
)
def test_what_may_be_there_must_be_right_if_it_is(tmp_path: Path, extra: str, problem: str) -> None:
    line = f'{{"question": "x", "answer": "2", {extra}}}'
    with pytest.raises(SelfdevError, match=problem):
        rows(tmp_path, line, maybe=("solution", "choices", "subject"))
    assert rows(tmp_path, line)  # nobody reads it


def test_text_may_be_empty_and_must_be_text(tmp_path: Path) -> None:
    assert rows(tmp_path, GOOD[:-1] + ', "response": ""}', texts=("response",))
    with pytest.raises(SelfdevError, match="line 1 has no text response; every row needs one, in quotes"):
        rows(tmp_path, GOOD[:-1] + ', "response": 3}', texts=("response",))


def test_a_file_without_rows_or_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(SelfdevError, match="has no questions; give a JSONL file with question and answer"):
        rows(tmp_path, "\n \n")
    path = tmp_path / "b.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SelfdevError, match="cannot be read"):
        read_rows(path, ("question",))
    with pytest.raises(SelfdevError, match="cannot be read"):
        read_rows(tmp_path, ("question",))
