# SPDX-License-Identifier: Apache-2.0
"""JSON that strangers wrote: every way in which it can be wrong is a DocumentError."""

from __future__ import annotations

import json
from typing import Any

from freehold.errors import DocumentTooLargeError, MalformedDocumentError


def loads(text: str) -> Any:
    """The value that `text` spells; numbers keep their spelling, as `Number`."""
    try:
        return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        raise MalformedDocumentError(
            f"not JSON at line {error.lineno:,}, character {error.colno:,}: {error.msg}"
        ) from None
    except RecursionError:
        raise DocumentTooLargeError("JSON nested too deep") from None


class Number(str):
    """A number as it was written: no digit is lost, and none is computed with."""

    __slots__ = ()


def flat(value: Any) -> str:
    """A value as text: strings as they are, everything else as JSON on one line."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else spelled(value)
    except RecursionError:
        raise DocumentTooLargeError("JSON nested too deep") from None


def spelled(value: Any) -> str:
    """`value` as JSON on one line, without escapes that are not needed."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        inner = (f"{spelled(str(key))}: {spelled(item)}" for key, item in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _not_json(name: str) -> Any:
    raise MalformedDocumentError(f"not JSON: {name} is no number of it")
