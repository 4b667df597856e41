# SPDX-License-Identifier: Apache-2.0
"""E-mail: a few headers, an empty line, the message; attachments are named in notes, not read.

A plain text part is preferred, HTML is turned into text. Header lines are decoded but not
interpreted: the interpreting parser of the standard library can be kept busy for hours.
"""

from __future__ import annotations

import binascii
import email.parser
import email.policy
import re
from collections.abc import Iterator
from email.message import Message
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _text
from freehold.documents.readers._html import html_to_text
from freehold.errors import DocumentTooLargeError, MalformedDocumentError

VERSION = 1

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_MAX_HEADER = 2_000  # characters shown of one; a thousand recipients are no part of the matter
_MAX_WORK = 20_000_000  # lines times depth: every line is compared with every open boundary
_MAX_BOUNDARIES = 10_000  # lines that may open a part
_MAX_HEADERS = 10_000
# The parameters of a Content-Type of 300 kB take the standard library 38 seconds.
_MAX_PARAMETERS = 2_000
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s+(?==\?)")
_CONTAINER = re.compile(rb"multipart/|message/", re.IGNORECASE)


class _Policy(email.policy.Compat32):
    """The uninterpreting policy, with bounds on what it is fed."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if name.lower().startswith("content-") and len(value) > _MAX_PARAMETERS:
            raise DocumentTooLargeError(f"an e-mail whose {name:.30} has {len(value):,} characters")
        return name, value


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """The message as one part."""
    data = _text.whole(file, limits)
    depth = 1 + sum(1 for _ in _CONTAINER.finditer(data))
    if depth > limits.max_parts or depth * (1 + data.count(b"\n")) > _MAX_WORK:
        raise DocumentTooLargeError(f"an e-mail with {depth - 1:,} nested or forwarded parts")
    if data.count(b"\n--") > _MAX_BOUNDARIES:
        raise DocumentTooLargeError(f"an e-mail of more than {_MAX_BOUNDARIES:,} parts")
    if _long_head(data):
        raise DocumentTooLargeError(f"an e-mail of more than {_MAX_HEADERS:,} headers")
    if b"\0" in data:
        raise MalformedDocumentError("not an e-mail: it holds NUL bytes")
    notes: list[str] = []
    try:
        message: Message = email.parser.BytesParser(policy=_Policy()).parsebytes(data)
        head = "\n".join(_headers(message))
        body = _body(message, notes, limits.max_parts)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The parser is lenient until it stumbles; what it then raises is no promise of its.
        raise MalformedDocumentError(f"not an e-mail ({type(error).__name__})") from None
    if not head:
        raise MalformedDocumentError("not an e-mail: it has none of the usual headers")
    yield Part(f"{head}\n\n{body}".strip() + "\n", notes=tuple(notes))


def _long_head(data: bytes) -> bool:
    """Whether the first empty line comes after `_MAX_HEADERS` lines."""
    end = re.search(rb"\r?\n\r?\n", data)
    return data.count(b"\n", 0, len(data) if end is None else end.start()) > _MAX_HEADERS


def _headers(message: Message) -> Iterator[str]:
    # Raw: the ordinary access replaces bytes that are no ASCII.
    values = {name.lower(): value for name, value in message.raw_items()}
    for name in _HEADERS:
        value = str(values.get(name.lower(), ""))
        # Cut before it is decoded: what is not shown is not worth the work.
        flat = " ".join(_text.canonical(_decoded(value[: 4 * _MAX_HEADER])).split())
        if len(flat) > _MAX_HEADER or len(value) > 4 * _MAX_HEADER:
            flat = flat[: _MAX_HEADER - 1] + "…"
        if flat:
            yield f"{name}: {flat}"


def _decoded(value: str) -> str:
    """Encoded words (``=?utf-8?q?…?=``, RFC 2047) and raw bytes as text."""
    text, _ = _text.decode(value.encode("utf-8", "surrogateescape"))
    return _ENCODED_WORD.sub(_word, _BETWEEN_WORDS.sub("", text))


def _word(match: re.Match[str]) -> str:
    charset, kind, payload = match.groups()
    try:
        raw = payload.encode("ascii")
        data = binascii.a2b_base64(raw) if kind in "bB" else binascii.a2b_qp(raw, header=True)
    except ValueError:
        return match.group()
    return _text.decode(data, charset.partition("*")[0])[0]


def _body(message: Message, notes: list[str], max_parts: int) -> str:
    """The readable part; the others go to `notes`."""
    plain: list[Message] = []
    pages: list[Message] = []
    for number, part in enumerate(_leaves(message)):
        if number >= max_parts:
            raise DocumentTooLargeError(f"an e-mail of more than {max_parts:,} parts")
        kind, disposition = part.get_content_type(), part.get_content_disposition()
        named = part.get_filename() is not None
        if disposition == "attachment" or (named and kind != "text/plain"):
            notes.append(_attachment(part))
        elif kind == "text/plain" or part.get_content_maintype() == "multipart":  # a broken one
            plain.append(part)
        elif kind == "text/html":
            pages.append(part)
        else:
            notes.append(_attachment(part))
    text = "\n\n".join(filter(None, (_payload(part, notes).strip() for part in plain)))
    if text or not pages:
        return text
    notes.append("written in HTML only; its visible text was taken")
    return "\n\n".join(html_to_text(_payload(part, notes)) for part in pages)


def _leaves(message: Message) -> Iterator[Message]:
    """Parts that hold content, in order; a forwarded message counts as one attachment."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        # Asked of containers only: for text this decodes with whatever codec the mail names.
        children = part.get_payload() if part.is_multipart() else None
        if part.get_content_maintype() == "multipart" and isinstance(children, list):
            waiting.extend(child for child in reversed(children) if isinstance(child, Message))
        else:
            yield part


def _payload(part: Message, notes: list[str]) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    charset = part.get_content_charset()
    text, guesses = _text.decode(data, charset)
    notes.extend(guesses)
    return text


def _attachment(part: Message) -> str:
    name = part.get_filename()
    data = part.get_payload(decode=True)
    size = f", {len(data):,} bytes" if isinstance(data, bytes) else ""
    kind = part.get_content_type()
    shown = " ".join(_decoded(name).split())[:100] if name else "without a name"
    return f"attachment not read: {shown} ({kind:.60}{size})"
