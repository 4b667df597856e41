# SPDX-License-Identifier: Apache-2.0
"""Files made to do harm: each is a typed error in little time and memory, and the rest goes on.

Those that a reader catches by itself are read in this process; those that only the kernel stops are
read as callers do, in another one.
"""

from __future__ import annotations

import http.server
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from office_files import changed, part, saved, word, zipped
from pdf_files import assemble, pdf, stream

from freehold.documents import Caps, Document, Limits, Unread, read_all, readers
from freehold.errors import (
    DocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    EncryptedDocumentError,
    MalformedDocumentError,
    UnsupportedDocumentError,
)

OFFICE = {
    "docx": "word/document.xml",
    "xlsx": "xl/worksheets/sheet1.xml",
    "pptx": "ppt/slides/slide1.xml",
}


def office(kind: str) -> bytes:
    """A small real file with "hello" in it."""
    if kind == "docx":
        document = docx.Document()
        document.add_paragraph("hello")
        return saved(document)
    if kind == "xlsx":
        book = openpyxl.Workbook()
        book.active["A1"] = "hello"
        return saved(book)
    show = pptx.Presentation()
    show.slides.add_slide(show.slide_layouts[5]).shapes.title.text = "hello"
    return saved(show)


def error_of(data: bytes, name: str) -> DocumentError:
    """The one error that comes of a file."""
    (found,) = readers.scan_bytes(data, name)
    assert isinstance(found, Unread), found
    return found.error


# -- archives ------------------------------------------------------------------------------------


def overlapping(count: int) -> bytes:
    """One piece of compressed zeros that `count` entries of the directory all point to."""
    data = bytearray(zipped({"0.txt": bytes(1_000_000)}))
    start = data.index(b"PK\1\2")
    entry, end = bytes(data[start : data.index(b"PK\5\6")]), data.index(b"PK\5\6")
    directory = b"".join(entry.replace(b"0.txt", b"%05d" % number) for number in range(count))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    assert end
    return bytes(data[:start]) + directory + tail


def test_entries_that_overlap_are_a_bomb():
    assert isinstance(error_of(overlapping(1500), "a.zip"), MalformedDocumentError)
    assert isinstance(error_of(overlapping(2001), "a.zip"), DocumentTooLargeError)  # 2 GB in all
    assert "overlap" in error_of(overlapping(2), "a.docx").message


def test_archives_in_archives_in_archives():
    data = zipped({"a.txt": "x"})
    for _ in range(2):
        data = zipped({"in.zip": data})
    (found,) = readers.scan_bytes(data, "z.zip")
    assert found.source == "z.zip/in.zip/in.zip/a.txt"
    error = error_of(zipped({"in.zip": data}), "z.zip")
    assert isinstance(error, DocumentTooLargeError)
    assert "nested more than 3 deep" in error.message


def test_a_size_that_is_a_lie_unpacks_to_no_more_than_it_says():
    data = bytearray(zipped({"a.txt": bytes(5_000_000), "b.txt": "fine"}))
    at = data.index(b"PK\1\2") + 24  # the size in the directory
    data[at : at + 4] = struct.pack("<I", 100)
    first, second = readers.scan_bytes(bytes(data), "z.zip")
    assert isinstance(first.error, MalformedDocumentError)
    assert second.text == "fine"


def test_a_directory_of_many_entries_is_not_held():
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 70_000_000, 0, 0)
    assert isinstance(error_of(bytes(70_000_000) + tail, "z.zip"), DocumentTooLargeError)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zeros_by_the_gigabyte(method):
    data = zipped({"a.txt": bytes(33_000_000), "b.txt": "fine"}, method)
    assert len(data) < 100_000
    first, second = readers.scan_bytes(data, "z.zip")
    assert isinstance(first.error, DocumentTooLargeError)
    assert second.text == "fine"


# -- office files --------------------------------------------------------------------------------

