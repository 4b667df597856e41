# SPDX-License-Identifier: Apache-2.0
"""OpenAI batch files as items of a job: each line is answered on its own, or refused on its own.

Knows the lines; what answers them is an executor's business.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freehold.documents.document import Document
from freehold.documents.jobs.items import Item, dumps
from freehold.errors import DocumentError, DocumentTooLargeError, MalformedDocumentError
from freehold.formats.batch_requests import MAX_LINE_BYTES, LineFault, raw_lines, read_line

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
READER, READER_VERSION = "batch", 1


class BatchTask:
    """Requests as they are: nothing is asked but what their bodies ask."""

    name = "batch"
    VERSION = 1

    def __init__(self, *, recommended_sampling: bool = True) -> None:
        """`recommended_sampling`: the vendor's settings where a request names none."""
        self._recommended = recommended_sampling

    def spec(self) -> dict[str, Any]:
        """What answers depend on beside bodies and model."""
        return {"recommended_sampling": self._recommended}


def request_items(path: Path) -> Iterator[Item]:
    """The lines of a file, one at a time. Raises DocumentError where there is no such file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DocumentError(f"{path}: not a regular file")
        with path.open("rb") as file:
            for number, raw in raw_lines(file):
                yield _item(path, number, raw)
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None


def count_lines(path: Path) -> int | None:
    """How many there are, for a bar; None where that cannot be told."""
    try:
        with path.open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None


def request_of(item: Item) -> tuple[str, dict[str, Any]]:
    """(url, body) of an item that `request_items` made."""
    assert item.document is not None
    asked = json.loads(item.document.text)
    return asked["url"], asked["body"]


def request_document(url: str, body: dict[str, Any], source: str, row: int) -> Document:
    """A request as a text: what it asks of which model is left out, the job says that.

    The messages come first, so that texts which begin alike are prompts that do.
    """
    first = {name: body[name] for name in ("messages", "prompt", "input") if name in body}
    rest = {name: value for name, value in body.items() if name != "model" and name not in first}
    text = dumps({"body": {**first, **rest}, "url": url})
    return Document(text, source, READER, READER_VERSION, row)


def usage_of(body: Any) -> dict[str, int]:
    """Tokens of an answer of OpenAI's dialects."""
    usage = body.get("usage") if isinstance(body, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    found = {
        "prompt_tokens": usage.get("prompt_tokens"),
        "cached_tokens": details.get("cached_tokens") if isinstance(details, dict) else None,
        "answer_tokens": usage.get("completion_tokens"),
    }
    return {name: count for name, count in found.items() if isinstance(count, int)}


def _item(path: Path, number: int, raw: bytes | None) -> Item:
    where = f"{path.name} line {number}"
    origin = {"source": str(path), "row": number}
    if raw is None:
        error = DocumentTooLargeError(f"{where}: more than {MAX_LINE_BYTES:,} bytes")
        return Item.failed(where, error, **origin)
    request = read_line(raw, URLS)
    if isinstance(request, LineFault):
        torn = request.code == "invalid_json_line" and not raw.endswith(b"\n")
        message = f"{where}: {request.message}" + (", and the file ends within it" if torn else "")
        return Item.failed(where, MalformedDocumentError(message), **origin)
    document = request_document(request.url, request.body, str(path), number)
    # Two bodies are the same request in whatever order their fields come.
    same = json.dumps(json.loads(document.text), sort_keys=True, separators=(",", ":"))
    content = hashlib.sha256(same.encode()).hexdigest()
    asked = request.body.get("model")
    return Item(
        request.custom_id, content, document,
        origin={**origin, "model": asked if isinstance(asked, str) else None},
    )  # fmt: skip
