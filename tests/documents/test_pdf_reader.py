# SPDX-License-Identifier: Apache-2.0
"""PDF: text in any script, where pages lie, and what is said about pages that hold no text."""

from __future__ import annotations

import unicodedata

import pytest
from pdf_files import assemble, pdf, picture_page, stream

from freehold.documents import Document, Limits, readers
from freehold.documents.document import Part
from freehold.errors import (
    DocumentTooLargeError,
    EmptyDocumentError,
    EncryptedDocumentError,
    MalformedDocumentError,
)


def read(data: bytes, **limits: int) -> Part:
    (found,) = readers.parse(data, "pdf", Limits(**limits))
    return found


PAGES = (
    "Größe 5 €\nZwei Wörter",
    "北京市 合同\n第二行 😀",
    "Señor Łukasz, Ελλάδα, Москва",
    "",
    "the end",
)


def test_pages_and_where_they_lie():
    found = read(pdf(PAGES))
    assert found.text == "\n\n".join(filter(None, PAGES)) + "\n"
    assert found.pages_total == 5
    assert [page.number for page in found.pages] == [1, 2, 3, 4, 5]
    assert tuple(found.text[page.start : page.end] for page in found.pages) == PAGES
    assert found.notes == ("1 page has no text layer: 4",)
    document = Document(found.text, "a.pdf", "pdf", 1, pages=found.pages, pages_total=5)
    assert document.pages_read == 5
    for number, text in ((1, "Zwei"), (2, "合同"), (5, "end")):
        assert document.page_at(found.text.index(text)).number == number
    between = found.pages[0].end
    assert document.page_at(between) is None
    assert document.page_at(len(found.text)) is None


def test_words_cut_at_the_end_of_a_line():
    text = "a hyphen-\nated word, well-\nKnown, INV-\n0871 and x-ray"
    assert read(pdf([text])).text == "a hyphenated word, well-Known, INV-0871 and x-ray\n"


def test_accents_that_are_characters_of_their_own_are_composed():
    found = read(pdf(["cafe\u0301"]))
    assert found.text == "café\n"
    assert unicodedata.is_normalized("NFC", found.text)


def test_letters_without_a_meaning_are_counted():
    found = read(pdf(["abcd"], meaning={"b": "", "c": ""}))
    assert found.text.startswith("a")
    assert found.notes == ("the file does not say which letters 2 of its characters are",)


def test_a_scan_is_an_error_that_counts_its_pages():
    with pytest.raises(
        EmptyDocumentError, match="no text layer: 1 page, 1 with pictures"
    ) as caught:
        read(assemble(picture_page()))
    assert "OCR" in caught.value.hint
    with pytest.raises(EmptyDocumentError, match="3 pages, 0 with pictures"):
        read(pdf(["", "", ""]))


def test_what_is_filled_into_a_form_is_text():
    appearance = stream(
        b"BT /F 10 Tf 2 4 Td (4711) Tj ET",
        b"/Type /XObject /Subtype /Form /BBox [0 0 100 20] /Resources << /Font << /F 5 0 R >> >>",
    )
    data = assemble([
        b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [6 0 R] >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
        b" /Annots [6 0 R 8 0 R]"
        b" /Resources << /Font << /F 5 0 R >> >> >>",
        stream(b"BT /F 10 Tf 10 100 Td (Order number:) Tj ET"),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (number) /V (4711) /Rect [90 96 190 116]"
        b" /AP << /N 7 0 R >> /F 4 >>",
        appearance,
        b"<< /Type /Annot /Subtype /Text /Rect [0 0 9 9] /Contents (a remark beside the text) >>",
    ])  # fmt: skip
    assert read(data).text == "Order number:\n4711\n"


@pytest.mark.parametrize("trailer", [
    # The standard handler with a password nobody knows, and a handler that is not the standard's.
    b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <" + b"ab" * 32 + b"> /U <" + b"cd" * 32
    + b"> /P -4 >> /ID [<00> <00>]",
    b"/Encrypt << /Filter /Unheard.Of /V 1 >> /ID [<00> <00>]",
], ids=["password", "handler"])  # fmt: skip
def test_encrypted_files(trailer):
    with pytest.raises(EncryptedDocumentError):
        read(assemble([
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
        ], trailer))  # fmt: skip


def test_a_damaged_page_is_left_out_and_said():
    data = assemble([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R 9 0 R 3 0 R] /Count 3 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
        b" /Resources << /Font << /F 5 0 R >> >> >>",
        stream(b"BT /F 10 Tf 10 100 Td (here) Tj ET"),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ])  # fmt: skip
    found = read(data)
    assert found.text == "here\n\nhere\n"
    assert [page.number for page in found.pages] == [1, 3]
    assert found.pages_total == 3
    assert found.notes == ("1 damaged page left out: 2",)


def test_what_is_no_pdf():
    whole = pdf(["text"])
    for data in (b"text", b"%PDF-1.7\n", whole[:-400], whole[:300], b"PK\3\4" + whole[4:]):
        with pytest.raises(MalformedDocumentError):
            read(data)


def test_limits():
    data = pdf(["x" * 60, "y" * 60])
    with pytest.raises(DocumentTooLargeError, match="2 pages are more than 1"):
        read(data, max_pages=1)
    with pytest.raises(DocumentTooLargeError, match="more than 100 characters, on page 2"):
        read(data, max_characters=100)
