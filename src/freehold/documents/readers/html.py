# SPDX-License-Identifier: Apache-2.0
"""Web pages: their visible text. Nothing they refer to is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _text
from freehold.documents.readers._html import html_to_text

VERSION = 1

_HEAD = 1024  # bytes in which a page must name its character set, says the standard
_CHARSET = re.compile(rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.I)


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """The page as one part."""
    data = _text.whole(file, limits)
    named = _CHARSET.search(data, 0, _HEAD)
    source, notes = _text.decode(data, named[1].decode("ascii") if named else None)
    text = html_to_text(source)
    if text:
        yield Part(text + "\n", notes=notes)
