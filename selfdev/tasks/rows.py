"""Questions in JSON lines: read, and refused with the number of the line that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfdev.errors import SelfdevError

Row = dict[str, Any]


def read_rows(
    path: Path, keys: Sequence[str], texts: Sequence[str] = (), maybe: Sequence[str] = ()
) -> list[Row]:
    """The objects of a JSONL file, each with a value for every key; SelfdevError tells the line.

    What `texts` names is text, perhaps empty; `maybe` names which of solution, choices and subject are read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SelfdevError(f"questions {path} cannot be read ({error}); give a JSONL file.") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows = [_row(f"{path} line {number}", line, keys, texts, maybe) for number, line in numbered]
    if not rows:
        raise SelfdevError(f"{path} has no questions; give a JSONL file with {' and '.join(keys)}.")
    return rows


def _row(place: str, line: str, keys: Sequence[str], texts: Sequence[str], maybe: Sequence[str]) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise SelfdevError(f"{place} is not JSON; correct or remove it.") from None
    for key in keys:
        if not isinstance(row, dict) or row.get(key) is None or not str(row[key]).strip():
            raise SelfdevError(f"{place} has no {key}; every row needs one.")
    assert isinstance(row, dict)
    for key in texts:
        if not isinstance(row.get(key), str):
            raise SelfdevError(f"{place} has no text {key}; every row needs one, in quotes.")
    for key in maybe:
        value, (fits, rule) = row.get(key), _FORMS[key]
        if value is not None and not fits(value):
            raise SelfdevError(f"{place} has {value!r} for {key}; give {rule}, or leave it out.")
    return row


def _are_choices(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 26 and all(isinstance(item, str) for item in value)


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "solution": (lambda value: isinstance(value, str), "a text"),
    "subject": (lambda value: isinstance(value, str), "a text"),
    "choices": (_are_choices, "a list of at most 26 texts"),  # each has a letter
}
