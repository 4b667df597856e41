# SPDX-License-Identifier: Apache-2.0
"""The two files of a batch: requests one to a line, and the journal of those that are over.

A journal is only ever added to, a record at a time, each on disk before the next: after a crash it
is known which lines are done, and none is done twice. Knows no dialect; the form of a line, which
is OpenAI's, is `formats/batch_requests.py`'s.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freehold.formats.batch_requests import MAX_LINE_BYTES, LineFault, read_line
from freehold.server.sse import dumps

MAX_LINES = 100_000
MAX_ERRORS = 100  # told of one file


@dataclass(slots=True)
class Lines:
    """Where the requests of a file lie, or what is wrong with them."""

    path: Path
    starts: array[int] = field(default_factory=lambda: array("Q"))
    errors: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, index: int) -> tuple[str, dict[str, Any]]:
        """(custom_id, body) of a line."""
        with self.path.open("rb") as file:
            file.seek(self.starts[index])
            line = json.loads(file.readline())
        return line["custom_id"], line["body"]


def scan(path: Path, endpoint: str) -> Lines:
    """Check every line of a file of requests. Takes seconds where it is large."""
    lines = Lines(path)
    seen: set[str] = set()
    with path.open("rb") as file:
        number = 0
        while len(lines.errors) < MAX_ERRORS:
            start = file.tell()
            raw = file.readline(MAX_LINE_BYTES + 1)
            if not raw:
                break
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                lines.errors.append(
                    _error("too_large", f"a line may have {MAX_LINE_BYTES:,} bytes", number)
                )
                break
            if raw.isspace():
                continue
            if len(lines) == MAX_LINES:
                lines.errors.append(
                    _error("too_many_lines", f"a batch may have {MAX_LINES:,} lines", number)
                )
                break
            request = read_line(raw, (endpoint,))
            if isinstance(request, LineFault):
                lines.errors.append(_error(request.code, request.message, number, request.param))
            elif request.custom_id in seen:
                message = f"custom_id {request.custom_id!r:.80} is there already"
                lines.errors.append(_error("duplicate_custom_id", message, number, "custom_id"))
            else:
                seen.add(request.custom_id)
                lines.starts.append(start)
    if not lines and not lines.errors:
        lines.errors.append(_error("empty_file", "the file holds no request", None))
    return lines


def _error(code: str, message: str, line: int | None, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": param}


class Journal:
    """What came of the lines that are over. Belongs to one thread, its counts to all."""

    def __init__(self, path: Path) -> None:
        """Goes on with a journal that is there; half a record at its end is cut away."""
        self.places: dict[int, tuple[int, int]] = {}  # of the record, by line: start and size
        self.completed = 0
        self.failed = 0
        self.size = 0
        self.usage: dict[str, int] = {}
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with path.open("rb") as file:
            for raw in iter(file.readline, b""):
                record = _record(raw)
                if record is None:
                    break
                self._count(record, len(raw))
        os.ftruncate(self._handle, self.size)

    def append(self, record: dict[str, Any]) -> None:
        """Add what came of ``record["line"]``; on disk when this returns. A line counts once.

        Raises OSError, and has added nothing then.
        """
        if record["line"] in self.places:
            return
        raw = dumps_safely(record) + b"\n"
        try:
            rest = memoryview(raw)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fdatasync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self.size)
            raise
        self._count(record, len(raw))

    def read(self, line: int) -> dict[str, Any] | None:
        """What came of a line; None while nothing did."""
        if line not in self.places:
            return None
        start, size = self.places[line]
        record: dict[str, Any] = json.loads(os.pread(self._handle, size, start))
        return record

    def close(self) -> None:
        """Nothing is lost by not doing so."""
        os.close(self._handle)

    def _count(self, record: Mapping[str, Any], size: int) -> None:
        self.places[record["line"]] = self.size, size
        self.size += size
        fine = 200 <= record["status"] < 300
        self.completed += fine
        self.failed += not fine
        usage = record["body"].get("usage") if isinstance(record["body"], dict) else None
        for name, value in _counts(usage or {}):
            self.usage[name] = self.usage.get(name, 0) + value


def _record(raw: bytes) -> dict[str, Any] | None:
    """A whole record of a journal; None for anything else."""
    try:
        record = json.loads(raw) if raw.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(record, dict)
        and isinstance(record.get("line"), int)
        and isinstance(record.get("status"), int)
        and "body" in record
    )
    return record if whole else None


def _counts(usage: Mapping[str, Any], prefix: str = "") -> list[tuple[str, int]]:
    """The numbers of an answer's usage, those of its details under ``details.name``."""
    found = []
    for name, value in usage.items():
        if isinstance(value, dict) and not prefix:
            found += _counts(value, name + ".")
        elif isinstance(value, int):
            found.append((prefix + name, value))
    return found


def dumps_safely(value: Any) -> bytes:
    """JSON on one line. Text that is no Unicode is escaped, so that nothing is lost."""
    try:
        return dumps(value).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()
