"""The archive of a run: one SQLite file, the only state; every finished step is one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from selfdev.errors import SelfdevError, one_line
from selfdev.records import Attempt, Outcome, Pair, Replies, Score, State
from selfdev.results import DpoStep, FactoryCheck, Trained, factory_check
from selfdev.store.hashes import of_text
from selfdev.store.lock import unwritable
from selfdev.store.tables import COLUMNS, SCHEMA, SCHEMA_VERSION, as_attempt, as_score, bits
from selfdev.tasks.grading import Lead

_FACTORY = "factory of iteration "
Only = Literal["scored", "unprobed"]
_ONLY = {"scored": "strict IS NOT NULL", "unprobed": "state IS NULL AND fingerprint IS NULL"}


def damaged(path: Path, error: Exception) -> SelfdevError:
    """What to say of an archive that SQLite cannot read."""
    return SelfdevError(
        f"archive {path} is damaged ({error}); put back a copy of it, or move it away to start again."
    )


class Archive:
    """Reads and writes the archive of one run; `create` makes an empty one where there is none."""

    def __init__(self, path: Path, create: bool = False) -> None:
        if not create and not path.is_file():
            raise SelfdevError(
                f"{path.parent} is not a run folder: it has no {path.name}; give --out of a run."
            )
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                with self._transaction():
                    for statement in SCHEMA.split(";\n"):
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
            version = self.get("schema")
        except sqlite3.OperationalError as error:
            raise unwritable(path.parent, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise damaged(path, error) from error
        if version != str(SCHEMA_VERSION):
            raise SelfdevError(
                f"archive {path} has schema {version}, this version reads {SCHEMA_VERSION}; start a new run."
            )

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def get(self, key: str) -> str | None:
        """A value of the run as a whole, such as its config; None when it was never put."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def log(self, what: str, **detail: Any) -> None:
        """Note an event that must not be forgotten, such as the opening of the test set."""
        self._db.execute("INSERT INTO events (what, detail) VALUES (?, ?)", (what, json.dumps(detail)))

    def events(self, what: str) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT detail FROM events WHERE what = ? ORDER BY id", (what,))
        return [json.loads(detail) for (detail,) in rows]

    def add_written(
        self, kind: str, iteration: int, names: Sequence[str], texts: Sequence[str], seeds: Sequence[int],
        tokens: int = 0,
    ) -> None:  # fmt: skip
        """Store what was written, not yet tried; an iteration at once. A model wrote so many `tokens`."""
        written = enumerate(zip(names, texts, map(of_text, texts), seeds, strict=True))
        rows = [(kind, iteration, place, *row) for place, row in written]
        with self._transaction():
            self._db.executemany(
                "INSERT INTO attempts (kind, iteration, place, name, text, text_hash, seed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            if tokens:
                self.log("tokens", kind=kind, iteration=iteration, written=tokens)

    def set_probe(self, attempt: Attempt) -> None:
        """Store what gate and probes gave; a failed outcome ends the attempt."""
        o = attempt.outcome
        failed = o.state is not State.MERGED
        with self._transaction():
            self._db.execute(
                "UPDATE attempts SET code = ?, fingerprint = ?, nearest = ?, distance = ?, state = ?,"
                " reason = ?, seconds = ?, stderr = ? WHERE id = ?",
                (attempt.code, attempt.fingerprint, attempt.nearest, attempt.distance)
                + ((o.state, o.reason, o.seconds, o.stderr) if failed else (None, "", 0.0, ""))
                + (attempt.id,),
            )

    def set_result(
        self, ident: int, outcome: Outcome, score: Score | None, same_as: int | None = None
    ) -> None:
        """Store how an attempt ended; with a score its state is SCORED."""
        o, state = outcome, State.SCORED if score is not None else outcome.state
        with self._transaction():
            self._db.execute(
                "UPDATE attempts SET state = ?, reason = ?, seconds = ?, stderr = ?, copy_of = ?,"
                " weights_hash = ?, same_as = ?, strict = ?, flexible = ?, tokens = ? WHERE id = ?",
                (
                    state,
                    o.reason,
                    o.seconds,
                    o.stderr,
                    o.copy_of,
                    o.weights_hash,
                    same_as,
                    *bits(score),
                    ident,
                ),
            )

    def attempts(self, kind: str | None = None, iteration: int | None = None) -> list[Attempt]:
        """Attempts in the order they were written; unfinished ones have the state MERGED and no score."""
        return list(self.each(kind, iteration))

    def each(
        self, kind: str | None = None, iteration: int | None = None, only: Only | None = None,
        texts: bool = True,
    ) -> Iterator[Attempt]:  # fmt: skip
        """The same one after the other, so that not all are in memory; of them `only` those with a score, or
        those that neither gate nor probes have seen. Without `texts` text and code are empty."""
        where, values = ["1" if only is None else _ONLY[only]], []
        for column, value in (("kind", kind), ("iteration", iteration)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        columns = COLUMNS if texts else COLUMNS.replace("text, code", "'', ''")
        found = self._db.execute(
            f"SELECT {columns} FROM attempts WHERE {' AND '.join(where)} ORDER BY id", values
        )
        lead = self._lead()
        return (as_attempt(row, lead) for row in found)

    def has(self, kind: str, iteration: int) -> bool:
        """Whether anything of an iteration was written."""
        query = "SELECT 1 FROM attempts WHERE kind = ? AND iteration = ? LIMIT 1"
        return self._db.execute(query, (kind, iteration)).fetchone() is not None

    def count(self, kind: str) -> int:
        """How many attempts of a kind were written."""
        return int(self._db.execute("SELECT count(*) FROM attempts WHERE kind = ?", (kind,)).fetchone()[0])

    def behaviours(self) -> list[tuple[int, str, State | None]]:
        """Id, fingerprint and end of every attempt that acted on the probes, in order; None: no end yet."""
        found = self._db.execute(
            "SELECT id, fingerprint, state FROM attempts WHERE fingerprint IS NOT NULL ORDER BY id"
        )
        return [(ident, seen, State(state) if state else None) for ident, seen, state in found]

    def attempt(self, ident: int) -> Attempt:
        """One attempt by its id; KeyError when there is none."""
        row = self._db.execute(f"SELECT {COLUMNS} FROM attempts WHERE id = ?", (ident,)).fetchone()
        if row is None:
            raise KeyError(ident)
        return as_attempt(row, self._lead())

    def asked(self, kind: str) -> int:
        """Dev questions asked of attempts of a kind; a score that was reused took none."""
        query = (
            "SELECT coalesce(sum(length(strict)), 0) FROM attempts"
            " WHERE kind = ? AND same_as IS NULL AND strict IS NOT NULL"
        )
        return int(self._db.execute(query, (kind,)).fetchone()[0])

    def unfinished(self, kind: str, iteration: int) -> set[int]:
        """Ids of attempts that have no stored end yet."""
        rows = self._db.execute(
            "SELECT id FROM attempts WHERE kind = ? AND iteration = ? AND state IS NULL", (kind, iteration)
        )
        return {ident for (ident,) in rows}

    def add_pairs(self, iteration: int, pairs: Sequence[Pair]) -> None:
        rows = [(iteration, place, pair.chosen, pair.rejected) for place, pair in enumerate(pairs)]
        with self._transaction():
            self._db.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?)", rows)

    def pairs(self, iteration: int) -> list[Pair]:
        rows = self._db.execute(
            "SELECT chosen, rejected FROM pairs WHERE iteration = ? ORDER BY place", (iteration,)
        )
        return [Pair(*row) for row in rows]

    def add_training(self, iteration: int, trained: Trained, weights: str) -> None:
        """Store the log of a training that ended, the look at its factory and the hash of its weights: their
        presence says that the next factory is complete."""
        rows = [(iteration, s.step, s.loss, s.margin, s.accuracy) for s in trained.steps]
        c = trained.check
        with self._transaction():
            self._db.executemany("INSERT INTO training VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute(
                "INSERT INTO factory_checks VALUES (?, ?, ?, ?, ?, ?, ?)",
                (iteration, c.trained, c.held_out, c.right, c.programs, c.kl, c.kl_error),
            )
            self.put(f"{_FACTORY}{iteration + 1}", weights)

    def training(self, iteration: int) -> tuple[DpoStep, ...]:
        rows = self._db.execute(
            "SELECT step, loss, margin, accuracy FROM training WHERE iteration = ? ORDER BY step",
            (iteration,),
        )
        return tuple(DpoStep(*row) for row in rows)

    def check(self, iteration: int) -> FactoryCheck | None:
        """The look at the factory that was trained on an iteration; None when none was."""
        row = self._db.execute(
            "SELECT trained, held_out, ranked_right, programs, kl, kl_error FROM factory_checks"
            " WHERE iteration = ?",
            (iteration,),
        ).fetchone()
        return factory_check(*row) if row else None

    def factories(self) -> dict[int, str]:
        """Iteration -> hash of the weights of its factory, for every one that was trained."""
        rows = self._db.execute(
            "SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", (len(_FACTORY), _FACTORY)
        )
        return {int(key.removeprefix(_FACTORY)): value for key, value in rows}

    def text_hashes(self) -> dict[int, str]:
        """Id -> hash of the text, as it was when that was written."""
        return dict(self._db.execute("SELECT id, text_hash FROM attempts"))

    def integrity(self) -> list[str]:
        """What SQLite itself finds wrong in the file; empty when all is well."""
        try:
            rows = self._db.execute("PRAGMA integrity_check(3)").fetchall()
            orphans = self._db.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.DatabaseError as error:
            return [str(error)]
        found = [one_line(text) for (text,) in rows if text != "ok"]
        return found + [f"{table} names an attempt that does not exist" for table, *_ in orphans]

    def add_examined(self, name: str, kind: str, split: str, attempt: int | None, score: Score) -> None:
        """Store a model's answers on finalist_dev or test, question by question."""
        self._db.execute(
            "INSERT INTO examined VALUES (?, ?, ?, ?, ?, ?, ?)", (name, kind, split, attempt, *bits(score))
        )

    def add_replies(self, name: str, split: str, replies: Replies) -> None:
        """Store what was noted of a model's replies on finalist_dev, test or a task beside."""
        texts = json.dumps(replies.kinds), json.dumps(replies.lengths)
        self._db.execute(
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)",
            (name, split, *texts, bytes(replies.marks)),
        )

    def replies(self, name: str, split: str) -> Replies | None:
        """What was noted of a model's replies; None where nothing was."""
        row = self._db.execute(
            "SELECT kinds, lengths, marks FROM replies WHERE name = ? AND split = ?", (name, split)
        ).fetchone()
        if row is None:
            return None
        kinds, lengths, marks = row
        return Replies(tuple(json.loads(kinds)), tuple(json.loads(lengths)), tuple(marks))

    def examined(self, split: str) -> dict[str, Score]:
        query = "SELECT name, strict, flexible, tokens FROM examined WHERE split = ?"
        lead = self._lead()
        return {name: as_score(score, lead) for name, *score in self._db.execute(query, (split,))}

    def _lead(self) -> Lead:
        """The reading of answers that ranks models, as the run's config says."""
        return "flexible" if self.get("lead") == "flexible" else "strict"
