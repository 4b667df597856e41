# SPDX-License-Identifier: Apache-2.0
"""Bytes made to break readers: a DocumentError or a document, in time in proportion to the size.

Whether work is in proportion is counted in lines of Python executed, not in seconds.
"""

from __future__ import annotations

import datetime
import functools
import io
import re
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import docx
import openpyxl
import pptx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_files import saved, zipped
from pdf_files import pdf

from freehold import documents
from freehold.documents import Limits, Unread, readers
from freehold.documents.readers._html import html_to_text
from freehold.errors import DocumentError, DocumentTooLargeError

_MARKUP = st.sampled_from([
    "<", ">", "</", "<!--", "-->", "<a ", "<pre>", "</pre>", "<td>", "<script>", "</script", '"',
    "'", "&#", "&amp;", "&#x110000;", "&#55296;", "<![CDATA[", "]]>", "\n", " ", "\u00a0", "x",
])  # fmt: skip
_MAIL = st.sampled_from([
    b"Subject: ", b"Content-Type: ", b"multipart/mixed; ", b"boundary=b", b"text/html", b"\r\n",
    b"\n", b"\n\n", b"--b\n", b"--b--\n", b"=?utf-8?b?", b"?=", b"charset=", b"utf-16", b"idna",
    b"message/rfc822", b"Content-Transfer-Encoding: base64", b"quoted-printable", b"\xff", b"=E9",
    b"Content-Disposition: attachment; filename*=utf-8''%ff", b"AAA", b"\0", b'"', b";", b":",
    b"From x\n", b"begin 644 x\n", b"x-uuencode", b"uuencode", b" ",
])  # fmt: skip
_CELLS = st.sampled_from(["a", "1", '"', '""', ",", ";", "\t", "|", "\n", "\r\n", " ", "\0", "é"])


def read_all(data: bytes, reader: str) -> None:
    """Nothing but documents and DocumentErrors come out, and what is given is well-formed text."""
    for found in readers.scan_bytes(data, f"x.{reader}", Limits(max_bytes=10**6)):
        if isinstance(found, Unread):
            assert isinstance(found.error, DocumentError)
            str(found.error).encode("utf-8")
            continue
        for text in (found.text, *found.columns, *found.columns.values(), *found.notes):
            text.encode("utf-8")
            assert "\r" not in text
            assert "\0" not in text
        assert found.text.strip()
        assert all(page.start <= page.end <= len(found.text) for page in found.pages)


