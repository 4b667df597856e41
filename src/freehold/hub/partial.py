# SPDX-License-Identifier: Apache-2.0
"""A file of which some parts have come: the bytes, and a journal of which they are.

The journal is a line per stretch that was written, appended after the write. A process can end
anywhere: bytes without a line are fetched again. A machine can end anywhere too, and then lines may
have lasted where bytes did not; so lines count across a restart of the machine only up to the last
mark that says the bytes before it were flushed. Journal of another file (`identity`) or of nothing:
start over. Knows no network. Locking is `Store.lock_of`'s.
"""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

Span = tuple[int, int]  # from, up to

_FLUSH_EVERY = 128 << 20  # bytes between marks
_MAX_JOURNAL = 64 << 20  # read at most; a journal of the largest file has a tenth
_LINE = re.compile(r"([0-9]{1,18}) ([0-9]{1,18})")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Partial:
    """See the module. Safe for several threads of one process."""

    def __init__(self, path: Path, size: int, identity: str) -> None:
        """`identity` says which content this is: what was written under another one is no part
        of it."""
        self._path, self._journal = path, journal_of(path)
        self._size = size
        self._lock = threading.Lock()
        self._spans = read_spans(path, size, identity)
        self._identity = identity
        self._unflushed = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        if not self._spans:
            flags |= os.O_TRUNC
        self._file = os.open(path, flags, 0o600)
        self._log = -1
        try:
            self._start_journal()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both files; what was written stays."""
        with self._lock:
            for handle in (self._file, self._log):
                if handle >= 0:
                    os.close(handle)
            self._file = self._log = -1

    @property
    def done(self) -> int:
        """Bytes that are there."""
        with self._lock:
            return sum(end - start for start, end in self._spans)

    def missing(self) -> list[Span]:
        """The stretches that are not there, in order."""
        with self._lock:
            gaps, at = [], 0
            for start, end in self._spans:
                if start > at:
                    gaps.append((at, start))
                at = end
            return gaps + ([(at, self._size)] if at < self._size else [])

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put `data` in its place. Raises OSError."""
        with self._lock:  # a thread that comes late must not write to what has been closed
            view, at = memoryview(data), offset
            while view:
                count = os.pwrite(self._file, view, at)
                view, at = view[count:], at + count
            self._unflushed += len(data)
            line = f"{offset} {at}\n"
            if self._unflushed >= _FLUSH_EVERY:
                os.fdatasync(self._file)
                self._unflushed = 0
                line += "flushed\n"
            os.write(self._log, line.encode())
            self._spans = merge([*self._spans, (offset, at)])

    def reset(self) -> None:
        """Forget all that has come."""
        with self._lock:
            self._spans = []
            os.ftruncate(self._file, 0)
            self._start_journal()

    def _start_journal(self) -> None:
        """Write the journal anew, short; until it is whole, the old one counts."""
        if self._spans:
            os.fdatasync(self._file)  # for these lines will count as flushed
        header = {"identity": self._identity, "size": self._size, "boot": boot_id()}
        lines = [json.dumps(header), *(f"{start} {end}" for start, end in self._spans), "flushed"]
        fresh = self._journal.with_name(f"{self._journal.name}.new")
        log = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            os.write(log, "".join(f"{line}\n" for line in lines).encode())
            os.fdatasync(log)
            fresh.replace(self._journal)
        except BaseException:
            os.close(log)
            raise
        if self._log >= 0:
            os.close(self._log)
        self._log = log


def journal_of(path: Path) -> Path:
    """Where the journal of a partial file lies."""
    return path.with_name(f"{path.name}.journal")


def boot_id() -> str | None:
    """Changes when the machine starts; None where the system does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return None


def read_spans(path: Path, size: int, identity: str) -> list[Span]:
    """What of the file at `path` can be relied on. Nothing of a file or journal that does not
    fit, is damaged or absent; raises nothing for any of it."""
    try:
        length = path.lstat().st_size
        with journal_of(path).open("rb") as file:
            text = file.read(_MAX_JOURNAL).decode("ascii")
    except (OSError, UnicodeError):
        return []
    first, *lines = text.split("\n")
    try:
        header = json.loads(first)
    except (ValueError, RecursionError):
        return []
    if not isinstance(header, dict):
        return []
    if (header.get("identity"), header.get("size")) != (identity, size):
        return []
    lines = lines[:-1]  # whatever follows the last newline was cut off while it was written
    boot = boot_id()
    if boot is None or header.get("boot") != boot:
        marks = [i for i, line in enumerate(lines) if line == "flushed"]
        lines = lines[: marks[-1]] if marks else []
    spans: list[Span] = []
    for line in lines:
        if (match := _LINE.fullmatch(line)) is not None:
            start, end = int(match[1]), int(match[2])
            if start < end <= min(size, length):
                spans.append((start, end))
    return merge(spans)


def merge(spans: list[Span]) -> list[Span]:
    """Spans in order, none touching another."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
