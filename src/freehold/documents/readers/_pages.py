# SPDX-License-Identifier: Apache-2.0
"""Pages put together to one text, with where each of them lies in it.

Knows offsets; knows no file format.
"""

from __future__ import annotations

from freehold.documents.document import Limits, Page
from freehold.errors import DocumentTooLargeError

_BETWEEN = "\n\n"


class Pages:
    """Takes pages in order; as soon as the text is too long it says so."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.max_characters
        self._texts: list[str] = []
        self._pages: list[Page] = []
        self._at = 0

    def add(self, text: str, number: int, name: str | None = None) -> None:
        """A page that was read, with text or without."""
        start = self._at + (len(_BETWEEN) if self._at and text else 0)
        self._at = start + len(text)
        if self._at > self._limit:
            raise DocumentTooLargeError(
                f"a text of more than {self._limit:,} characters, on page {number:,} already"
            )
        if text:
            self._texts.append(text)
        self._pages.append(Page(number, start, self._at, name))

    @property
    def text(self) -> str:
        """Pages with an empty line between them, and a line's end after the last."""
        return _BETWEEN.join(self._texts) + "\n" if self._texts else ""

    @property
    def pages(self) -> tuple[Page, ...]:
        return tuple(self._pages)
