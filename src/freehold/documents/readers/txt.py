# SPDX-License-Identifier: Apache-2.0
"""Plain text: the file is the document."""

from __future__ import annotations

from collections.abc import Iterator

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _text

VERSION = 1


def read(data: bytes, limits: Limits) -> Iterator[Part]:
    """The whole text as one part."""
    del limits  # the loader has checked the file, and checks the text
    text, notes = _text.decode(data)
    yield Part(text, notes=notes)
