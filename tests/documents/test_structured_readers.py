# SPDX-License-Identifier: Apache-2.0
"""Web pages, JSON, lines of JSON, large tables and archives."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import pytest
from office_files import zipped

from freehold.documents import Document, Limits, Unread, readers
from freehold.documents.document import Part
from freehold.errors import (
    DocumentTooLargeError,
    EmptyDocumentError,
    EncryptedDocumentError,
    MalformedDocumentError,
    UnsupportedDocumentError,
)
from shared_data import shared_path


def parts(data: bytes | str, reader: str, **limits: int) -> list[Part]:
    data = data.encode() if isinstance(data, str) else data
    return list(readers.parse(data, reader, Limits(**limits)))


def scan(data: bytes, **limits: int) -> list[Document | Unread]:
    return list(readers.scan_bytes(data, "z.zip", Limits(**limits)))


# -- web pages -----------------------------------------------------------------------------------


def test_a_page_is_its_visible_text():
    (found,) = parts(
        "<!doctype html><html><head><title>Größe</title><script src=http://x.example/></script>"
        "<link rel=stylesheet href=http://x.example/a.css></head><body><h1>One</h1>"
        "<p>two <b>three</b></p><table><tr><td>a<td>b</table></body></html>",
        "html",
    )
    assert found.text == "Größe\n\nOne\n\ntwo three\n\na | b\n"


@pytest.mark.parametrize("head", [
    '<meta charset="windows-1251">', "<META content='text/html; charset = windows-1251' name=x>",
])  # fmt: skip
def test_the_character_set_a_page_names(head):
    (found,) = parts(f"<html>{head}<p>Москва".encode("cp1251"), "html")
    assert (found.text, found.notes) == ("Москва\n", ())
    (found,) = parts(f"<html>{head}<p>Москва".encode("utf-8-sig"), "html")
    assert found.text == "Москва\n"


def test_other_endings_of_the_same_thing(tmp_path):
    for name in ("a.HTM", "b.log", "c.ndjson", "d.tsv"):
        (tmp_path / name).write_text('{"a": "b"}\n{}\n')
    given = [next(readers.read(path)) for path in sorted(tmp_path.iterdir())]
    assert [x.reader for x in given] == ["html", "txt", "jsonl", "csv"]


# -- JSON ----------------------------------------------------------------------------------------


def test_json_is_its_source_with_letters_written_out():
    source = (
        '{\n  "n": [1.50, -0, 1e400, 123456789012345678901234567890],\n'
        r'  "text": "Gr\u00f6\u00dfe \ud83d\ude00 \u5317\u4eac '
        r'\\u00f6 \\\u00f6 \u0022 \u005c \u0000 \ud800"'
        "\n}\n"
    )
    (found,) = parts(source, "json")
    assert found.text == (
        '{\n  "n": [1.50, -0, 1e400, 123456789012345678901234567890],\n'
        r'  "text": "Größe 😀 北京 \\u00f6 \\ö \u0022 \u005c \u0000 \ud800"'
        "\n}\n"
    )
    again = json.loads(found.text)
    assert again == json.loads(source)


@pytest.mark.parametrize(
    "data", ["{", "{'a': 1}", "[1,]", "nul", "[NaN]", "1 2", "[-Infinity]", "[1,,2]"]
)
def test_what_is_no_json(data):
    with pytest.raises(MalformedDocumentError, match="not JSON"):
        parts(data, "json")


def test_each_line_is_a_document():
    lines = [
        '{"text": "Gr\\u00f6\\u00dfe", "n": 1.50, "list": [1, {"a": null}], "none": null, "x": ""}',
        "",
        '"just a text\\r\\nof two lines"',
        "{broken",
        "[1, 2.0]",
        '{"text": "half \\ud800 and nul \\u0000"}',
    ]
    found = list(readers.scan_bytes("\r\n".join(lines).encode(), "a.jsonl"))
    assert [x.row for x in found] == [1, 3, 4, 5, 6]
    assert found[0].text == 'text: Größe\nn: 1.50\nlist: [1, {"a": null}]'
    assert found[0].columns == {
        "text": "Größe", "n": "1.50", "list": '[1, {"a": null}]', "none": "", "x": "",
    }  # fmt: skip
    assert found[1].text == "just a text\nof two lines"
    assert isinstance(found[2].error, MalformedDocumentError)
    assert "a.jsonl, row 4: not JSON" in found[2].error.message
    assert found[3].text == "[1, 2.0]"
    assert found[4].columns == {"text": "half \ufffd and nul \ufffd"}


def test_a_line_that_is_too_long_or_too_deep_is_one_error():
    lines = ['{"a": "b"}', json.dumps("x" * 200_000), "[" * 100_000 + "]" * 100_000, '{"a": "c"}']
    found = list(
        readers.scan_bytes("\n".join(lines).encode(), "a.jsonl", Limits(max_characters=150_000))
    )
    assert [getattr(x, "text", None) for x in found] == ["a: b", None, None, "a: c"]
    assert all(isinstance(x.error, DocumentTooLargeError) for x in found[1:3])
    assert "deep" in next(iter(readers.scan_bytes(lines[2].encode(), "a.jsonl"))).error.message


# -- large tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16", "utf-8-sig"])
def test_tables_are_read_in_pieces_like_in_one(encoding):
    # Two-byte letters lie across the borders of pieces of any even size.
    cells = [f"{'é' * (number % 50)}ö{number}" for number in range(20_000)]
    table = "name,n\r\n" + "".join(f'"{cell}",{n}\r\n' for n, cell in enumerate(cells))
    found = parts(table.encode(encoding), "csv")
    assert [part.columns["name"] for part in found] == cells
    assert [part.row for part in found] == list(range(1, 20_001))
    assert ("Windows-1252" in "".join(found[0].notes)) == (encoding == "cp1252")


def test_the_byte_that_is_no_utf8_is_found_behind_the_first_piece():
    (part, *_) = parts(b"a,b\n" + "xé,1\n".encode() * 30_000 + b"\xe9,2\n", "csv")
    assert "byte 180,004 is no UTF-8" in part.notes[0]
    with pytest.raises(MalformedDocumentError, match="character 150,004 is NUL"):
        parts(b"a,b\n" + "xé,1\n".encode() * 30_000 + b"\0,2\n", "csv")


def test_a_large_cell_is_read_and_a_larger_row_refused():
    (found,) = parts("text,n\n" + "x" * 1_000_000 + ",1\n", "csv")
    assert len(found.columns["text"]) == 1_000_000
    assert csv.field_size_limit() == 131_072  # the process's own, untouched
    for row in ("x" * 2000 + ",1\n", '"' + "x\n" * 1000 + '",1\n', ",".join("x" * 1000)):
        with pytest.raises(DocumentTooLargeError, match="row of more than 1,500 characters"):
            parts("text,n\n1,2\n" + row, "csv", max_characters=1500)


def test_memory_does_not_grow_with_a_table(tmp_path):
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write("id,text\n")
        for number in range(20_000):
            file.write(f'{number},"{"some text of an ordinary length " * 6}"\n')
    tracemalloc.start()
    count = sum(1 for _ in readers.read(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1_500_000 < path.stat().st_size


# -- archives ------------------------------------------------------------------------------------


def test_an_archive_gives_the_documents_of_its_files():
    inner = zipped({"deep.txt": "deep"})
    found = scan(zipped({
        "a.txt": "one", "b/t.csv": "x,y\n1,2\n3,4\n", "b/bad.json": "{", "b/c.exe": "MZ",
        "in.zip": inner, "empty.txt": "", ".hidden.txt": "no", "__MACOSX/a.txt": "no", "dir/": "",
        "../../up/\\..\\x.txt": "up", "n\x07l.txt": "odd", "last.txt": "end",
    }))  # fmt: skip
    assert [(x.source, x.text if isinstance(x, Document) else type(x.error)) for x in found] == [
        ("z.zip/a.txt", "one"),
        ("z.zip/b/t.csv", "x: 1\ny: 2"),
        ("z.zip/b/t.csv", "x: 3\ny: 4"),
        ("z.zip/b/bad.json", MalformedDocumentError),
        ("z.zip/b/c.exe", UnsupportedDocumentError),
        ("z.zip/in.zip/deep.txt", "deep"),
        ("z.zip/empty.txt", EmptyDocumentError),
        ("z.zip/up/x.txt", "up"),
        ("z.zip/n\ufffdl.txt", "odd"),
        ("z.zip/last.txt", "end"),
    ]
    assert {x.reader for x in found if isinstance(x, Document)} == {"txt", "csv"}


def test_members_of_one_name_are_both_given():
    data = zipped({"a.txt": "one", "b.txt": "two"}).replace(b"b.txt", b"a.txt")
    found = scan(data)
    assert [(x.source, x.text) for x in found] == [
        ("z.zip/a.txt", "one"), ("z.zip/a (2).txt", "two"),
    ]  # fmt: skip


def test_an_encrypted_or_damaged_member_is_its_own_error():
    data = bytearray(zipped({"a.txt": "one" * 50, "b.txt": "two", "c.txt": "three"}))
    at = data.index(b"PK\x01\x02")  # the directory; flags lie 8 bytes behind
    data[at + 8] |= 1
    assert [type(getattr(x, "error", x)) for x in scan(bytes(data))] == [
        EncryptedDocumentError, Document, Document,
    ]  # fmt: skip
    data[at + 8] ^= 1
    data[data.index(b"a.txt") + 6] ^= 0x55
    assert [type(getattr(x, "error", x)) for x in scan(bytes(data))] == [
        MalformedDocumentError, Document, Document,
    ]  # fmt: skip


def test_limits_of_archives():
    data = zipped({f"{n}.txt": "x" * 100 for n in range(10)})
    assert len(scan(data)) == 10
    for limits in ({"max_members": 9}, {"max_unpacked_bytes": 999}):
        (found,) = scan(data, **limits)
        assert isinstance(found.error, DocumentTooLargeError)
    nested = zipped({f"{n}.zip": data for n in range(3)})
    assert len(scan(nested)) == 30
    found = scan(nested, max_members=25)  # all depths together
    assert sum(isinstance(x, Document) for x in found) < 25
    assert isinstance(found[-1].error, DocumentTooLargeError)
    large = scan(zipped({"a.txt": "x" * 2000, "b.txt": "y"}), max_bytes=1000)
    assert [type(getattr(x, "error", x)) for x in large] == [DocumentTooLargeError, Document]


# -- samples and real data -----------------------------------------------------------------------


def test_the_sample_documents_are_what_is_written_in_them():
    folder = Path(__file__).parents[2] / "examples" / "documents"
    texts = {}
    for path in sorted(folder.iterdir()):
        for document in readers.read(path):
            texts[document.name] = document.text
    assert texts["order-boutique-hotel.eml"] == (
        "From: Purchasing <purchasing@hotel-lune.example>\nTo: orders@ternvale.example\n"
        "Date: Fri, 11 Sep 2026 09:12:44 +0200\nSubject: Order PO-7741 for the second floor\n\n"
        "Good morning,\n\nplease deliver for our second floor:\n\nArticle | Pieces | Each at\n"
        "Bedside lamp Alba | 24 | 39.00 €\n\n"
        "Our order number is PO-7741. Delivery by 30 September 2026 to Hotel Lune, Rue des "
        "Tanneurs 8, Lille.\n\nKind regards\nAdèle Marchand\nHotel Lune\n"
    )
    assert texts["support-inbox.csv, row 2"].startswith(
        "ticket: 5202\nreceived: 2026-09-14\ncustomer: Piet Vandaele\nsubject: Charged twice\n"
    )
    for name in ("contract-service.md", "customer-mail.txt", "invoice-packaging.txt"):
        assert texts[name] == (folder / name).read_text("utf-8")
    assert len(texts) == 12


def test_real_tables_are_read_cell_by_cell():
    path = shared_path("datasets", "banking77", "test.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = list(readers.read(path))
    assert len(found) == len(rows) == 3080
    for document, row in zip(found, rows, strict=True):
        cells = {name: cell.replace("\r\n", "\n").strip() for name, cell in row.items()}
        assert dict(document.columns) == cells


def test_real_lines_of_json_are_read_value_by_value():
    path = shared_path("datasets", "cuad_sample_12.jsonl")
    lines = path.read_text("utf-8").splitlines()
    found = list(readers.read(path))
    assert len(found) == len(lines) == 12
    for document, line in zip(found, lines, strict=True):
        for name, value in json.loads(line).items():
            if isinstance(value, str):
                assert document.columns[name] == value.replace("\r\n", "\n").replace("\r", "\n")
                assert document.columns[name] in document.text


def test_real_texts_are_themselves():
    for name in ("tinyshakespeare.txt", "wikitext2_valid.txt", "wizard_of_oz.txt"):
        path = shared_path("datasets", name)
        (document,) = readers.read(path)
        assert document.text == path.read_text("utf-8-sig")
