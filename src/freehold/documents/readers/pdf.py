# SPDX-License-Identifier: Apache-2.0
"""PDF: the text that its pages carry, page by page. Pictures of text are not read.

PDFium does the work, in C++: of all readers this one most needs the process it is run in. Nothing
of a document is executed and nothing that it refers to is fetched.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers._pages import Pages
from freehold.errors import (
    DocumentTooLargeError,
    EmptyDocumentError,
    EncryptedDocumentError,
    MalformedDocumentError,
)

VERSION = 1
LARGE = True

_HEAD = 1024  # bytes in which the mark may stand, as readers of PDF have always allowed
_MAX_ANNOTATIONS = 1_000  # of a page, looked at for what was filled in
_MAX_PER_PAGE = 2_000_000  # characters; a page that shows more was made to be slow
# PDFium writes U+FFFE for a hyphen at the end of a line and puts the parts together. What goes on
# in a small letter was one word; what does not, as in names, keeps its hyphen.
_HYPHEN = re.compile("[\ufffe\u00ad](?=(.)?)", re.DOTALL)
_UNSPEAKABLE = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff\uffff]")


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """All pages as one part with a map of pages."""
    import pypdfium2

    if b"%PDF" not in file.read(_HEAD):
        raise MalformedDocumentError("not a PDF: it does not begin like one")
    file.seek(0)
    document = _opened(pypdfium2, file)
    try:
        total = len(document)
        if total > limits.max_pages:
            raise DocumentTooLargeError(f"{total:,} pages are more than {limits.max_pages:,}")
        yield _part(pypdfium2, document, total, limits)
    finally:
        document.close()


def _opened(pypdfium2: Any, file: BinaryIO) -> Any:
    try:
        return pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        code = getattr(error, "err_code", None)
    if code == pypdfium2.raw.FPDF_ERR_PASSWORD:
        raise EncryptedDocumentError("it wants a password", hint="save it without one first")
    if code == pypdfium2.raw.FPDF_ERR_SECURITY:
        raise EncryptedDocumentError("it is encrypted in a way that is not known")
    raise MalformedDocumentError("a damaged PDF: no pages can be found in it")


def _part(pypdfium2: Any, document: Any, total: int, limits: Limits) -> Part:
    pages = Pages(limits)
    broken: list[int] = []
    bare: list[int] = []  # without text
    pictured = lost = 0
    for number in range(1, total + 1):
        try:
            page = _page(pypdfium2, document, number - 1)
        except pypdfium2.PdfiumError:
            broken.append(number)
            continue
        try:
            text, missing = _text_of(pypdfium2, page)
            lost += missing
            if not text:
                bare.append(number)
                pictured += _has_picture(pypdfium2, page)
            pages.add(text, number)
        except pypdfium2.PdfiumError:
            broken.append(number)
        finally:
            page.close()
    if len(broken) == total:
        raise MalformedDocumentError(f"a damaged PDF: none of its {total:,} pages can be read")
    if not pages.text:
        raise EmptyDocumentError(
            f"no text layer: {total:,} {_pages(total)}, {pictured:,} with pictures, none with text",
            hint="scanned pages must go through text recognition (OCR) first" if pictured else None,
        )
    return Part(
        pages.text, notes=tuple(_notes(broken, bare, lost)), pages=pages.pages, pages_total=total
    )


def _page(pypdfium2: Any, document: Any, index: int) -> Any:
    """A page, with what was filled in or typed onto it made a part of it."""
    page = document[index]
    raw = pypdfium2.raw
    typed = (raw.FPDF_ANNOT_WIDGET, raw.FPDF_ANNOT_FREETEXT)
    count = min(raw.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)
    if not any(_kind(raw, page, number) in typed for number in range(count)):
        return page
    flattened = raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
    if flattened == raw.FLATTEN_SUCCESS:
        page.close()
        page = document[index]
    return page


def _kind(raw: Any, page: Any, number: int) -> int:
    annotation = raw.FPDFPage_GetAnnot(page, number)
    try:
        return int(raw.FPDFAnnot_GetSubtype(annotation))
    finally:
        raw.FPDFPage_CloseAnnot(annotation)


def _text_of(pypdfium2: Any, page: Any) -> tuple[str, int]:
    """The page's text, and how many of its characters have no meaning that text could give."""
    layer = page.get_textpage()
    try:
        count = layer.count_chars()
        if count > _MAX_PER_PAGE:
            raise DocumentTooLargeError(f"a page of more than {_MAX_PER_PAGE:,} characters")
        raw = layer.get_text_range() if count > 0 else ""
    finally:
        layer.close()
    missing = max(0, count - len(raw) - sum(letter > "\uffff" for letter in raw))
    text = _HYPHEN.sub(_joined, raw.replace("\r\n", "\n").replace("\r", "\n"))
    text, unspeakable = _UNSPEAKABLE.subn("\ufffd", text)
    lines = (line.rstrip() for line in unicodedata.normalize("NFC", text).split("\n"))
    return "\n".join(lines).strip(), missing + unspeakable


def _joined(match: re.Match[str]) -> str:
    follows = match[1]
    return "" if follows is None or follows.islower() else "-"


def _has_picture(pypdfium2: Any, page: Any) -> bool:
    kinds = [pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]
    return any(True for _ in page.get_objects(filter=kinds, max_depth=3))


def _notes(broken: list[int], bare: list[int], lost: int) -> Iterator[str]:
    if broken:
        yield f"{len(broken):,} damaged {_pages(len(broken))} left out: {_listed(broken)}"
    if bare:
        verb = "has" if len(bare) == 1 else "have"
        yield f"{len(bare):,} {_pages(len(bare))} {verb} no text layer: {_listed(bare)}"
    if lost:
        yield f"the file does not say which letters {lost:,} of its characters are"


def _pages(count: int) -> str:
    return "page" if count == 1 else "pages"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")
