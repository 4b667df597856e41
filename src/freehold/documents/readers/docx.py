# SPDX-License-Identifier: Apache-2.0
"""Word: paragraphs on lines of their own, rows of tables with bars between the cells.

All text that would be printed is taken, wherever it is anchored: in content controls, text boxes
and insertions that nobody has accepted yet; what is deleted is not. Then come headers and footers,
footnotes and endnotes, each once. A file has no pages until it is laid out, so there is no map.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _flow
from freehold.documents.readers._ooxml import Package
from freehold.errors import DocumentTooLargeError

VERSION = 1
LARGE = True

_BESIDE = ("header", "footer", "footnotes", "endnotes")  # kinds of parts with text, in order
_HIDDEN = frozenset({"del", "moveFrom", "instrText", "delText", "rPr", "pPr", "sectPr"})
_GRAMMAR = _flow.Grammar(
    paragraph="p", text="t", row="tr", cell="tc", hidden=_HIDDEN,
    spelled={"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011", "ptab": "\t"},
)  # fmt: skip


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """The file as one part."""
    package = Package(file, limits, ".docx")
    main = package.main()
    pieces = [_flow.text(package.events(main), _GRAMMAR, limits)]
    length = len(pieces[0])
    beside = {(r.kind, r.target) for r in package.relations(main) if r.kind in _BESIDE}
    seen: set[str] = set()
    for _, target in sorted(beside, key=lambda found: (_BESIDE.index(found[0]), found[1])):
        if not package.has(target):
            continue
        piece = _flow.text(package.events(target), _GRAMMAR, limits)
        if piece and piece not in seen:  # every section has a header, mostly the same
            seen.add(piece)
            pieces.append(piece)
            length += len(piece)
        if length > limits.max_characters:
            raise DocumentTooLargeError(f"a text of more than {limits.max_characters:,} characters")
    text = "\n\n".join(filter(None, pieces))
    if text:
        yield Part(text + "\n")
