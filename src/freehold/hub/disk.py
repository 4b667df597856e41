# SPDX-License-Identifier: Apache-2.0
"""What the store asks of the file system: locks between processes, writes that last, digests.

Knows nothing of models.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from freehold.errors import CapacityError, StoreError

CHUNK = 1 << 22  # bytes read at a time; hashing is as fast as with more
Watch = Callable[[int], None]  # told of bytes as they are worked on


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def store_errors(where: Path) -> Iterator[None]:
    """The operating system's refusals as ours: CapacityError for a full disk, else StoreError."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise CapacityError(f"{where}: the disk is full", hint="make room") from None
        name = error.filename if isinstance(error.filename, str) else os.fspath(where)
        raise StoreError(f"{name}: {error.strerror or error}") from None


@contextmanager
def file_lock(
    path: Path, *, shared: bool = False, wait: bool = True, passing: bool = False
) -> Iterator[bool]:
    """Hold a lock between processes (and threads), named by a file. Yields whether it is held:
    without `wait`, False at once when somebody else has it. It ends with the process. `passing`:
    the file goes when the lock does."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, kind)
            except BlockingIOError:
                yield False
                return
            if passing and not _is_still(handle, path):
                continue  # who had it before took the file away: hold the lock that others see
            try:
                yield True
            finally:
                if passing:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


def _is_still(handle: int, path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """A regular file for reading; OSError for anything else, also for a pipe nobody writes to."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return os.fdopen(handle, "rb")


def read_small(path: Path, limit: int) -> bytes | None:
    """A file of at most `limit` bytes; None where it is longer. Raises OSError."""
    with open_regular(path) as file:
        parts: list[bytes] = []
        left = limit + 1
        while left > 0 and (part := file.read(min(left, CHUNK))):
            parts.append(part)
            left -= len(part)
    return None if left <= 0 else b"".join(parts)


def digest_of(file: BinaryIO, watch: Watch | None = None) -> tuple[str, int]:
    """SHA-256 and number of the bytes from here to the end."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    size = 0
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
        size += count
        if watch is not None:
            watch(count)
    return digest.hexdigest(), size
