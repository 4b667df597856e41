# SPDX-License-Identifier: Apache-2.0
"""Anthropic's message batches: ``/v1/messages/batches``. Many messages in, their results later."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from freehold.formats.batch_requests import MAX_LINE_BYTES
from freehold.server.anthropic.format import STATUSES, error_body
from freehold.server.batches.lines import MAX_LINES, Journal, Lines, dumps_safely
from freehold.server.batches.runner import INPUT
from freehold.server.batches.store import Batch
from freehold.server.failures import RequestError
from freehold.server.files.disk import sync_folder, to_the_end
from freehold.server.paging import page_between
from freehold.server.security.caller import caller
from freehold.server.services import Body, Dialect, Services

KIND = "anthropic"
ENDPOINT = "/v1/messages"
RESULTS = "results.jsonl"
SECONDS = 86400
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_ASKED = {"expired": "expired", "cancelled": "canceled"}


class MessageRequest(Body):
    """One of the messages to answer."""

    custom_id: str
    params: dict[str, Any]


class BatchBody(Body):
    """The request."""

    requests: list[MessageRequest]


def batch_body(batch: Batch, request: Request) -> dict[str, Any]:
    """A batch as Anthropic's clients read it: results count once all of them are there."""
    over, times = batch.over, batch.times
    status = "in_progress"
    if over:
        status = "ended"
    elif batch.ending == "cancelled":
        status = "canceling"
    left = batch.unfinished if over else 0
    address = f"{request.base_url}v1/messages/batches/{batch.batch_id}/results"
    return {
        "id": batch.batch_id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {
            "processing": 0 if over else batch.total,
            "succeeded": batch.completed if over else 0,
            "errored": batch.failed + (left if batch.ending not in _NOT_ASKED else 0)
            if over else 0,
            "canceled": left if batch.ending == "cancelled" else 0,
            "expired": left if batch.ending == "expired" else 0,
        },
        "created_at": _time(batch.created),
        "expires_at": _time(batch.expires),
        "ended_at": _time(max(times.values())) if over else None,
        "cancel_initiated_at": _time(times.get("cancelling")),
        "archived_at": None,
        "results_url": address if over else None,
    }  # fmt: skip


