# SPDX-License-Identifier: Apache-2.0
"""JSON as untrusted input: size, duplicate names, depth and stray surrogates are checked.

It returns plain Python objects; what they must contain is the caller's business. `describe` puts
such an object into a message.
"""

from __future__ import annotations

import json
from collections.abc import Sized
from typing import Any

from freehold.errors import MalformedFileError

# Objects cost Python some hundred bytes each, so a header of a few MB of "[[],[],…" could take
# gigabytes. The largest real headers (90,000 tensors) have about a million separators.
MAX_SEPARATORS = 4_000_000


class _DuplicateNameError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateNameError(f"the name {name[:100]!r} occurs twice")
            seen.add(name)
    return result


def parse_json_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in ``data``; ``where`` begins every message.

    Raises MalformedFileError for anything that is not one object of valid UTF-8 JSON."""
    separators = data.count(b",") + data.count(b"[") + data.count(b"{")
    if separators > MAX_SEPARATORS:
        raise MalformedFileError(f"{where}: more than {MAX_SEPARATORS:,} JSON values")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        if b"\\u" in data:
            # An escaped half of a surrogate pair parses, and then breaks every print of it.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _DuplicateNameError as error:
        raise MalformedFileError(f"{where}: {error}") from None
    except UnicodeError:
        raise MalformedFileError(f"{where}: text that is not UTF-8") from None
    except ValueError as error:
        raise MalformedFileError(f"{where}: not valid JSON: {error}") from None
    except RecursionError:
        raise MalformedFileError(f"{where}: JSON nested too deeply") from None
    if not isinstance(value, dict):
        raise MalformedFileError(f"{where}: must be a JSON object")
    return value


def describe(value: object) -> str:
    """A value for a message: a few words, whatever a file put in it. Containers are not walked,
    for `repr` of a deep one would exceed the recursion limit."""
    if isinstance(value, (str, bytes)):
        return repr(value[:80])
    if isinstance(value, float) or value is None:
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**30 else "a number of more than 30 digits"
    if isinstance(value, list) and len(value) <= 20 and all(type(item) is int for item in value):
        return f"[{', '.join(map(describe, value))}]"
    size = f" of {len(value)}" if isinstance(value, Sized) else ""
    return f"a {type(value).__name__}{size}"
