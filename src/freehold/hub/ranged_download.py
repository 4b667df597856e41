# SPDX-License-Identifier: Apache-2.0
"""One file by HTTP into a `Partial`: cut into pieces that some threads ask for by range.

A server that does not know ranges gives the whole on one connection. A connection that breaks is
tried again from where it broke, as long as something is gained now and then. Nothing here says that
the bytes are the right ones: the digest is looked at by `transfer.py`, when all have come.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freehold.errors import IntegrityError
from freehold.hub.partial import Partial, Span
from freehold.hub.remote import RemoteFile
from freehold.hub.web import Web
from freehold.hub.web_errors import Refused, Temporary, check_encoding

if TYPE_CHECKING:
    import httpx

Report = Callable[[int], None]  # told how many bytes of the file are there
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_GAIN = 64 << 10  # bytes that make a try worth having been made
_FAREWELL = 1.0  # seconds for threads to end; one that hangs in the network is left behind


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How a file is cut. Bytes, and seconds."""

    connections: int = 6
    smallest_piece: int = 1 << 20
    largest_piece: int = 64 << 20
    write_size: int = 256 << 10  # gathered before they are written
    slow_after: float = 60.0  # a connection that gives less than `slow_bytes` in this time is cut
    slow_bytes: int = 16 << 10


class _NoRanges(Exception):
    """The server gives the whole file, whatever was asked for."""