BILLION_LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>'
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("kind", OFFICE)
@pytest.mark.parametrize("declaration", [BILLION_LAUGHS, OUTSIDE, '<!DOCTYPE x SYSTEM "x.dtd">'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bombs_of_entities(kind, declaration, encoding):
    data = office(kind)
    xml = part(data, OFFICE[kind]).decode()
    xml = xml[xml.index("?>") + 2 :] if xml.startswith("<?xml") else xml
    bomb = declaration + xml.replace("hello", "&a;")
    error = error_of(changed(data, {OFFICE[kind]: bomb.encode(encoding)}), f"a.{kind}")
    assert isinstance(error, MalformedDocumentError)


@pytest.mark.parametrize("encoding", ["nonsense", "zlib", "utf-7", "idna", "big5"])
def test_xml_in_an_encoding_of_its_own(encoding):
    xml = f"<?xml version='1.0' encoding='{encoding}'?><x/>".encode()
    error = error_of(changed(office("docx"), {"word/document.xml": xml}), "a.docx")
    assert isinstance(error, DocumentError)


def test_the_bomb_is_named():
    error = error_of(word("<w:p><w:r><w:t>&c;</w:t></w:r></w:p>", BILLION_LAUGHS), "a.docx")
    assert "declares a document type" in error.message


def test_xml_that_is_nested_or_long_without_an_end():
    deep = "<w:p>" * 600 + "</w:p>" * 600
    assert "nested more than 500 deep" in error_of(word(deep), "a.docx").message
    wide = f'<w:p w:x="{"y" * 5_000_000}"/>'
    assert "a tag of more than" in error_of(word(wide), "a.docx").message
    cells = word("<w:tr>" + "<w:tc/>" * 50_000 + "</w:tr>")
    with pytest.raises(DocumentTooLargeError, match="100,000 characters"):
        list(readers.parse(cells, "docx", Limits(max_characters=100_000)))


def test_a_sheet_whose_rows_reach_to_the_end():
    rows = "".join(f'<row><c r="XFD{n}"><v>1</v></c></row>' for n in range(1, 2000))
    sheet = f"<worksheet><sheetData>{rows}</sheetData></worksheet>".encode()
    data = changed(office("xlsx"), {OFFICE["xlsx"]: sheet})
    assert isinstance(error_of(data, "a.xlsx"), DocumentTooLargeError)


def test_a_slide_shown_a_million_times():
    data = office("pptx")
    show = part(data, "ppt/presentation.xml")
    at = show.index(b"<p:sldId ")
    one = show[at : show.index(b"/>", at) + 2]
    bomb = changed(data, {"ppt/presentation.xml": show.replace(one, one * 30_000)})
    assert isinstance(error_of(bomb, "a.pptx"), DocumentTooLargeError)


@pytest.mark.parametrize("kind", OFFICE)
def test_encrypted_and_old_office_files(kind):
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2_000_000)
    error = error_of(ole, f"a.{kind}")
    assert isinstance(error, UnsupportedDocumentError)
    assert "before 2007" in error.message
    sealed = ole[:1_048_570] + "EncryptedPackage".encode("utf-16-le") + bytes(99)
    assert isinstance(error_of(sealed, f"a.{kind}"), EncryptedDocumentError)


@pytest.mark.parametrize("kind", OFFICE)
def test_files_of_another_kind(kind):
    others = {other: office(other) for other in OFFICE}
    others |= {"pdf": pdf(["hello"]), "zip": zipped({"a.txt": "x"}), "txt": b"hello"}
    for other, data in others.items():
        if other != kind:
            assert isinstance(error_of(data, f"a.{kind}"), DocumentError)


# -- text ----------------------------------------------------------------------------------------


def test_text_that_is_nested_without_an_end():
    for data, name in (
        (b"[" * 1_000_000, "a.json"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "a.json"),
    ):
        assert isinstance(error_of(data, name), DocumentTooLargeError)
    (found,) = readers.scan_bytes(b"<div>" * 500_000 + b"hello", "a.html")
    assert found.text == "hello\n"


def test_a_quotation_that_never_ends():
    data = b'a,b\n1,"' + b"2,3\n" * 2_000_000
    assert isinstance(error_of(data, "a.csv"), DocumentTooLargeError)


# -- PDF, read in another process ----------------------------------------------------------------


def page_of(content: bytes) -> bytes:
    """A page whose content unpacks to much more than it takes."""
    return assemble([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
        b" /Resources << /Font << /F 5 0 R >> >> >>",
        content,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ])  # fmt: skip


def zeros_twice() -> bytes:
    packer = zlib.compressobj(9)
    once = b"".join(packer.compress(bytes(1_000_000)) for _ in range(120)) + packer.flush()
    packed = zlib.compress(once, 9)
    head = b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>" % len(packed)
    return head + b"\nstream\n" + packed + b"\nendstream"


def forms_in_forms() -> bytes:
    """Ten times ten times ten … the same drawing."""
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]"
    inner = b" /Resources << /XObject << /X %d 0 R >> >>"
    return assemble([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R"
        b" /Resources << /XObject << /X 5 0 R >> >> >>",
        stream(b"/X Do " * 10),
        *(stream(b"/X Do " * 10, form + inner % (6 + n)) for n in range(12)),
        stream(b"0 0 m 1 1 l S", form),
    ])  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: page_of(zeros_twice()),
        lambda: page_of(stream(b"q 1 0 0 1 0 0 cm " * 1_500_000)),
        lambda: page_of(stream(b"BT /F 9 Tf 1 1 Td " + b"(aaaaaaaaaaa) Tj " * 400_000 + b"ET")),
        forms_in_forms,
    ],
    ids=["zeros", "states", "text", "forms"],
)
def test_pages_that_fill_the_memory(make, tmp_path):
    (tmp_path / "bomb.pdf").write_bytes(make())
    assert (tmp_path / "bomb.pdf").stat().st_size < 500_000
    (tmp_path / "next.txt").write_text("next")
    found = list(
        read_all(
            [tmp_path / "bomb.pdf", tmp_path / "next.txt"],
            caps=Caps(memory=120_000_000, seconds=60), processes=1,
        )
    )  # fmt: skip
    assert isinstance(found[0].error, DocumentTooLargeError), found[0].error
    assert "120 MB of memory" in found[0].error.message
    assert found[1].text == "next"


