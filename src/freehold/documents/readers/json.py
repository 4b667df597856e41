# SPDX-License-Identifier: Apache-2.0
"""JSON: its source is the document, with escaped letters written out.

Layout, order and the spelling of numbers stay, so that what a person sees in the file is what
offsets count. Only ``\\uXXXX`` that stands for something visible is replaced: what a model reads
should not depend on whether the writer of the file escaped all that is not English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _json, _text
from freehold.errors import DocumentTooLargeError

VERSION = 1

# A run of escaped backslashes is taken whole, so that none of them begins an escape.
_ESCAPES = re.compile(r"\\\\|((?:\\u[0-9a-fA-F]{4})+)")


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """The file as one part."""
    text, notes = _text.decode(_text.whole(file, limits))
    if len(text) > limits.max_characters:
        raise DocumentTooLargeError(
            f"a text of {len(text):,} characters is more than {limits.max_characters:,}"
        )
    if text.strip():
        _json.loads(text)
        yield Part(_ESCAPES.sub(_written_out, text), notes=notes)


def _written_out(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    units = [match[1][at : at + 6] for at in range(0, len(match[1]), 6)]
    raw = b"".join(int(unit[2:], 16).to_bytes(2, "big") for unit in units)
    letters = raw.decode("utf-16-be", "surrogatepass")
    out = []
    at = 0
    for letter in letters:
        width = 1 + (letter > "\uffff")
        visible = letter.isprintable() and letter not in '"\\'
        out.append(letter if visible else "".join(units[at : at + width]))
        at += width
    return "".join(out)
