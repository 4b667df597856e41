# SPDX-License-Identifier: Apache-2.0
"""Plain text: the file is the document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _text

VERSION = 1


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """The whole text as one part."""
    text, notes = _text.decode(_text.whole(file, limits))
    yield Part(text, notes=notes)
