# SPDX-License-Identifier: Apache-2.0
"""OpenAI's files: ``/v1/files``, as far as batches need them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from freehold.server.failures import ClientGoneError, RequestError
from freehold.server.files.disk import to_the_end
from freehold.server.files.multipart import Form, read_form
from freehold.server.files.store import StoredFile
from freehold.server.openai.format import error_body
from freehold.server.paging import Order, list_body, page
from freehold.server.security.caller import caller
from freehold.server.services import Dialect, Services

PURPOSES = ("batch",)
MIN_AGE, MAX_AGE = 3600, 30 * 86400  # seconds a file may be asked to be kept
KEPT = MAX_AGE  # where nothing is asked
_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                    },
                }
            }
        },
    }
}


def file_body(record: StoredFile) -> dict[str, Any]:
    """A file as OpenAI's clients read it."""
    return {
        "id": record.file_id, "object": "file", "bytes": record.size,
        "created_at": record.created, "expires_at": record.expires,
        "filename": record.filename, "purpose": record.purpose, "status": "processed",
        "status_details": None,
    }  # fmt: skip


def _age(form: Form) -> int:
    anchor = form.fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise RequestError("expires_after.anchor must be created_at", param="expires_after")
    seconds = form.fields.get("expires_after[seconds]")
    if seconds is None:
        return KEPT
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) < 9):
        raise RequestError("expires_after.seconds must be a number", param="expires_after")
    if not MIN_AGE <= int(seconds) <= MAX_AGE:
        raise RequestError(
            f"expires_after.seconds must be between {MIN_AGE} and {MAX_AGE}", param="expires_after"
        )
    return int(seconds)


def _checked(form: Form) -> int:
    """Seconds the file is kept. Raises RequestError for what is missing or not known."""
    for name in form.fields:
        if name not in _FIELDS:
            raise RequestError(f"unknown parameter: {name!r:.120}", param=name[:120])
    if form.filename is None:
        raise RequestError("file is missing", param="file")
    purpose = form.fields.get("purpose")
    if purpose not in PURPOSES:
        raise RequestError(
            f"purpose {purpose!r:.40} is not supported; there is {', '.join(PURPOSES)}",
            param="purpose",
        )
    return _age(form)


def _plain(filename: str) -> str:
    """A name to show: no folders, nothing that is not printed. It is never part of a path."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:255] or "file"


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])
    batches = services.batches
    most = services.settings.max_upload_bytes

    @routes.post("/v1/files", openapi_extra=_UPLOAD)
    async def upload(request: Request) -> dict[str, Any]:
        """Keep a file; it goes to the disk as it comes."""
        await batches.ready()
        owner = caller(request)
        incoming = batches.files.begin(owner, max_bytes=most)
        held = bytearray()  # what came of the file and is not written

        async def flush() -> None:
            if held:
                await to_the_end(incoming.write, bytes(held))
                held.clear()

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in request.stream():
                yield chunk
                await flush()

        try:
            form = await read_form(
                request.headers.get("content-type", ""), chunks(), held.extend,
                file_field="file", max_bytes=most,
            )  # fmt: skip
            age = _checked(form)
            await flush()
            name = _plain(form.filename or "")
            return file_body(await to_the_end(incoming.commit, name, form.fields["purpose"], age))
        except ClientDisconnect:
            raise ClientGoneError from None
        finally:
            incoming.abort()

    @routes.get("/v1/files")
    async def files(
        request: Request, purpose: str | None = None, after: str | None = None,
        limit: Annotated[int, Query()] = 10_000, order: Order = "desc",
    ) -> dict[str, Any]:  # fmt: skip
        """All files of this key."""
        await batches.ready()
        found = batches.files.of(
            caller(request), lambda record: purpose is None or record.purpose == purpose
        )
        shown, more = page(
            found, lambda f: f.file_id, after=after, limit=limit, most=10_000, order=order
        )
        return list_body([file_body(record) for record in shown], more)

    @routes.get("/v1/files/{file_id}")
    async def retrieve(file_id: str, request: Request) -> dict[str, Any]:
        """One of them."""
        await batches.ready()
        return file_body(batches.files.get(caller(request), file_id))

    @routes.get("/v1/files/{file_id}/content", response_class=FileResponse)
    async def content(file_id: str, request: Request) -> Response:
        """Its bytes."""
        await batches.ready()
        record = batches.files.get(caller(request), file_id)
        # As data to save: no browser is to make a page of what somebody uploaded.
        headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
        return FileResponse(
            batches.files.data(record), media_type="application/octet-stream", headers=headers
        )

    @routes.delete("/v1/files/{file_id}")
    async def delete(file_id: str, request: Request) -> dict[str, Any]:
        """Forget it. A batch that was made of it goes on."""
        await batches.ready()
        batches.files.delete(caller(request), file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


DIALECT = Dialect("openai_files", ("/v1/files",), router, error_body)
