# SPDX-License-Identifier: Apache-2.0
"""OpenAI's batches: ``/v1/batches``. A file of requests in, a file of answers out."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from freehold.server.batches.lines import Journal, Lines, dumps_safely
from freehold.server.batches.runner import INPUT
from freehold.server.batches.store import Batch
from freehold.server.failures import RequestError
from freehold.server.files.disk import to_the_end
from freehold.server.files.store import FileStore, new_file_id
from freehold.server.openai.files import KEPT, MAX_AGE, MIN_AGE
from freehold.server.openai.format import check_metadata, error_body
from freehold.server.paging import list_body, page
from freehold.server.security.caller import caller
from freehold.server.services import Body, Dialect, Services

KIND = "openai"
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MAX_DAYS = 30
_WINDOW = re.compile(r"([0-9]{1,3})([hd])")
_NOT_ASKED = {
    "expired": ("batch_expired", "the time of the batch was over before this request's turn"),
    "cancelled": ("batch_cancelled", "the batch was cancelled before this request's turn"),
    "completed": ("server_error", "the request could not be read again"),
}


class ExpiresAfter(Body):
    """How long the files of answers are kept."""

    anchor: str
    seconds: int


class BatchBody(Body):
    """The request."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None


def window_seconds(text: str) -> int:
    """``24h``, or any other number of hours or days. Raises RequestError."""
    match = _WINDOW.fullmatch(text)
    seconds = 0 if match is None else int(match[1]) * (3600 if match[2] == "h" else 86400)
    if not 3600 <= seconds <= MAX_DAYS * 86400:
        raise RequestError(
            f"completion_window must be 24h, or hours or days up to {MAX_DAYS}d",
            param="completion_window",
        )
    return seconds


def batch_body(batch: Batch) -> dict[str, Any]:
    """A batch as OpenAI's clients read it."""
    times = batch.times
    errors = {"object": "list", "data": batch.errors} if batch.errors else None
    return {
        "id": batch.batch_id, "object": "batch", "endpoint": batch.endpoint,
        "errors": errors, "input_file_id": batch.input_file_id,
        "completion_window": batch.window, "status": batch.status,
        "output_file_id": batch.output_file_id if batch.over and batch.completed else None,
        "error_file_id": batch.error_file_id if batch.over and _failures(batch) else None,
        "created_at": batch.created, "expires_at": batch.expires,
        **{f"{name}_at": times.get(name) for name in (
            "in_progress", "finalizing", "completed", "failed", "expired", "cancelling",
            "cancelled",
        )},
        "request_counts": {
            "total": batch.total, "completed": batch.completed, "failed": batch.failed,
        },
        "usage": _usage(batch.usage) if batch.over else None,
        "metadata": batch.metadata,
    }  # fmt: skip


def _failures(batch: Batch) -> int:
    return batch.failed + batch.unfinished


def _usage(sums: Mapping[str, int]) -> dict[str, Any]:
    """Token counts of all answers, whatever their dialect calls them."""

    def of(*names: str) -> int:
        return next((sums[name] for name in names if name in sums), 0)

    return {
        "input_tokens": of("input_tokens", "prompt_tokens"),
        "input_tokens_details": {"cached_tokens": of(
            "input_tokens_details.cached_tokens", "prompt_tokens_details.cached_tokens",
        )},
        "output_tokens": of("output_tokens", "completion_tokens"),
        "output_tokens_details": {"reasoning_tokens": of(
            "output_tokens_details.reasoning_tokens", "completion_tokens_details.reasoning_tokens",
        )},
        "total_tokens": of("total_tokens"),
    }  # fmt: skip


def answers(batch: Batch, lines: Lines, journal: Journal) -> Iterator[tuple[bool, bytes]]:
    """(whether it was answered, line of the file it belongs to), in the order of the requests."""
    for index in range(len(lines)):
        record = journal.read(index)
        if record is not None:
            response = {
                "status_code": record["status"], "request_id": record["id"], "body": record["body"],
            }  # fmt: skip
            shown = {
                "id": record["id"], "custom_id": record["custom_id"], "response": response,
                "error": None,
            }  # fmt: skip
            yield 200 <= record["status"] < 300, dumps_safely(shown) + b"\n"
        else:
            code, message = _NOT_ASKED[batch.ending]
            shown = {
                "id": f"batch_req_{batch.batch_id[-16:]}{index:08x}",
                "custom_id": lines.read(index)[0], "response": None,
                "error": {"code": code, "message": message},
            }  # fmt: skip
            yield False, dumps_safely(shown) + b"\n"


