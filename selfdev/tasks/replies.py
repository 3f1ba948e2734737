"""What is noted of a reply beside right and wrong, by rules that a reader can check."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfdev.records import Replies

MARKS = (  # bit i of a reply's marks is MARKS[i]
    "without an answer in the task's form",  # the strict reading finds none
    "without any answer",  # nor does the flexible one
    "empty",
    "repetitive",
    "a refusal",
)
GRAM, DISTINCT = 8, 0.25  # a text is repetitive when less than this share of its 8-character pieces differ
OPENING = 100  # characters in which a refusal must stand
_REFUSAL = re.compile(
    r"\bI(?: am|'m|’m) (?:sorry|unable|not able)\b|\bI (?:cannot|can't|can’t|can not)\b"
    r"|\bas an ai\b",
    re.IGNORECASE,
)

Read = tuple[str | None, str | None]  # what the strict and the flexible reading found


def note(kinds: Sequence[str], texts: Sequence[str], read: Sequence[Read]) -> Replies:
    """Lengths and marks of replies, given what was read in each."""
    marks = tuple(_bits(text, found) for text, found in zip(texts, read, strict=True))
    return Replies(tuple(kinds), tuple(map(len, texts)), marks)


def marked(replies: Replies, mark: str) -> tuple[bool, ...]:
    """Which replies have a mark, one of MARKS."""
    bit = 1 << MARKS.index(mark)
    return tuple(bool(marks & bit) for marks in replies.marks)


def is_degenerate(reply: str) -> bool:
    """Whether a reply is empty, or long and made of few distinct pieces."""
    return not reply.strip() or _is_repetitive(reply)


def _bits(text: str, read: Read) -> int:
    seen = (
        read[0] is None,
        read == (None, None),
        not text.strip(),
        _is_repetitive(text),
        _REFUSAL.search(text[:OPENING]) is not None,
    )
    return sum(1 << place for place, has in enumerate(seen) if has)


def _is_repetitive(reply: str) -> bool:
    text = reply.strip()
    pieces = [text[i : i + GRAM] for i in range(len(text) - GRAM + 1)]
    return len(pieces) > 4 * GRAM and len(set(pieces)) < DISTINCT * len(pieces)
