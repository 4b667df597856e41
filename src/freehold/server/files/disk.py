# SPDX-License-Identifier: Apache-2.0
"""What the server keeps on disk: whole files or none, one process at a time, up to a limit."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from freehold.server.failures import RequestError

_Result = TypeVar("_Result")


async def to_the_end(function: Callable[..., _Result], *given: Any) -> _Result:
    """Run something on a thread; who is cancelled meanwhile waits until it is over."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *given))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class Quota:
    """Bytes that may be on disk altogether. May be asked from several threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether there is room for nothing more."""
        return self.used >= self.limit

    def take(self, count: int, *, anyway: bool = False) -> None:
        """Count bytes in. `anyway`: what is being finished may go beyond the limit.

        Raises RequestError (too_large), and counts nothing then.
        """
        with self._lock:
            if not anyway and self.used + count > self.limit:
                raise RequestError(
                    f"the server keeps {self.limit:,} bytes of files and no more",
                    kind="too_large", hint="delete files that are not needed",
                )  # fmt: skip
            self.used += count

    def give(self, count: int) -> None:
        """Count bytes out."""
        with self._lock:
            self.used -= count


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file; after a crash it is the old one or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderLock:
    """A folder that one process at a time uses. The system lets go of it when the process ends."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where the folder cannot be made, BlockingIOError where it is in use."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise

    def release(self) -> None:
        """Let others have it."""
        os.close(self._handle)
