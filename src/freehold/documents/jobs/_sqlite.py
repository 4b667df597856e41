# SPDX-License-Identifier: Apache-2.0
"""How a journal is opened, what its tables are, and what SQLite's errors mean to a person.

Knows nothing of what the rows say.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from freehold.errors import CapacityError, JobError

APPLICATION_ID = 0x46484A42  # "FHJB": tells our files from other databases
VERSION = 1  # of the tables
_BUSY_SECONDS = 30.0
_SQLITE_CORRUPT, _SQLITE_FULL, _SQLITE_NOTADB = 11, 13, 26

# `item` is what was put in, `result` what came of each content: many items may share one.
_TABLES = """
CREATE TABLE job (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE run (
    id INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, state TEXT NOT NULL,
    record TEXT NOT NULL, counts TEXT
);
CREATE TABLE item (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content BLOB, run INTEGER NOT NULL,
    position INTEGER NOT NULL, origin TEXT NOT NULL, error TEXT
);
CREATE INDEX item_of_run ON item (run, position);
CREATE TABLE result (
    content BLOB PRIMARY KEY, status TEXT NOT NULL, value TEXT, error TEXT, usage TEXT NOT NULL,
    seconds REAL NOT NULL, attempts INTEGER NOT NULL, run INTEGER NOT NULL, finished REAL NOT NULL
);
CREATE TABLE reply (request BLOB PRIMARY KEY, body TEXT NOT NULL);
"""


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open a journal that is there, or with `write` a new one. Raises JobError."""
    exists = path.exists()
    if not exists and not write:
        raise JobError(f"{path}: there is no such job", hint="`freehold jobs list` shows them")
    mode = "rwc" if write else "ro"
    with explained(path):
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_SECONDS,
            isolation_level=None, check_same_thread=False,
        )  # fmt: skip
    try:
        with explained(path):
            _prepare(connection, path, write)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, write: bool) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if empty and write and version == application == 0:
        # A killed beginner leaves an empty file, which the next one takes.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE;{_TABLES}PRAGMA application_id={APPLICATION_ID};"
            f"PRAGMA user_version={VERSION};COMMIT;"
        )
    elif application != APPLICATION_ID:
        raise JobError(f"{path}: this database is not the journal of a job")
    elif version > VERSION:
        raise JobError(
            f"{path}: written by a newer freehold (journal version {version}, this one knows "
            f"{VERSION})",
            hint="use that version, or start the job anew under another --job name",
        )
    # What is committed survives a power cut too; a commit is a block of answers, not a row.
    connection.execute("PRAGMA synchronous=FULL")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as sentences."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == _SQLITE_FULL:
            raise CapacityError(
                f"{path}: the disk is full; every answer before is kept",
                hint="make room and run the same command again",
            ) from None
        if code in (_SQLITE_CORRUPT, _SQLITE_NOTADB):
            raise JobError(
                f"{path}: the journal is damaged ({error})",
                hint="move the file away and run the job anew, or take what can be read with "
                "`sqlite3 FILE .recover`",
            ) from None
        raise JobError(f"{path}: the journal cannot be used: {error}") from None


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All of it or nothing. Raises JobError and CapacityError."""
    with explained(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                connection.execute("ROLLBACK")
            raise