def write_answers(files: FileStore, batch: Batch, lines: Lines, journal: Journal) -> None:
    """Write the files of answers and of errors, each only where there are any."""
    with ExitStack() as stack:
        wanted: list[tuple[bool, str | None, int, str]] = [
            (True, batch.output_file_id, batch.completed, "output"),
            (False, batch.error_file_id, _failures(batch), "error"),
        ]
        incoming = {}
        for good, file_id, count, name in wanted:
            if count:
                incoming[good] = files.begin(batch.owner, file_id=file_id, anyway=True), name
                stack.callback(incoming[good][0].abort)
        for good, line in answers(batch, lines, journal):
            incoming[good][0].write(line)
        for file, name in incoming.values():
            filename = f"{batch.batch_id}_{name}.jsonl"
            file.commit(filename, "batch_output", batch.keep_seconds)


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])
    batches = services.batches

    def finish(batch: Batch, lines: Lines, journal: Journal) -> None:
        write_answers(batches.files, batch, lines, journal)

    batches.finish[KIND] = finish

    @routes.post("/v1/batches")
    async def create(body: BatchBody, request: Request) -> dict[str, Any]:
        """Answer all requests of a file, behind those who wait for an answer."""
        await batches.ready()
        owner = caller(request)
        check_metadata(body.metadata)
        seconds = window_seconds(body.completion_window)
        if body.endpoint not in services.endpoints & set(ENDPOINTS):
            raise RequestError(
                f"endpoint {body.endpoint!r:.80} is none of {', '.join(ENDPOINTS)}",
                param="endpoint",
            )
        kept = KEPT
        if body.output_expires_after is not None:
            kept = body.output_expires_after.seconds
            if body.output_expires_after.anchor != "created_at" or not MIN_AGE <= kept <= MAX_AGE:
                raise RequestError(
                    f"output_expires_after must be {MIN_AGE} to {MAX_AGE} seconds from created_at",
                    param="output_expires_after",
                )
        file = batches.files.get(owner, body.input_file_id)
        batch = batches.store.create(
            "batch", KIND, owner, body.endpoint, body.completion_window, seconds
        )
        batch.metadata = body.metadata or {}
        batch.input_file_id = file.file_id
        batch.output_file_id, batch.error_file_id = new_file_id(), new_file_id()
        batch.keep_seconds = kept
        place = batches.store.place(batch) / INPUT
        try:
            await to_the_end(_take, batches.files.data(file), place)
            await to_the_end(batches.store.add, batch)
        except BaseException:
            batches.store.discard(batch)
            raise
        batches.runner.submit(batch)
        return batch_body(batch)

    @routes.get("/v1/batches")
    async def listed(request: Request, after: str | None = None, limit: int = 20) -> dict[str, Any]:
        """All batches of this key, the latest first."""
        await batches.ready()
        found = batches.store.of(caller(request), KIND)
        shown, more = page(found, lambda b: b.batch_id, after=after, limit=limit)
        return list_body([batch_body(batch) for batch in shown], more)

    @routes.get("/v1/batches/{batch_id}")
    async def retrieve(batch_id: str, request: Request) -> dict[str, Any]:
        """How far a batch is."""
        await batches.ready()
        return batch_body(batches.store.get(caller(request), KIND, batch_id))

    @routes.post("/v1/batches/{batch_id}/cancel")
    async def cancel(batch_id: str, request: Request) -> dict[str, Any]:
        """Ask no more of its requests; answers that are there are kept."""
        await batches.ready()
        batch = batches.store.get(caller(request), KIND, batch_id)
        await batches.runner.cancel(batch)
        return batch_body(batch)

    return routes


def _take(source: Path, target: Path) -> None:
    """Let the requests stay when their file is deleted."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


DIALECT = Dialect("openai_batches", ("/v1/batches",), router, error_body)
