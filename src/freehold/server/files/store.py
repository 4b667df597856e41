# SPDX-License-Identifier: Apache-2.0
"""Files that clients left here, or that were written for them. Knows no dialect.

A file is ``ID.data`` and ``ID.json``; the latter is written last, and what lacks it after a crash
is swept away. Ids are drawn at random, and one becomes part of a path only after it was found among
those known. Files of another key do not exist.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from freehold.server.failures import RequestError
from freehold.server.files.disk import Quota, sync_folder, write_atomically

MAX_FILES = 10_000  # of one key
_ID = re.compile(r"file-[0-9a-f]{24}")


def new_file_id() -> str:
    """An id no file has yet."""
    return f"file-{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a file beside its bytes. Times are seconds since 1970."""

    file_id: str
    owner: str
    filename: str
    purpose: str
    size: int
    created: int
    expires: int | None = None

    @property
    def expired(self) -> bool:
        """Whether it is past its time."""
        return self.expires is not None and self.expires <= time.time()


class Incoming:
    """A file that is being written. End it with `commit` or `abort`."""

    def __init__(
        self, store: FileStore, owner: str, max_bytes: int | None, name: str, *, anyway: bool
    ) -> None:
        self._store, self._owner, self._max, self._anyway = store, owner, max_bytes, anyway
        self.file_id = name
        self.size = 0
        self._path = store.folder / f"{name}.part"
        self._file = self._path.open("wb")

    def write(self, data: bytes) -> None:
        """Raises RequestError (too_large) beyond the file's limit or everybody's."""
        if self._max is not None and self.size + len(data) > self._max:
            raise RequestError(
                f"a file may have {self._max:,} bytes", kind="too_large", param="file"
            )
        self._store.quota.take(len(data), anyway=self._anyway)
        self.size += len(data)
        self._file.write(data)

    def commit(self, filename: str, purpose: str, expires_in: int | None = None) -> StoredFile:
        """Keep it. Blocks until it is on disk."""
        now = int(time.time())
        expires = None if expires_in is None else now + expires_in
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        record = StoredFile(self.file_id, self._owner, filename, purpose, self.size, now, expires)
        self._store.add(record, self._path)
        return record

    def abort(self) -> None:
        """Forget it, unless it was committed."""
        if not self._file.closed:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._store.quota.give(self.size)


class FileStore:
    """Reads the folder once; from then on it alone writes there."""

    def __init__(self, folder: Path, quota: Quota) -> None:
        self.folder, self.quota = folder, quota
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files: dict[str, StoredFile] = {}
        for path in sorted(folder.glob("*.json")):
            record = self._read(path)
            if record is not None:
                self._files[record.file_id] = record
                quota.take(record.size, anyway=True)
        for path in folder.iterdir():  # left over from a crash
            known = path.suffix in (".data", ".json") and path.stem in self._files
            if path.is_file() and not known:
                path.unlink()

    def _read(self, path: Path) -> StoredFile | None:
        try:
            record = StoredFile(**json.loads(path.read_bytes()))
            size = self.data(record).stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        return record if _ID.fullmatch(path.stem) and size == record.size else None

    def data(self, record: StoredFile) -> Path:
        """Where the bytes of a file lie."""
        return self.folder / f"{record.file_id}.data"

    def begin(
        self, owner: str, *, max_bytes: int | None = None, file_id: str | None = None,
        anyway: bool = False,
    ) -> Incoming:  # fmt: skip
        """Write a new file. One of the same id is replaced. `anyway`: beyond every limit.

        Raises RequestError where the key has too many files.
        """
        if not anyway and len(self.of(owner)) >= MAX_FILES:
            raise RequestError(
                f"{MAX_FILES:,} files are kept already", kind="too_large",
                hint="delete files that are not needed",
            )  # fmt: skip
        name = file_id or new_file_id()
        assert _ID.fullmatch(name)
        return Incoming(self, owner, max_bytes, name, anyway=anyway)

    def add(self, record: StoredFile, part: Path) -> None:
        """Take over what was written to `part`."""
        known = self._files.pop(record.file_id, None)
        if known is not None:
            self.quota.give(known.size)
        part.replace(self.data(record))
        write_atomically(
            self.folder / f"{record.file_id}.json", json.dumps(asdict(record)).encode()
        )
        self._files[record.file_id] = record

    def get(self, owner: str, file_id: str) -> StoredFile:
        """Raises RequestError (not_found)."""
        record = self._files.get(file_id)
        if record is None or record.owner != owner or record.expired:
            raise RequestError(
                f"there is no file {file_id!r:.80}", kind="not_found", param="file_id"
            )
        return record

    def of(
        self, owner: str, wanted: Callable[[StoredFile], bool] = lambda _: True
    ) -> list[StoredFile]:
        """Files of a key, oldest first."""
        files = [f for f in list(self._files.values()) if f.owner == owner and not f.expired]
        return sorted(filter(wanted, files), key=lambda f: f.created)

    def delete(self, owner: str, file_id: str) -> None:
        """Raises RequestError (not_found)."""
        self._remove(self.get(owner, file_id))
        sync_folder(self.folder)

    def sweep(self) -> None:
        """Remove what is past its time."""
        for record in [record for record in list(self._files.values()) if record.expired]:
            self._remove(record)

    def _remove(self, record: StoredFile) -> None:
        if self._files.pop(record.file_id, None) is None:
            return
        # In this order: data alone is swept away after a crash.
        for path in (self.folder / f"{record.file_id}.json", self.data(record)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        self.quota.give(record.size)
