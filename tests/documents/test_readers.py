# SPDX-License-Identifier: Apache-2.0
"""Readers: the text each makes of known bytes, and what it says about its guesses."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from freehold.documents import Document, Limits, find, readers
from freehold.documents.readers import read
from freehold.errors import (
    DocumentError,
    DocumentTooLargeError,
    InvalidParameterError,
    MalformedDocumentError,
    UnsupportedDocumentError,
)


def only(path: Path, data: bytes, **limits: int) -> Document:
    path.write_bytes(data)
    (document,) = read(path, Limits(**limits))
    return document


# -- the loader ----------------------------------------------------------------------------------


def test_every_file_of_the_folder_is_a_reader():
    folder = Path(readers.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.name.startswith("_")}
    assert set(readers.names()) == files
    assert {"txt", "md", "eml", "csv"} <= files


def test_a_document_knows_where_it_comes_from(tmp_path):
    document = only(tmp_path / "a.TXT", b"one\r\ntwo\rthree\n")
    assert document.text == "one\ntwo\nthree\n"
    assert document.source == str(tmp_path / "a.TXT")
    assert (document.reader, document.reader_version) == ("txt", 1)
    assert document.name == "a.TXT"
    assert document.notes == ()
    # printf 'one\ntwo\nthree\n' | sha256sum
    assert document.sha256 == "b6285c57e8797db5d4c51c80d6f11938afda9b11c6a003549709189e9b4b92a2"
    assert pickle.loads(pickle.dumps(document)) == document


@pytest.mark.parametrize("name", ["a.exe", "a", "a.", ".txt", "a.txt.gz", "a._text"])
def test_endings_without_a_reader(name, tmp_path):
    (tmp_path / name).write_bytes(b"text")
    with pytest.raises(UnsupportedDocumentError, match="no reader"):
        next(read(tmp_path / name))


def test_paths_that_cannot_be_read(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "dangling.txt").symlink_to("nowhere.txt")
    for name in ("folder.txt", "pipe.txt", "dangling.txt", "missing.txt", "nul\0.txt"):
        with pytest.raises(DocumentError):
            next(read(tmp_path / name))


@pytest.mark.parametrize("data", [b"", b" \n\t\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["txt", "md", "csv"])
def test_files_without_text(data, ending, tmp_path):
    (tmp_path / f"a.{ending}").write_bytes(data)
    with pytest.raises(DocumentError, match="no text"):
        next(read(tmp_path / f"a.{ending}"))


def test_limits_are_errors_not_cuts(tmp_path):
    path = tmp_path / "a.txt"
    assert only(path, b"x" * 100, max_bytes=100).text == "x" * 100
    with pytest.raises(DocumentTooLargeError, match="99 bytes"):
        only(path, b"x" * 100, max_bytes=99)
    with pytest.raises(DocumentTooLargeError, match="100 characters"):
        only(path, b"x" * 100, max_characters=99)


def test_find_walks_in_order_and_not_out(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.txt", ".hidden.txt", ".git/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in find(tmp_path)]
    assert found == ["a.md", "b.txt", "sub/c.txt"]
    assert list(find(tmp_path / "b.txt")) == [tmp_path / "b.txt"]
    for missing in (tmp_path / "nothing", "nul\0"):
        with pytest.raises(DocumentError):
            next(find(missing))


# -- encodings -----------------------------------------------------------------------------------

WORD = "Größe 5 €"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"], ids=lambda name: name
)
def test_unicode_is_read_without_a_word(encoding, tmp_path):
    document = only(tmp_path / "a.txt", WORD.encode(encoding))
    assert document.text == WORD
    assert document.notes == ()


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_both_byte_orders(mark, tmp_path):
    encoding = "utf-16-le" if mark == b"\xff\xfe" else "utf-16-be"
    assert only(tmp_path / "a.txt", mark + WORD.encode(encoding)).text == WORD


def test_the_fallback_is_said(tmp_path):
    document = only(tmp_path / "a.txt", WORD.encode("cp1252"))
    assert document.text == WORD
    (note,) = document.notes
    assert "byte 2" in note
    assert "Windows-1252" in note
    # A byte that Windows-1252 lacks still gives text.
    assert only(tmp_path / "a.txt", b"caf\xe9 \x81").text == "café \x81"


@pytest.mark.parametrize(
    "data",
    [
        b"text\0more", "Größe".encode("utf-16-le"), b"\xff\xfea", b"\xef\xbb\xbf\xff",
        b"\xff\xfe\x00\xd8", bytes(range(1, 32)) * 20, b"%PDF-1.7\n" + bytes(range(256)),
    ],
)  # fmt: skip
def test_what_is_no_text(data, tmp_path):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(MalformedDocumentError):
        next(read(tmp_path / "a.txt"))


def test_markdown_is_its_source(tmp_path):
    assert only(tmp_path / "a.md", b"# Title\n\n* one\n").text == "# Title\n\n* one\n"


# -- tables --------------------------------------------------------------------------------------


def rows(tmp_path: Path, text: str) -> list[Document]:
    (tmp_path / "t.csv").write_text(text, newline="")
    return list(read(tmp_path / "t.csv"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_one_document_per_row(delimiter, tmp_path):
    table = 'id,message,note\r\n7,"late\nagain, sorry",\r\n8,"say ""hi""",x\r\n\r\n'
    if delimiter != ",":
        table = table.replace(",", delimiter)
    first, second = rows(tmp_path, table)
    message = f"late\nagain{delimiter} sorry"
    assert first.text == f"id: 7\nmessage: {message}"
    assert first.columns == {"id": "7", "message": message, "note": ""}
    assert (first.row, first.name) == (1, "t.csv, row 1")
    assert second.text == 'id: 8\nmessage: say "hi"\nnote: x'
    assert second.column("message").text == 'say "hi"'
    assert second.column("message").row == 2
    with pytest.raises(InvalidParameterError, match="'subject'"):
        second.column("subject")


