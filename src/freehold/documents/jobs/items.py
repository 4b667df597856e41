# SPDX-License-Identifier: Apache-2.0
"""What a job is made of: items in, one result for each content out.

Knows no storage and no model. `Work` is as much of a task as the journal needs; what a task is
otherwise is `documents.tasks`' to say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from freehold.documents.document import Document, Unread
from freehold.errors import FreeholdError

Status = Literal["ok", "error"]
MAX_ID = 4096  # characters


class Work(Protocol):
    """What is done to every item. `spec` is JSON, and all that changes an answer is in it."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def VERSION(self) -> int:
        """Raised when the same spec gives other answers."""

    def spec(self) -> dict[str, Any]:
        """Labels, schema, lengths, thresholds, version of the prompts."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why there is no value, in a form that can be stored."""

    type: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Of any error; only one of ours has a hint."""
        if isinstance(error, FreeholdError):
            return cls(type(error).__name__, error.message, error.hint)
        return cls(type(error).__name__, str(error)[:2000] or "no message")

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"type": self.type, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to answer: a document, or the reason why there is none.

    `id` is told apart from every other of the job; `content_sha256` is the same where the answer
    must be. `origin` is shown beside the answer: where the document came from, what read it.
    """

    id: str
    content_sha256: str | None  # hexadecimal; None where there is no content
    document: Document | None
    error: ErrorInfo | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Document | Unread, item_id: str | None = None) -> Item:
        """A document as an item, called by its source and row unless told otherwise."""
        name = document.source if document.row is None else f"{document.source}#{document.row}"
        origin: dict[str, Any] = {"source": document.source, "row": document.row}
        if isinstance(document, Unread):
            return cls.failed(item_id or name, document.error, **origin)
        origin |= {"reader": document.reader, "reader_version": document.reader_version}
        if document.pages_total is not None:
            origin |= {"pages_read": len(document.pages), "pages_total": document.pages_total}
        if document.notes:
            origin["notes"] = list(document.notes)
        return cls(plain(item_id or name)[:MAX_ID], content_of(document), document, origin=origin)

    @classmethod
    def failed(cls, item_id: str, error: BaseException, **origin: Any) -> Item:
        """A document that could not be read; the others of its job go on."""
        return cls(plain(item_id)[:MAX_ID], None, None, ErrorInfo.of(error), origin)


def plain(text: str) -> str:
    """`text` as every encoding can hold it: file names may carry bytes that are no characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def content_of(document: Document) -> str:
    """What stands for the content of a document: its canonical text, and where its pages lie.

    Another version of a reader matters exactly where it reads something else.
    """
    digest = hashlib.sha256(document.text.encode("utf-8", "surrogatepass"))
    if document.pages_total is not None:
        pages = [[page.number, page.start, page.end, page.name] for page in document.pages]
        digest.update(b"\0" + json.dumps([document.pages_total, pages]).encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What came of one content. `usage` counts tokens; `seconds` is its share of the work."""

    item_id: str
    content_sha256: str
    status: Status
    value: Any = None  # JSON
    error: ErrorInfo | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def dumps(value: Any) -> str:
    """Compact JSON on one line. Text that is no Unicode is escaped, so that nothing is lost."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text
