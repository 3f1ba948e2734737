"""Tables of the archive, and what their rows are as records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfdev.records import Attempt, Outcome, Score, State
from selfdev.tasks.grading import Lead

SCHEMA_VERSION = 4
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, iteration INTEGER NOT NULL, place INTEGER NOT NULL,
    name TEXT NOT NULL, text TEXT NOT NULL, text_hash TEXT NOT NULL,
    code TEXT NOT NULL DEFAULT '', seed INTEGER NOT NULL, state TEXT,
    reason TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0, stderr TEXT NOT NULL DEFAULT '',
    copy_of TEXT, weights_hash TEXT, fingerprint TEXT, same_as INTEGER REFERENCES attempts (id),
    nearest TEXT, distance REAL, strict BLOB, flexible BLOB, tokens INTEGER,
    UNIQUE (kind, iteration, place));
CREATE INDEX attempts_open ON attempts (kind, iteration, fingerprint) WHERE state IS NULL;
CREATE INDEX attempts_behaviour ON attempts (id, fingerprint, state) WHERE fingerprint IS NOT NULL;
CREATE INDEX attempts_asked ON attempts (kind, length(strict)) WHERE same_as IS NULL AND strict IS NOT NULL;
CREATE TABLE pairs (iteration INTEGER NOT NULL, place INTEGER NOT NULL,
    chosen INTEGER NOT NULL REFERENCES attempts (id), rejected INTEGER NOT NULL REFERENCES attempts (id),
    PRIMARY KEY (iteration, place));
CREATE TABLE training (iteration INTEGER NOT NULL, step INTEGER NOT NULL, loss REAL NOT NULL,
    margin REAL, accuracy REAL, PRIMARY KEY (iteration, step));
CREATE TABLE factory_checks (iteration INTEGER PRIMARY KEY, trained INTEGER NOT NULL,
    held_out INTEGER NOT NULL, ranked_right INTEGER NOT NULL, programs INTEGER NOT NULL,
    kl REAL, kl_error REAL);
CREATE TABLE examined (name TEXT NOT NULL, kind TEXT NOT NULL, split TEXT NOT NULL, attempt INTEGER
    REFERENCES attempts (id), strict BLOB NOT NULL, flexible BLOB NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (name, split));
CREATE TABLE replies (name TEXT NOT NULL, split TEXT NOT NULL, kinds TEXT NOT NULL, lengths TEXT NOT NULL,
    marks BLOB NOT NULL, PRIMARY KEY (name, split));
CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT NOT NULL, detail TEXT NOT NULL);
"""
COLUMNS = (
    "id, kind, iteration, place, name, text, code, seed, state, reason, seconds, stderr, copy_of,"
    " weights_hash, fingerprint, same_as, nearest, distance, strict, flexible, tokens"
)


def bits(score: Score | None) -> tuple[bytes | None, bytes | None, int | None]:
    """A score as its columns."""
    return (bytes(score.strict), bytes(score.flexible), score.tokens) if score else (None, None, None)


def bools(blob: bytes) -> tuple[bool, ...]:
    return tuple(map(bool, blob))


def as_attempt(row: tuple[Any, ...], lead: Lead) -> Attempt:
    (ident, kind, iteration, place, name, text, code, seed) = row[:8]
    (state, reason, seconds, stderr, copy_of, weights_hash) = row[8:14]
    (fingerprint, same_as, nearest, distance, *score) = row[14:]
    return Attempt(
        id=ident,
        kind=kind,
        iteration=iteration,
        index=place,
        name=name,
        text=text,
        code=code,
        seed=seed,
        outcome=Outcome(State(state or "MERGED"), reason, seconds, stderr, copy_of, weights_hash),
        fingerprint=fingerprint,
        same_as=same_as,
        nearest=nearest,
        distance=distance,
        score=as_score(score, lead) if score[0] is not None else None,
    )


def as_score(columns: Sequence[Any], lead: Lead) -> Score:
    """A score of its columns, as `bits` gives them. Readings that agree share their memory."""
    strict, flexible, tokens = columns
    answers = bools(strict)
    return Score(answers, answers if strict == flexible else bools(flexible), lead, tokens)