@pytest.mark.parametrize(
    ("pages", "kind"),
    [
        (b"/Kids [3 0 R] /Count 1000000000", EmptyDocumentError),
        (b"/Kids [2 0 R 2 0 R] /Count 5000", MalformedDocumentError),
        (b"/Kids [3 0 R] /Count 19999", EmptyDocumentError),
        (b"/Kids [" + b"3 0 R " * 20_001 + b"] /Count 20001", DocumentTooLargeError),
        (b"/Kids [] /Count 0 /X " + b"[" * 100_000 + b"]" * 100_000, MalformedDocumentError),
    ],
    ids=["billion", "itself", "claimed", "many", "deep"],
)
def test_trees_of_pages_that_are_no_trees(pages, kind, tmp_path):
    (tmp_path / "a.pdf").write_bytes(
        assemble(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages " + pages + b" >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>",
            ]
        )
    )
    (found,) = read_all([tmp_path / "a.pdf"], processes=1)
    assert type(found.error) is kind


# -- nothing is fetched --------------------------------------------------------------------------


def test_what_a_file_refers_to_is_never_fetched(tmp_path: Path) -> None:
    asked: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/x"
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        + "".join(
            f'<Relationship Id="{kind}" Type="x/{kind}" Target="{url}" TargetMode="External"/>'
            for kind in ("header", "image", "attachedTemplate", "footnotes")
        )
        + "</Relationships>"
    )
    (tmp_path / "a.docx").write_bytes(
        changed(
            word('<w:p><w:r><w:t>hello</w:t></w:r></w:p><w:headerReference r:id="header"/>'),
            {"word/_rels/document.xml.rels": relations.encode()},
        )
    )
    (tmp_path / "b.html").write_text(
        f'<link rel=stylesheet href="{url}"><img src="{url}"><iframe src="{url}"></iframe>hello'
    )
    (tmp_path / "c.pdf").write_bytes(
        assemble(
            [
                b"<< /Type /Catalog /Pages 2 0 R /OpenAction << /S /URI /URI (%s) >> >>"
                % url.encode(),
                b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents [4 0 R 6 0 R]"
                b" /Resources << /Font << /F 5 0 R >> >> >>",
                stream(b"BT /F 9 Tf 9 9 Td (hello) Tj ET"),
                b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
                b"<< /Length 0 /F << /FS /URL /F (%s) >> >>\nstream\n\nendstream" % url.encode(),
            ]
        )
    )
    (tmp_path / "d.eml").write_text(
        "Subject: s\nContent-Type: message/external-body; access-type=URL;\n"
        f' URL="{url}"\n\nContent-Type: text/plain\n\n'
    )
    found = list(read_all(sorted(tmp_path.iterdir())))
    server.shutdown()
    server.server_close()
    assert [x.text.strip() for x in found[:3] if isinstance(x, Document)] == ["hello"] * 3
    assert asked == []
