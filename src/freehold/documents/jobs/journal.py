# SPDX-License-Identifier: Apache-2.0
"""The journal of one job: its items, what came of each content, and its runs, in one SQLite file.

An answer that `record` took is on disk when it returns, and is never computed again; of two
answers to one content a good one stays. Others may read while one process writes. Knows nothing of
how answers are made, and leaves it to `place.py` that only one process works on a job.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from freehold.documents.jobs._sqlite import connect, explained, transaction
from freehold.documents.jobs.fingerprint import Identity, differences
from freehold.documents.jobs.items import ErrorInfo, Item, ItemResult, dumps
from freehold.documents.jobs.rows import ROWS, Counts, Known, Row, Run, State, row_of
from freehold.errors import JobError

_PAGE = 500  # rows read at a time

_ITEM = """
INSERT INTO item (id, content, run, position, origin, error) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET content = excluded.content, run = excluded.run,
    position = excluded.position, origin = excluded.origin, error = excluded.error
WHERE item.run != excluded.run
"""
_RESULT = """
INSERT INTO result (content, status, value, error, usage, seconds, attempts, run, finished)
VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)
ON CONFLICT (content) DO UPDATE SET status = excluded.status, value = excluded.value,
    error = excluded.error, usage = excluded.usage, seconds = excluded.seconds,
    attempts = result.attempts + 1, run = excluded.run, finished = excluded.finished
