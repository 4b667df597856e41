# SPDX-License-Identifier: Apache-2.0
"""PowerPoint: the text of each slide in the order of the show, then the speaker's notes.

Tables are rows with bars between the cells. What the slides share (masters, layouts) is not text of
any of them. Slides that are hidden in the show are read, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _flow
from freehold.documents.readers._ooxml import Package
from freehold.documents.readers._pages import Pages
from freehold.errors import DocumentTooLargeError, MalformedDocumentError

VERSION = 1
LARGE = True

_GRAMMAR = _flow.Grammar(
    paragraph="p", text="t", row="tr", cell="tc", spelled={"br": "\n", "tab": "\t"},
    hidden=frozenset({"fld"}),  # number of the slide and date of the show, filled in when it runs
)  # fmt: skip
_DRAWN = ("diagramData", "chart")  # kinds of parts whose text stands on the slide


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """All slides as one part with a map of slides."""
    package = Package(file, limits, ".pptx")
    slides = _slides(package, package.main(), limits)
    pages = Pages(limits)
    broken: list[int] = []
    hidden: list[int] = []
    for number, slide in enumerate(slides, 1):
        try:
            text, shown = _slide(package, slide, limits)
        except MalformedDocumentError:
            broken.append(number)
            continue
        if not shown:
            hidden.append(number)
        pages.add(text, number)
    if slides and len(broken) == len(slides):
        raise MalformedDocumentError(f"a damaged .pptx file: none of its {len(slides):,} slides")
    notes = []
    if broken:
        notes.append(f"damaged slides left out: {', '.join(map(str, broken[:20]))}")
    if hidden:
        notes.append(f"slides hidden in the show: {', '.join(map(str, hidden[:20]))}")
    if pages.text:
        yield Part(pages.text, notes=tuple(notes), pages=pages.pages, pages_total=len(slides))


def _slides(package: Package, main: str, limits: Limits) -> list[str]:
    """Names of the slides' parts, in the order of the show."""
    targets = {r.id: r.target for r in package.relations(main) if r.kind == "slide"}
    slides: list[str] = []
    for what, name, attributes in package.events(main):
        if what == "<" and name == "sldId":
            target = targets.get(attributes.get("r:id", ""))
            if target is None:
                raise MalformedDocumentError(f"a damaged .pptx file: slide {len(slides) + 1:,}")
            slides.append(target)
            if len(slides) > limits.max_pages:
                raise DocumentTooLargeError(f"more than {limits.max_pages:,} slides")
    return slides


def _slide(package: Package, slide: str, limits: Limits) -> tuple[str, bool]:
    """Its text, and whether the show shows it."""
    shown = True
    for what, name, attributes in package.events(slide):
        if what == "<" and name == "sld":
            shown = attributes.get("show", "1") not in ("0", "false")
            break
    texts = [_flow.text(package.events(slide), _GRAMMAR, limits)]
    spoken = []
    for relation in package.relations(slide):
        if relation.kind in (*_DRAWN, "notesSlide") and package.has(relation.target):
            text = _flow.text(package.events(relation.target), _GRAMMAR, limits)
            if relation.kind != "notesSlide":
                texts.append(text)
            elif text:
                spoken.append(f"Notes: {text}")
    texts += spoken
    return "\n\n".join(filter(None, texts)), shown
