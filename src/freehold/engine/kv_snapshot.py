# SPDX-License-Identifier: Apache-2.0
"""Computed cache blocks on disk, so that a prompt's beginning outlives the process.

One file per block and group of layers, ``<directory>/<fingerprint>/<group>-<hash>.kv``:

    magic 8 bytes ("FHKVBLK1"), fingerprint 16, group u32, length of the data u64, hash of the
    block before (16, or 0 for the first), tokens i32 · block_size, data, BLAKE2b-128 of all before

Little-endian. The fingerprint stands for whatever the bytes depend on: model, device, layout,
type. A file that is damaged, cut short or another's is passed over with a line in the log. Files
are written aside, synced and renamed; the least recently used go when the directory is full.
Prompts can be made out from them, so they are their owner's alone (0600, in 0700).

Knows bytes and files; `prefix_snapshots` knows what is worth keeping and where it goes.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import queue
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from freehold.engine.sequence import hash_block
from freehold.errors import InvalidParameterError

MAGIC = b"FHKVBLK1"
DEFAULT_SNAPSHOT_BYTES = 8 << 30
MAX_QUEUED_BYTES = 256 << 20  # not yet on disk; more is not kept
_HEAD = struct.Struct("<8s16sIQB3x")
_SUM_BYTES = 16
_log = logging.getLogger("freehold.engine")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of one group: `digest` names it, `parent` the block before it (b"" = none)."""

    group: int
    digest: bytes
    parent: bytes
    tokens: bytes  # int32, little-endian
    data: bytes


class SnapshotStore:
    """Blocks of one fingerprint (16 bytes) in a directory that others may share.

    `load` and `has` belong to one thread; writing has a thread of its own. Raises
    InvalidParameterError where the directory cannot be used or others may write to it.
    """

    def __init__(
        self, directory: str | Path, fingerprint: bytes, limit: int = DEFAULT_SNAPSHOT_BYTES
    ) -> None:
        self._root, self._fingerprint, self._limit = Path(directory), fingerprint, limit
        self._own = self._root / fingerprint.hex()
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._root.stat().st_mode & 0o022:
                raise InvalidParameterError(
                    f"{self._root}: others may write to the directory of snapshots",
                    hint="chmod 700 it",
                )
            self._own.mkdir(mode=0o700, exist_ok=True)
            self._known = {entry.name for entry in os.scandir(self._own)}
        except OSError as error:
            raise InvalidParameterError(
                f"{directory!s:.200}: no place for snapshots: {error.strerror}"
            ) from None
        self._queue: queue.Queue[Block | None] = queue.Queue()
        self._queued, self._lock = 0, threading.Lock()
        self._count = itertools.count()
        self._used = self._trim(0)
        self._writer = threading.Thread(
            target=self._write_all, name="freehold-snapshots", daemon=True
        )
        self._writer.start()

    def has(self, group: int, digest: bytes) -> bool:
        """Whether the block is likely there."""
        return _name(group, digest) in self._known

    def load(
        self, group: int, digest: bytes, parent: bytes, tokens: bytes, size: int
    ) -> bytes | None:
        """The data of a block, `size` bytes, if it is there and whole."""
        name = _name(group, digest)
        if name not in self._known:
            return None
        try:
            data = self._read(name, group, digest, parent, tokens, size)
        except OSError as error:
            data = None
            _log.info("snapshot %s: %s", name, error.strerror)
        if data is None:
            self._known.discard(name)  # it will be written anew
        return data

    def _read(
        self, name: str, group: int, digest: bytes, parent: bytes, tokens: bytes, size: int
    ) -> bytes | None:
        wanted = self._head(group, parent, tokens, size)
        file = os.open(self._own / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            whole = len(wanted) + size + _SUM_BYTES
            if os.fstat(stream.fileno()).st_size != whole:
                _log.warning("snapshot %s has another size than its block and is ignored", name)
                return None
            raw = stream.read(whole + 1)
            os.utime(stream.fileno())
        if len(raw) != whole or not raw.startswith(wanted) or hash_block(parent, tokens) != digest:
            _log.warning("snapshot %s belongs to something else and is ignored", name)
            return None
        if _checksum(raw[:-_SUM_BYTES]) != raw[-_SUM_BYTES:]:
            _log.warning("snapshot %s is damaged and is ignored", name)
            return None
        return raw[len(wanted) : -_SUM_BYTES]

    def save(self, block: Block) -> bool:
        """Queue a block; False where too much waits for the disk already."""
        with self._lock:
            if self._queued + len(block.data) > MAX_QUEUED_BYTES:
                return False
            self._queued += len(block.data)
        self._known.add(_name(block.group, block.digest))
        self._queue.put(block)
        return True

    def flush(self) -> None:
        """Wait until all that was saved is on disk."""
        self._queue.join()

    def close(self) -> None:
        """Write what is queued and stop. May be called twice."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()

    # -- writing ---------------------------------------------------------------------------------
    def _write_all(self) -> None:
        while (block := self._queue.get()) is not None:
            try:
                self._write(block)
            except Exception as error:  # a full disk costs a snapshot, not an answer
                _log.warning("a snapshot could not be written: %s", error)
            finally:
                with self._lock:
                    self._queued -= len(block.data)
                self._queue.task_done()
        self._queue.task_done()

    def _write(self, block: Block) -> None:
        head = self._head(block.group, block.parent, block.tokens, len(block.data))
        whole = head + block.data
        whole += _checksum(whole)
        if self._used + len(whole) > self._limit:
            # Some more than needed, lest every block look through the directory.
            self._used = self._trim(len(whole) + self._limit // 16)
        if len(whole) > self._limit:
            return
        temporary = self._own / f".{os.getpid()}-{next(self._count)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(whole)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._own / _name(block.group, block.digest))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._used += len(whole)

    def _trim(self, extra: int) -> int:
        """Delete the least recently used files until `extra` bytes fit; bytes that are left."""
        files = []
        for path in self._root.glob("*/*"):
            try:
                stat = path.lstat()
            except OSError:
                continue
            if path.suffix in (".kv", ".tmp"):
                files.append((stat.st_mtime_ns, stat.st_size, path))
        used = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if used + extra <= self._limit:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used

    def _head(self, group: int, parent: bytes, tokens: bytes, size: int) -> bytes:
        head = _HEAD.pack(MAGIC, self._fingerprint, group, size, len(parent))
        return head + parent + tokens


def fingerprint_of(*parts: object) -> bytes:
    """16 bytes that stand for some values with a `repr` of their own."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_SUM_BYTES).digest()


def _name(group: int, digest: bytes) -> str:
    return f"{group}-{digest.hex()}.kv"