WHERE result.status != 'ok'
"""


class Journal:
    """Belongs to one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self.run = 0  # id of the run that this object began

    @classmethod
    def open(cls, path: str | Path, identity: Identity, name: str | None = None) -> Self:
        """The journal of this job at `path`, made if there is none.

        Raises JobError where the file belongs to another job, or cannot be used.
        """
        path = Path(path)
        journal = cls(path, connect(path, write=True))
        try:
            journal._claim(identity, name or path.stem)
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def existing(cls, path: str | Path, *, write: bool = False) -> Self:
        """A journal that is there, whatever its job is. Raises JobError."""
        path = Path(path)
        if not path.exists():
            raise JobError(f"{path}: there is no such job")
        return cls(path, connect(path, write=write))

    def _claim(self, identity: Identity, name: str) -> None:
        with transaction(self._db, self.path):
            known = self._get("fingerprint")
            if known is None:
                about = {
                    "name": name, "fingerprint": identity.fingerprint,
                    "identity": dumps(identity.as_json()), "created": str(time.time()),
                }  # fmt: skip
                self._db.executemany("INSERT INTO job VALUES (?, ?)", about.items())
        if known is not None and known != identity.fingerprint:
            other = differences(identity.as_json(), self.identity)
            raise JobError(
                f"the job {self.name} was begun with another {', '.join(other)[:300]}",
                hint="give this one a name of its own: --job NAME",
            )

    # -- what it is ------------------------------------------------------------------------------

    def _get(self, key: str) -> str | None:
        with explained(self.path):
            row = self._db.execute("SELECT value FROM job WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    @property
    def name(self) -> str:
        """What people call the job."""
        return self._get("name") or self.path.stem

    @property
    def fingerprint(self) -> str:
        """Of everything that its answers depend on beside the documents."""
        return self._get("fingerprint") or ""

    @property
    def identity(self) -> dict[str, Any]:
        """`Identity.as_json` of the job."""
        found: dict[str, Any] = json.loads(self._get("identity") or "{}")
        return found

    @property
    def created(self) -> float:
        """Seconds since 1970."""
        return float(self._get("created") or 0)

    # -- runs ------------------------------------------------------------------------------------

    def begin(self, record: Mapping[str, Any]) -> int:
        """A run begins; items put in from now on are its."""
        with transaction(self._db, self.path):
            # A process that was killed could not say so.
            self._db.execute("UPDATE run SET state = 'interrupted' WHERE state = 'running'")
            self._db.execute("DELETE FROM job WHERE key = 'cancel'")
            cursor = self._db.execute(
                "INSERT INTO run (started, state, record) VALUES (?, 'running', ?)",
                (time.time(), dumps(record)),
            )
        self.run = int(cursor.lastrowid or 0)
        return self.run

    def end(self, state: State, counts: Mapping[str, Any]) -> None:
        """The run is over."""
        with transaction(self._db, self.path):
            self._db.execute(
                "UPDATE run SET ended = ?, state = ?, counts = ? WHERE id = ?",
                (time.time(), state, dumps(counts), self.run),
            )

    def runs(self) -> list[Run]:
        """All runs, the first one first."""
        with explained(self.path):
            rows = self._db.execute("SELECT * FROM run ORDER BY id").fetchall()
        return [
            Run(i, started, ended, state, json.loads(record), json.loads(counts or "{}"))
            for i, started, ended, state, record, counts in rows
        ]

    def ask_to_cancel(self) -> None:
        """Ask whoever works on the job to stop; may be called by any process."""
        with transaction(self._db, self.path):
            self._db.execute("INSERT OR REPLACE INTO job VALUES ('cancel', ?)", (str(time.time()),))

    @property
    def cancel_asked(self) -> bool:
        """Whether somebody asked since the run began."""
        return self._get("cancel") is not None

    # -- items -----------------------------------------------------------------------------------

    def register(self, items: Sequence[Item], position: int) -> list[Known]:
        """Put items into the job, the first one at `position` of this run; one commit.

        Tells what is known of each. One whose id this run has seen with the same content is the
        same item, "again"; with another content its place is a failure of its own, "refused", as
        is what could not be read.
        """
        with transaction(self._db, self.path):
            return [self._register(item, place) for place, item in enumerate(items, position)]

    def _register(self, item: Item, place: int) -> Known:
        content = None if item.content_sha256 is None else bytes.fromhex(item.content_sha256)
        error = None if item.error is None else dumps(item.error.as_json())
        values = (item.id, content, self.run, place, dumps(dict(item.origin)), error)
        if self._db.execute(_ITEM, values).rowcount != 1:
            row = self._db.execute("SELECT content FROM item WHERE id = ?", (item.id,)).fetchone()
            if row[0] == content and content is not None:
                return Known("again", True)
            refusal = ErrorInfo("MalformedDocumentError", f"{item.id:.200} is there already")
            other = (f"{item.id} ({place + 1})", None, *values[2:5], dumps(refusal.as_json()))
            self._db.execute(_ITEM, other)
            return Known("refused", True)
        if content is None or error is not None:
            return Known("refused", True)
        query = "SELECT status, run FROM result WHERE content = ?"
        row = self._db.execute(query, (content,)).fetchone()
        return Known(None, False) if row is None else Known(row[0], row[1] == self.run)

    def record(self, results: Iterable[ItemResult]) -> None:
        """Keep what came of some contents; one commit, on disk when this returns."""
        now = time.time()
        rows = [
            (
                bytes.fromhex(result.content_sha256), result.status,
                None if result.value is None else dumps(result.value),
                None if result.error is None else dumps(result.error.as_json()),
                dumps(dict(result.usage)), result.seconds, self.run, now,
            )
            for result in results
        ]  # fmt: skip
        with transaction(self._db, self.path):
            self._db.executemany(_RESULT, rows)

    def status(self, content_sha256: str) -> str | None:
        """What came of a content: "ok", "error" or nothing yet."""
        key = (bytes.fromhex(content_sha256),)
        with explained(self.path):
            row = self._db.execute("SELECT status FROM result WHERE content = ?", key).fetchone()
        return None if row is None else str(row[0])

    def rows(self, *, run: int | None = None, after: int = -1) -> Iterator[Row]:
        """Items with what came of them, a page at a time: memory does not grow with the job.

        Those of a run in its order, `after` a position; or all that the job ever had, in the order
        in which they came.
        """
        key, where = ("i.seq", "") if run is None else ("i.position", "i.run = :run AND ")
        query = f"{ROWS} WHERE {where}{key} > :after ORDER BY {key} LIMIT {_PAGE}"
        while True:
            with explained(self.path):
                page = self._db.execute(query, {"run": run, "after": after}).fetchall()
            for raw in page:
                yield row_of(raw)
            if len(page) < _PAGE:
                return
            after = page[-1][1 if run is None else 0]

    def counts(self, run: int | None = None) -> Counts:
        """Items by what came of them: of a run, or of all the job ever had."""
        where = "" if run is None else "WHERE i.run = :run"
        query = (
            "SELECT count(*), coalesce(sum(i.error IS NULL AND r.status = 'ok'), 0), "
            "coalesce(sum(i.error IS NOT NULL OR r.status = 'error'), 0) "
            f"FROM item i LEFT JOIN result r ON r.content = i.content {where}"
        )
        with explained(self.path):
            return Counts(*self._db.execute(query, {"run": run}).fetchone())

    def content_of(self, item_id: str) -> str | None:
        """The content of an item; None where there is no such item, or it has none."""
        with explained(self.path):
            row = self._db.execute("SELECT content FROM item WHERE id = ?", (item_id,)).fetchone()
        return None if row is None or row[0] is None else row[0].hex()

    def failures(self, limit: int) -> list[Row]:
        """The first items that failed."""
        where = "WHERE i.error IS NOT NULL OR r.status = 'error' ORDER BY i.seq LIMIT ?"
        with explained(self.path):
            return [row_of(raw) for raw in self._db.execute(f"{ROWS} {where}", (limit,))]

    def error_types(self) -> dict[str, int]:
        """How many items failed for each type of error, most first."""
        query = (
            "SELECT json_extract(coalesce(i.error, r.error), '$.type') AS kind, count(*) AS n "
            "FROM item i LEFT JOIN result r ON r.content = i.content "
            "WHERE i.error IS NOT NULL OR r.status = 'error' GROUP BY kind ORDER BY n DESC"
        )
        with explained(self.path):
            return {str(kind): count for kind, count in self._db.execute(query)}

    # -- replies from elsewhere ------------------------------------------------------------------

    def add_replies(self, replies: Iterable[tuple[str, Any]]) -> None:
        """Keep answers of a model that ran elsewhere, by the digest of what it was asked."""
        rows = [(bytes.fromhex(request), dumps(body)) for request, body in replies]
        with transaction(self._db, self.path):
            self._db.executemany("INSERT OR REPLACE INTO reply VALUES (?, ?)", rows)

    def reply(self, request: str) -> Any:
        """The answer to a request, None where there is none."""
        key = (bytes.fromhex(request),)
        with explained(self.path):
            row = self._db.execute("SELECT body FROM reply WHERE request = ?", key).fetchone()
        return None if row is None else json.loads(row[0])

    def close(self) -> None:
        """Let go of the file."""
        with explained(self.path):
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
