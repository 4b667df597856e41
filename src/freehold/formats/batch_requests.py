# SPDX-License-Identifier: Apache-2.0
"""Lines of OpenAI's batch files: ``{"custom_id", "method", "url", "body"}``, one request each.

Knows the form of a line and nothing of what is asked, nor which lines belong together.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from freehold.formats.json_limits import MAX_DEPTH, JsonLimits

MAX_LINE_BYTES = 16 << 20
MAX_ID = 512  # characters of a custom_id
_FIELDS = {"custom_id", "method", "url", "body"}


class LineFault(NamedTuple):
    """What is wrong with a line: a code, a sentence, and the field that it is about."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A sound line."""

    custom_id: str
    url: str
    body: dict[str, Any]


def read_line(raw: bytes, urls: Collection[str]) -> BatchRequest | LineFault:
    """One line of a file whose requests go to `urls`. Takes time in proportion to its length."""
    line = _object(raw)
    if isinstance(line, LineFault):
        return line
    custom_id, body, url = line.get("custom_id"), line.get("body"), line.get("url")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_ID:
        message = f"custom_id must be a text of 1 to {MAX_ID} characters"
        return LineFault("invalid_custom_id", message, "custom_id")
    if line.get("method", "POST") != "POST":
        return LineFault("invalid_method", "method must be POST", "method")
    if not isinstance(url, str) or url not in urls:
        if len(urls) == 1:
            message = f"url must be {next(iter(urls))}, as the batch says"
        else:
            message = f"url must be one of {', '.join(urls)}"
        return LineFault("mismatched_url", message, "url")
    if not isinstance(body, dict):
        return LineFault("invalid_body", "body must be an object", "body")
    unknown = set(line) - _FIELDS
    if unknown:
        name = min(unknown)
        return LineFault("unknown_field", f"a line has no field {name!r:.80}", name[:80])
    for name in ("stream", *(["background"] if url == "/v1/responses" else [])):
        if body.get(name):
            message = f"{name} is not possible in a batch"
            return LineFault("invalid_body", message, f"body.{name}")
    return BatchRequest(custom_id, url, body)


def _object(raw: bytes) -> dict[str, Any] | LineFault:
    shape = JsonLimits(MAX_DEPTH + 1).feed(raw)  # its body is held to what others are
    if shape is not None:
        return LineFault("invalid_json_line", shape)
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return LineFault("invalid_json_line", "this line is not JSON")
    if not isinstance(line, dict):
        return LineFault("invalid_json_line", "a line must be an object")
    return line


def raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers, counted from 1; None for one of more than `MAX_LINE_BYTES`, which
    is passed over without holding it. Lines of white space are left out."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(1 << 20)
            yield number, None
        elif not raw.isspace():
            yield number, raw