@pytest.mark.parametrize("reader", readers.names())
@given(data=st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes(reader, data):
    read_all(data, reader)


@given(st.lists(_MAIL, max_size=40).map(b"".join))
@settings(max_examples=400, deadline=None)
def test_pieces_of_mail(data):
    read_all(data, "eml")


@given(st.lists(_CELLS, max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
def test_pieces_of_tables(text):
    read_all(text.encode(), "csv")


@given(st.lists(_MARKUP, max_size=40).map("".join))
@settings(max_examples=400, deadline=None)
def test_pieces_of_html(source):
    html_to_text(source).encode("utf-8")


class Watched(str):
    """Text that counts how many of its characters were searched through."""

    searched = 0

    def find(self, what, start=0, *rest):
        found = super().find(what, start, *rest)
        self.searched += (len(self) if found < 0 else found) - start
        return found


@pytest.mark.parametrize("ending", ["", ">", '">'])
@pytest.mark.parametrize("unit", [
    "<!--", "<a ", "<![CDATA[", "&#", "<", "</", '<a b="', "<a b='", "<?", "<script>", "</script",
    '<a ">', '<a ">" ', "<td>", "<td> ", "<pre> ", "<li>", " \n", "<a b=\"' ",
])  # fmt: skip
def test_no_html_is_searched_again_and_again(unit, ending):
    source = Watched(unit * 2000 + ending)
    html_to_text(source)
    assert source.searched < 4 * len(source)


@pytest.mark.parametrize("value", ['a";"' * 2000, "a=b;" * 2000, "a*0*=b;" * 1000, "x" * 4000])
@pytest.mark.parametrize("header", ["Content-Type: text/plain;", "Content-Disposition: inline;"])
def test_endless_parameters_are_refused(header, value):
    data = f"Subject: s\n{header} {value}\n\nx\n".encode()
    with pytest.raises(DocumentTooLargeError, match="characters"):
        list(readers.parse(data, "eml"))


@pytest.mark.parametrize("data", [
    b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (i, i) for i in range(150)),
    b"Subject: s\nContent-Type: multipart/mixed; boundary=a\n\n" + b"--a\n\nx\n" * 200,
    b"Subject: s\nContent-Type: multipart/mixed; boundary=a\n\n" + b"--a\n" * 20_000,
    b"Subject: s\n" + b"a: b\n" * 20_000 + b"\nx",
], ids=["deep", "wide", "boundaries", "headers"])  # fmt: skip
def test_mails_of_too_many_parts_are_refused(data):
    with pytest.raises(DocumentTooLargeError):
        list(readers.parse(data, "eml"))


def test_long_headers_are_shown_in_part():
    data = b"Subject: " + b"=?utf-8?q?a?= " * 50_000 + b"\n\nbody\n"
    (part,) = readers.parse(data, "eml")
    assert re.match(r"Subject: a{500}.*…\n\nbody\n\Z", part.text)
    assert len(part.text) < 3000


# -- damage ----------------------------------------------------------------------------------------


@functools.cache
def sound(reader: str) -> bytes:
    """A small file that is as it should be."""
    if reader == "docx":
        document = docx.Document()
        document.add_table(1, 2).cell(0, 0).text = "Größe"
        return small(saved(document))
    if reader == "xlsx":
        book = openpyxl.Workbook()
        book.active.append(["Größe", 39.5, datetime.date(2026, 9, 11), "=1"])
        return small(saved(book))
    if reader == "pptx":
        show = pptx.Presentation()
        show.slides.add_slide(show.slide_layouts[5]).shapes.title.text = "Größe"
        return small(saved(show))
    if reader == "zip":
        return zipped({"a.txt": "Größe", "b/c.json": '{"a": "\\u00e9"}', "d.csv": "a,b\n1,2\n"})
    return {
        "csv": 'Größe;n\n"a ""b""";1\n', "eml": "Subject: =?utf-8?q?Gr=C3?=\n\nGröße\n",
        "html": "<meta charset=utf-8><p>Größe &amp; <td>x", "json": '{"a": ["Größe", 1.5e3]}',
        "jsonl": '{"a": "Größe"}\n[1, null]\n', "md": "# Größe\n", "txt": "Größe\n",
    }[reader].encode()  # fmt: skip


def small(data: bytes) -> bytes:
    """Without what no reader looks at, and stored, so that damage reaches the XML."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [x for x in archive.namelist() if not re.search("theme|Layout|Master|docProps", x)]
        return zipped({name: archive.read(name) for name in names}, zipfile.ZIP_STORED)


IN_PROCESS = sorted(set(readers.names()) - {"pdf"})  # that one is damaged in a process of its own


_WORDS = st.sampled_from([b"-1", b"99999999999", b"1e999", b"0", b"xml", b"<", b">", b'"', b"&#0;"])


@pytest.mark.parametrize("reader", IN_PROCESS)
@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_damage(reader, data):
    whole = sound(reader)
    if reader in ("docx", "xlsx", "pptx", "zip") and data.draw(st.booleans()):
        # Inside a part, for damage from outside is noticed by its checksum.
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        name = data.draw(st.sampled_from(sorted(files)))
        files[name] = damaged(files[name], data.draw)
        read_all(zipped(files, zipfile.ZIP_STORED), reader)
    else:
        read_all(damaged(whole, data.draw), reader)


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "/", "//"])
def test_files_without_a_name_in_an_archive(name):
    """Two of each: names that are there twice are told apart."""
    whole = bytearray(zipped({"qqqqqq": "one", "rrrrrr": "two"}, zipfile.ZIP_STORED))
    for stand_in in (b"qqqqqq", b"rrrrrr"):
        for at in [match.start() for match in re.finditer(stand_in, whole)]:  # in both headers
            whole[at : at + 6] = name.encode().ljust(6, b"\0")  # where a name ends for Python
    found = list(readers.scan_bytes(bytes(whole), "z.zip"))
    said = "there is no text" if name.endswith("/") else "without an ending"
    assert len({each.source for each in found}) == (1 if name.endswith("/") else 2)
    for each in found:
        assert isinstance(each, Unread)
        assert said in str(each.error)


def damaged(data: bytes, draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    whole = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(whole)))
        until = at + draw(st.integers(0, 6))
        whole[at:until] = draw(st.binary(max_size=6) | _WORDS)
    return bytes(whole)


@pytest.mark.parametrize("reader", IN_PROCESS)
def test_cut_off_anywhere(reader):
    whole = sound(reader)
    for length in range(0, len(whole), max(1, len(whole) // 300)):
        read_all(whole[:length], reader)


def test_damaged_pdf_files(tmp_path):
    """Many in one process, as a job would read them."""
    whole = pdf(["Größe 5 €", "北京", ""])
    random = Random(7)
    paths = []
    for number in range(300):
        data = bytearray(whole[: random.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(random.randrange(1, 30)):
            at = random.randrange(len(data) + 1)
            data[at : at + random.randrange(3)] = random.randbytes(random.randrange(3))
        paths.append(tmp_path / f"{number}.pdf")
        paths[-1].write_bytes(data)
    found = list(documents.read_all(paths, processes=1))
    assert [x.source for x in found] == list(map(str, paths))
    assert any(isinstance(x, Unread) for x in found)
    assert any(isinstance(x, documents.Document) and "5 €" in x.text for x in found)