class RangedDownload:
    """The threads that fetch one file."""

    def __init__(
        self, file: RemoteFile, url: str, part: Partial, web: Web, limits: TransferLimits
    ) -> None:
        self._file, self._url, self._part = file, url, part
        self._web, self._limits = web, limits
        self._pieces: queue.SimpleQueue[Span] = queue.SimpleQueue()
        self._ranges = threading.Event()  # the server was seen to give ranges, or all is over
        self._leave = threading.Event()
        self._failure: BaseException | None = None

    def run(self, report: Report) -> None:
        """Fetch everything that is missing."""
        try:
            if self._part.missing():
                self._together(report)
        except _NoRanges:
            # Another object, so that threads which are still on their way out have left this one.
            alone = RangedDownload(self._file, self._url, self._part, self._web, self._limits)
            alone._web.patiently(lambda: alone._whole(report))
        report(self._part.done)

    def _together(self, report: Report) -> None:
        pieces = self._cut()
        for piece in pieces:
            self._pieces.put(piece)
        threads = [
            threading.Thread(target=self._work, args=(i == 0,), daemon=True)
            for i in range(min(self._limits.connections, len(pieces)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive() and not self._leave.is_set():
                    # Short waits: Python heeds Ctrl-C between them.
                    thread.join(0.1)
                    report(self._part.done)
        finally:
            self._leave.set()
            self._ranges.set()
            deadline = time.monotonic() + _FAREWELL
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._failure is not None:
            raise self._failure

    def _cut(self) -> list[Span]:
        """What is missing, in pieces: so many that all connections have work to the end."""
        even = self._file.size // (4 * self._limits.connections)
        size = min(max(even, self._limits.smallest_piece), self._limits.largest_piece)
        return [
            (at, min(at + size, end))
            for start, end in self._part.missing()
            for at in range(start, end, size)
        ]

    def _work(self, first: bool) -> None:
        if not first:
            self._ranges.wait()
        try:
            while not self._leave.is_set():
                self._piece(self._pieces.get_nowait())
        except queue.Empty:
            pass
        except BaseException as error:
            if self._failure is None:
                self._failure = error
            self._leave.set()
        finally:
            if first:
                self._ranges.set()

    def _piece(self, span: Span) -> None:
        """One piece, however many tries it takes; a try that gained something starts afresh."""
        at, end = span
        fruitless = 0
        while at < end and not self._leave.is_set():
            before = at
            try:
                at = self._range(at, end)
            except _Broken as broken:
                at = broken.at
                enough = min(_GAIN, end - before)
                fruitless = 1 if at - before >= enough else fruitless + 1
                if fruitless > self._web.limits.retries:
                    raise self._web.given_up(broken.cause, fruitless) from None
                self._web.pause(fruitless - 1, broken.cause)

    def _range(self, start: int, end: int) -> int:
        """Ask for a stretch and write what comes; gives where it ended. Raises _Broken."""
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if self._file.validator is not None:
            headers["If-Range"] = self._file.validator
        sink = _Sink(self._part, start, end, self._limits)
        try:
            with self._web.open(self._url, headers) as response:
                if response.status_code == 206:
                    self._check_range(response, start, end)
                    self._ranges.set()
                elif (start, end) != (0, self._file.size):
                    raise _NoRanges
                else:
                    self._check_whole(response)
                self._drain(response, sink, whole=response.status_code != 206)
        except Temporary as error:
            sink.flush()
            raise _Broken(sink.at, error) from None
        except Refused as refused:
            if refused.status == 416:
                raise self._changed("the server has less by now") from None
            raise
        return sink.at

    def _whole(self, report: Report) -> None:
        """Everything on one connection, from the beginning."""
        self._part.reset()
        sink = _Sink(self._part, 0, self._file.size, self._limits, report)
        with self._web.open(self._url) as response:
            self._check_whole(response)
            self._drain(response, sink, whole=True)

    def _drain(self, response: httpx.Response, sink: _Sink, *, whole: bool) -> None:
        check_encoding(response)
        for chunk in response.iter_raw():
            if self._leave.is_set():
                break
            if not sink.take(chunk):
                if whole:
                    raise self._changed("more bytes came")
                break  # of a range, what is beyond it is of no interest
        sink.flush()
        if sink.at < sink.end and not self._leave.is_set():
            raise Temporary(f"{response.url.host} ended the answer early")

    def _check_range(self, response: httpx.Response, start: int, end: int) -> None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
        if match is None or int(match[1]) != start or int(match[2]) > end - 1:
            raise _NoRanges  # what was sent is not what was asked for: trust no range of it
        if match[3] != "*" and int(match[3]) != self._file.size:
            raise self._changed(f"the server has {int(match[3]):,}")
        self._check_validator(response)

    def _check_whole(self, response: httpx.Response) -> None:
        length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) != self._file.size:
            check_encoding(response)
            raise self._changed(f"the server has {int(length[:20]):,}")
        self._check_validator(response)

    def _check_validator(self, response: httpx.Response) -> None:
        promised = self._file.validator
        if promised is None:
            return
        told = response.headers.get("etag" if promised.startswith('"') else "last-modified")
        if told is not None and told != promised:
            raise IntegrityError(
                f"{self._file.name}: the server has another version by now",
                hint="the same command fetches the new one",
            )

    def _changed(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self._file.name}: {what}, where {self._file.size:,} bytes were promised",
            hint="if it changed on the server meanwhile, the same command fetches the new one",
        )


class _Broken(Exception):
    """A stretch came as far as `at`."""

    def __init__(self, at: int, cause: Temporary) -> None:
        super().__init__()
        self.at, self.cause = at, cause


class _Sink:
    """Gathers chunks and writes them; notices a connection that has all but stopped."""

    def __init__(
        self,
        part: Partial,
        start: int,
        end: int,
        limits: TransferLimits,
        report: Report | None = None,
    ) -> None:
        self.at, self.end = start, end  # `at` counts what was written
        self._part, self._limits, self._report = part, limits, report
        self._buffer = bytearray()
        self._since, self._came = time.monotonic(), 0

    def take(self, chunk: bytes) -> bool:
        """False when there was more than belongs here; what belongs here was taken."""
        room = self.end - self.at - len(self._buffer)
        self._buffer += chunk[:room]
        if len(self._buffer) >= self._limits.write_size:
            self.flush()
        self._came += len(chunk)
        now = time.monotonic()
        if now - self._since > self._limits.slow_after:
            if self._came < self._limits.slow_bytes:
                raise Temporary("the connection is as good as dead")
            self._since, self._came = now, 0
        return len(chunk) <= room

    def flush(self) -> None:
        """Write what was gathered."""
        if self._buffer:
            self._part.write(self.at, self._buffer)
            self.at += len(self._buffer)
            self._buffer.clear()
            if self._report is not None:
                self._report(self._part.done)
