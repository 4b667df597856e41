# SPDX-License-Identifier: Apache-2.0
"""Files and batches of one server: opened when they are first needed, taken up again at its start.

Everything lies in one directory, which one process at a time uses. Knows no dialect: those tell how
the answers of their batches are written together (`finish`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from freehold.server.batches.runner import Answer, BatchRunner, Finish
from freehold.server.batches.store import BatchStore
from freehold.server.failures import RequestError
from freehold.server.files.disk import FolderLock, Quota
from freehold.server.files.store import FileStore

_log = logging.getLogger("freehold.server")


class Batches:
    """All methods belong to one event loop."""

    def __init__(
        self, folder: Path | None, *, max_bytes: int, max_lines: int, others: Callable[[], int]
    ) -> None:
        """`max_lines` are under way at once; see `BatchRunner` for `others`."""
        self.finish: dict[str, Finish] = {}
        self.answer: Answer | None = None
        self._folder, self._max_bytes, self._max_lines = folder, max_bytes, max_lines
        self._others = others
        self._opening = asyncio.Lock()
        self._lock: FolderLock | None = None
        self._closed = False

    async def start(self) -> None:
        """Go on with what an earlier process left. Whatever hinders it is told to who asks."""
        if self._folder is not None and self._folder.is_dir():
            with contextlib.suppress(RequestError):
                await self.ready()

    async def ready(self) -> None:
        """Open the directory; `files`, `store` and `runner` are there afterwards.

        Raises RequestError where nothing can be kept.
        """
        async with self._opening:
            if self._lock is not None:
                return
            if self._folder is None or self._closed:
                raise RequestError(
                    "this server keeps no files", hint="start it with --data-dir", status_code=501
                )
            await self._open(self._folder)

    async def _open(self, folder: Path) -> None:
        try:
            lock = await asyncio.to_thread(FolderLock, folder)
        except BlockingIOError:
            raise RequestError(
                "files and batches are kept by another server on this machine", kind="overloaded",
                hint="start this one with a --data-dir of its own", retry_after=60,
            ) from None  # fmt: skip
        except OSError as error:
            _log.error("files cannot be kept: %s", error)
            raise RequestError("the server cannot keep files; its log says why",
                               kind="overloaded", retry_after=60) from None  # fmt: skip
        assert self.answer is not None
        try:
            quota = Quota(self._max_bytes)
            self.files = await asyncio.to_thread(FileStore, folder / "files", quota)
            self.store = await asyncio.to_thread(BatchStore, folder / "batches", quota)
        except BaseException:
            lock.release()
            raise
        self.runner = BatchRunner(
            self.store, self.answer, self._others, self.finish, max_lines=self._max_lines,
            sweep=self._sweep,
        )  # fmt: skip
        self._lock = lock

    def _sweep(self) -> None:
        self.files.sweep()
        self.store.sweep()

    async def close(self) -> None:
        """Stop working; what is not done is done after the next start."""
        async with self._opening:
            self._closed = True
            if self._lock is not None:
                await self.runner.close()
                self._lock.release()
                self._lock = None