def _time(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def results(batch: Batch, lines: Lines, journal: Journal) -> Iterator[bytes]:
    """What came of each message, in their order."""
    for index in range(len(lines)):
        record = journal.read(index)
        if record is None:
            kind = _NOT_ASKED.get(batch.ending)
            result: dict[str, Any] = {"type": kind}
            if kind is None:
                error = {"type": "api_error", "message": "the request could not be read again"}
                result = {"type": "errored", "error": {"type": "error", "error": error}}
            custom_id = lines.read(index)[0]
        else:
            custom_id, answer = record["custom_id"], record["body"]
            if 200 <= record["status"] < 300:
                result = {"type": "succeeded", "message": answer}
            else:
                result = {"type": "errored", "error": {**answer, "request_id": record["id"]}}
        yield dumps_safely({"custom_id": custom_id, "result": result}) + b"\n"


def _write_lines(path: Path, requests: Sequence[MessageRequest]) -> None:
    with path.open("wb") as file:
        for each in requests:
            line = {"custom_id": each.custom_id, "url": ENDPOINT, "body": each.params}
            raw = dumps_safely(line) + b"\n"
            if len(raw) > MAX_LINE_BYTES:
                raise RequestError(
                    f"{each.custom_id}: a message may have {MAX_LINE_BYTES:,} bytes",
                    kind="too_large", param="requests",
                )  # fmt: skip
            file.write(raw)


def _check(requests: Sequence[MessageRequest]) -> None:
    if not 1 <= len(requests) <= MAX_LINES:
        raise RequestError(f"requests must hold 1 to {MAX_LINES:,} messages", param="requests")
    seen: set[str] = set()
    for i, each in enumerate(requests):
        where = f"requests.{i}"
        if not _CUSTOM_ID.fullmatch(each.custom_id):
            raise RequestError(
                f"{where}.custom_id must be 1 to 64 letters, digits, dashes and underscores",
                param=f"{where}.custom_id",
            )
        if each.custom_id in seen:
            raise RequestError(
                f"{where}.custom_id: {each.custom_id} is there already", param=f"{where}.custom_id"
            )
        seen.add(each.custom_id)
        if each.params.get("stream"):
            raise RequestError(
                f"{where}.params.stream is not possible in a batch", param=f"{where}.params.stream"
            )


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["anthropic"])
    batches = services.batches

    def finish(batch: Batch, lines: Lines, journal: Journal) -> None:
        place = batches.store.place(batch)
        part = place / (RESULTS + ".part")
        with part.open("wb") as file:
            file.writelines(results(batch, lines, journal))
        part.replace(place / RESULTS)
        sync_folder(place)

    batches.finish[KIND] = finish

    @routes.post("/v1/messages/batches")
    async def create(body: BatchBody, request: Request) -> dict[str, Any]:
        """Answer many messages, behind those who wait for an answer."""
        await batches.ready()
        owner = caller(request)
        await asyncio.to_thread(_check, body.requests)
        if batches.store.quota.full:
            raise RequestError(
                "the server has no room for more batches", kind="overloaded", retry_after=60
            )
        batch = batches.store.create("msgbatch", KIND, owner, ENDPOINT, "24h", SECONDS)
        batch.total = len(body.requests)
        place = batches.store.place(batch) / INPUT
        try:
            await to_the_end(_write_lines, place, body.requests)
            await to_the_end(batches.store.add, batch)
        except BaseException:
            batches.store.discard(batch)
            raise
        batches.runner.submit(batch)
        return batch_body(batch, request)

    @routes.get("/v1/messages/batches")
    async def listed(
        request: Request, after_id: str | None = None, before_id: str | None = None,
        limit: int = 20,
    ) -> dict[str, Any]:  # fmt: skip
        """All batches of this key, the latest first."""
        await batches.ready()
        found = batches.store.of(caller(request), KIND)[::-1]
        shown, more = page_between(
            found, lambda b: b.batch_id, after=after_id, before=before_id, limit=limit, most=1000
        )
        return {
            "data": [batch_body(batch, request) for batch in shown],
            "has_more": more,
            "first_id": shown[0].batch_id if shown else None,
            "last_id": shown[-1].batch_id if shown else None,
        }

    @routes.get("/v1/messages/batches/{batch_id}")
    async def retrieve(batch_id: str, request: Request) -> dict[str, Any]:
        """How far a batch is."""
        await batches.ready()
        return batch_body(batches.store.get(caller(request), KIND, batch_id), request)

    @routes.post("/v1/messages/batches/{batch_id}/cancel")
    async def cancel(batch_id: str, request: Request) -> dict[str, Any]:
        """Ask no more of its messages; answers that are there are kept."""
        await batches.ready()
        batch = batches.store.get(caller(request), KIND, batch_id)
        await batches.runner.cancel(batch)
        return batch_body(batch, request)

    @routes.delete("/v1/messages/batches/{batch_id}")
    async def delete(batch_id: str, request: Request) -> dict[str, Any]:
        """Forget a batch that has ended, and its results."""
        await batches.ready()
        batch = batches.store.get(caller(request), KIND, batch_id)
        if not batch.over:
            raise RequestError("the batch has not ended", param="batch_id", hint="cancel it first")
        await to_the_end(batches.store.remove, batch)
        return {"id": batch_id, "type": "message_batch_deleted"}

    @routes.get("/v1/messages/batches/{batch_id}/results", response_class=FileResponse)
    async def results_of(batch_id: str, request: Request) -> Response:
        """What came of the messages, one to a line."""
        await batches.ready()
        batch = batches.store.get(caller(request), KIND, batch_id)
        if not batch.over:
            raise RequestError("the batch has not ended", kind="not_found", param="batch_id")
        path = batches.store.place(batch) / RESULTS
        if not path.is_file():
            raise RequestError("the batch has no results", kind="not_found", param="batch_id")
        return FileResponse(
            path, media_type="application/x-jsonl",
            headers={"X-Content-Type-Options": "nosniff"},
        )  # fmt: skip

    return routes


DIALECT = Dialect("anthropic_batches", ("/v1/messages/batches",), router, error_body, STATUSES)