def test_a_table_without_a_header_loses_no_row(tmp_path):
    first, second = rows(tmp_path, "7,late\n8,broken\n")
    assert first.text == "column 1: 7\ncolumn 2: late"
    assert second.row == 2
    assert "numbered" in first.notes[0]
    (alone,) = rows(tmp_path, "a,a\n")
    assert alone.columns == {"column 1": "a", "column 2": "a"}


def test_ragged_rows_keep_every_cell(tmp_path):
    short, long = rows(tmp_path, "a,b,,\n1\n1,2,3,4\n")
    assert short.columns == {"a": "1"}
    assert long.columns == {"a": "1", "b": "2", "column 3": "3", "column 4": "4"}
    assert "4 cells for 2 columns" in long.notes[0]
    (clash,) = rows(tmp_path, "column 2,x,y\n".replace(",x,y", "") + "1,2\n")
    assert set(clash.columns.values()) == {"1", "2"}


def test_text_in_one_column(tmp_path):
    documents = rows(tmp_path, "text\nhello there\n\nbye\n")
    assert [document.text for document in documents] == ["text: hello there", "text: bye"]


@pytest.mark.parametrize("table", ['a,b\n1,"never closed\n2,x\n', 'a,b\n1,"x"y\n'])
def test_a_broken_quotation_swallows_no_rows(table, tmp_path):
    with pytest.raises(MalformedDocumentError, match="line"):
        rows(tmp_path, table)


def test_rows_before_a_broken_one_are_given(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n1,2\n3,"x"y\n')
    given = read(tmp_path / "t.csv")
    assert next(given).text == "a: 1\nb: 2"
    with pytest.raises(MalformedDocumentError):
        next(given)


# -- e-mail --------------------------------------------------------------------------------------


def mail(tmp_path: Path, text: str) -> Document:
    return only(tmp_path / "m.eml", text.replace("\n", "\r\n").encode())


def test_headers_and_plain_text(tmp_path):
    document = mail(
        tmp_path,
        "Received: from x\nSubject: =?utf-8?Q?Gr=C3=B6=C3=9Fe?= =?utf-8?b?IDUg4oKs?=\n"
        "From: =?iso-8859-1?q?Ren=E9e?= <r@example.org>\nTo: shop@example.org,\n b@example.org\n"
        "Date: Mon, 3 Mar 2025 10:00:00 +0100\nX-Mailer: none\n\nHello,\n\nplease help.\n",
    )
    assert document.text == (
        "From: Renée <r@example.org>\nTo: shop@example.org, b@example.org\n"
        "Date: Mon, 3 Mar 2025 10:00:00 +0100\nSubject: Größe 5 €\n\nHello,\n\nplease help.\n"
    )
    assert document.notes == ()


ALTERNATIVES = """\
Subject: s
Content-Type: multipart/mixed; boundary=out

--out
Content-Type: multipart/alternative; boundary=in

--in
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

caf=E9
--in
Content-Type: text/html

<p>other</p>
--in--
--out
Content-Type: application/pdf; name="plan.pdf"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="plan.pdf"

AAAA
--out
Content-Type: message/rfc822

Subject: inner

forwarded
--out--
"""


def test_plain_text_wins_and_attachments_are_listed(tmp_path):
    document = mail(tmp_path, ALTERNATIVES)
    assert document.text == "Subject: s\n\ncafé\n"
    assert document.notes == (
        "attachment not read: plan.pdf (application/pdf, 3 bytes)",
        "attachment not read: without a name (message/rfc822)",
    )


PAGE = """\
Subject: s
Content-Type: text/html; charset=utf-8

<html><head><title>T</title><style>p { color: red }</style><script>var a = "<p>no</p>";</script>
</head><body><!-- hidden --><p>Two&nbsp;words &amp; <b>one</b> more<br>next&#33;</p>
<table><tr><td>a</td><td>b</td></tr><tr><th>c</th> <td>d</td></tr></table>
<ul><li>x<li>y</ul><img alt=">" src=x>end <pre>a
  b</pre> 1 < 2</body></html>
"""


def test_html_alone_becomes_text(tmp_path):
    document = mail(tmp_path, PAGE)
    assert document.text == (
        "Subject: s\n\nT\n\nTwo words & one more\nnext!\n\na | b\nc | d\n\n- x\n- y\n\nend\n\n"
        "a\n  b\n\n1 < 2\n"
    )
    assert document.notes == ("written in HTML only; its visible text was taken",)


@pytest.mark.parametrize("charset", ["zlib", "idna", "undefined", "utf-7", "nonsense", "utf-8"])
def test_a_character_set_that_does_not_fit_is_said(charset, tmp_path):
    path = tmp_path / "m.eml"
    head = f"Subject: s\nContent-Type: text/plain; charset={charset}\n\n".encode()
    document = only(path, head + b"caf\xe9\n")
    assert document.text == "Subject: s\n\ncafé\n"
    assert any(charset in note for note in document.notes)


@pytest.mark.parametrize(
    "data", [b"just text\n", b"\n\nbody", b"From\0: x\n\ny", b"X-A: b\n\nbody"]
)
def test_what_is_no_mail(data, tmp_path):
    (tmp_path / "m.eml").write_bytes(data)
    with pytest.raises(MalformedDocumentError):
        next(read(tmp_path / "m.eml"))


def test_a_multipart_without_parts_is_read_as_text(tmp_path):
    document = mail(tmp_path, "Subject: s\nContent-Type: multipart/mixed\n\nstill here\n")
    assert document.text == "Subject: s\n\nstill here\n"
