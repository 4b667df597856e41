# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: frames, and the time a stream may take.

Who leaves before an answer begins is noticed for all routes in `limits/middleware.py`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.responses import StreamingResponse

from freehold.server.failures import Failure, RequestError, failure_of
from freehold.server.request_context import current

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


# Made once: every token is a frame, and options other than json's own cost it an encoder each.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def dumps(value: Any) -> str:
    """Compact JSON, on one line, characters as they are. What is no number is null in JSON."""
    return _encode(value)


def frame(data: Mapping[str, Any] | str, event: str | None = None) -> str:
    """One event. Its data has no line breaks, since JSON writes them escaped."""
    text = data if isinstance(data, str) else dumps(data)
    return f"data: {text}\n\n" if event is None else f"event: {event}\ndata: {text}\n\n"


def stream_response(
    frames: AsyncGenerator[str, None],
    on_error: Callable[[Failure], str],
    *,
    holding: AsyncExitStack | None = None,
    media_type: str = "text/event-stream",
) -> StreamingResponse:
    """A response that sends `frames` as they come.

    An error on the way is the last frame, as `on_error` writes it: the status has been sent. When
    the client goes, `frames` is closed. `holding` (a lease) is let go at the end in any case.
    """

    async def body() -> AsyncIterator[bytes]:
        async with holding or AsyncExitStack():
            clock = _Clock(current().deadline)
            try:
                async with aclosing(frames) as items:
                    while (item := await clock.next_of(items)) is not None:
                        yield item.encode()
            except Exception as error:
                yield on_error(failure_of(error)).encode()
            finally:
                clock.stop()

    return StreamingResponse(body(), media_type=media_type, headers=dict(HEADERS))


class _Clock:
    """Ends a stream when its request's time is over: one timer for all of its frames. What is
    interrupted is the making of a frame, never the sending."""

    def __init__(self, deadline: float | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._waiting = task, False
        self._rang = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._timer = None if deadline is None else loop.call_at(deadline, self._ring)

    async def next_of(self, frames: AsyncGenerator[str, None]) -> str | None:
        """The next frame, None after the last. Raises RequestError when time is over."""
        if self._rang.is_set():
            raise _late()
        self._waiting = True
        try:
            return await anext(frames, None)
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task too; then it is to end.
            if self._rang.is_set() and self._task.uncancel() == 0:
                raise _late() from None
            raise
        finally:
            self._waiting = False

    def stop(self) -> None:
        """The stream is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._rang.set()
        if self._waiting:
            self._task.cancel()


def _late() -> RequestError:
    return RequestError("the answer took longer than it may", kind="timeout")
