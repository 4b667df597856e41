# SPDX-License-Identifier: Apache-2.0
"""How fast documents are read, and in how much memory: `python bench_reading.py [FILE …]`.

Without files it makes some: a PDF of many pages, a large table, a text document, a workbook, many
small files. Each is read as callers read (in processes of their own). Seconds include starting the
processes; `CPU` is that of readers and caller, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from common import finish, header, say, table
from freehold.documents import Unread, read_all

LINE = "The parcel of order {0} has not come, and the tracking page has not changed for {0} days."
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def make_pdf(path: Path, pages: int) -> None:
    """Pages of 40 lines in a font that every reader of PDF has."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    kids = []
    for page in range(pages):
        shown = b" T* ".join(b"(%s) Tj" % LINE.format(40 * page + n).encode() for n in range(40))
        packed = zlib.compress(b"BT /F 10 Tf 14 TL 40 800 Td " + shown + b" ET")
        head = b"<< /Length %d /Filter /FlateDecode >>" % len(packed)
        objects.append(head + b"\nstream\n" + packed + b"\nendstream")
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, b" ".join(kids))
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n" % (len(objects) + 1)
    path.write_bytes(bytes(out + b"%d\n%%%%EOF\n" % table))


def make_table(path: Path, size: int) -> None:
    with path.open("w") as file:
        file.write("id,message,date\n")
        number = 0
        while file.tell() < size:
            file.write(f'{number},"{LINE.format(number)} ""Where is it?""",2026-09-14\n')
            number += 1


def make_office(path: Path, main: str, parts: dict[str, Iterator[str]]) -> None:
    """A package whose document is `main`, with the parts given piece by piece."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r" '
            f'Type="{OFFICE}/officeDocument" Target="{main}"/></Relationships>',
        )
        for name, pieces in parts.items():
            with archive.open(name, "w") as file:
                for piece in pieces:
                    file.write(piece.encode())


def make_word(path: Path, paragraphs: int) -> None:
    def document() -> Iterator[str]:
        yield f'<w:document xmlns:w="{WORD}"><w:body>'
        for n in range(paragraphs):
            yield f"<w:p><w:r><w:t>{LINE.format(n)}</w:t></w:r></w:p>"
        yield "</w:body></w:document>"

    make_office(path, "word/document.xml", {"word/document.xml": document()})


def make_workbook(path: Path, rows: int) -> None:
    def sheet() -> Iterator[str]:
        yield f'<worksheet xmlns="{SHEET}"><sheetData>'
        for n in range(rows):
            cells = f"<c><v>{n}</v></c><c><v>{n / 7}</v></c><c><v>{n % 13}</v></c>"
            text = f'<c t="inlineStr"><is><t>{LINE.format(n)}</t></is></c>'
            yield f"<row>{cells}{text}</row>"
        yield "</sheetData></worksheet>"

    book = (
        f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>'
        '<sheet name="Orders" sheetId="1" r:id="s"/></sheets></workbook>'
    )
    listed = (
        f'<Relationships xmlns="{PACKAGE}"><Relationship Id="s" Type="{OFFICE}/worksheet" '
        'Target="sheet.xml"/></Relationships>'
    )
    make_office(path, "xl/workbook.xml", {
        "xl/workbook.xml": iter([book]), "xl/_rels/workbook.xml.rels": iter([listed]),
        "xl/sheet.xml": sheet(),
    })  # fmt: skip


def make_files(folder: Path) -> dict[str, list[Path]]:
    """What is read, by what to call it."""
    made = {
        "PDF, 500 pages": [folder / "pages.pdf"], "table, 50 MB": [folder / "table.csv"],
        "Word, 20,000 paragraphs": [folder / "long.docx"],
        "Excel, 20,000 rows": [folder / "rows.xlsx"],
    }  # fmt: skip
    make_pdf(folder / "pages.pdf", 500)
    make_table(folder / "table.csv", 50_000_000)
    make_word(folder / "long.docx", 20_000)
    make_workbook(folder / "rows.xlsx", 20_000)
    small = [folder / f"{number:04}.txt" for number in range(5_000)]
    for number, path in enumerate(small):
        path.write_text(f"{LINE.format(number)}\n" * 10)
    return made | {"5,000 small texts": small}


class Peak:
    """The most memory that processes started by this one had in use, looked at all the time."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.02):
            for child in me.children():
                try:
                    self.bytes = max(self.bytes, child.memory_info().rss)
                except psutil.Error:  # it has ended meanwhile
                    continue


def measure(paths: list[Path], processes: int) -> dict[str, Any]:
    def cpu() -> float:
        used = [resource.getrusage(x) for x in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(x.ru_utime + x.ru_stime for x in used)

    documents = pages = characters = unread = 0
    before, began = cpu(), time.perf_counter()
    with Peak() as peak:
        for found in read_all(paths, processes=processes):
            if isinstance(found, Unread):
                unread += 1
            else:
                documents += 1
                pages += len(found.pages)
                characters += len(found.text)
    seconds = time.perf_counter() - began
    return {
        "bytes": sum(path.stat().st_size for path in paths), "documents": documents,
        "pages": pages, "characters": characters, "unread": unread, "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu() - before, 3), "peak_bytes": peak.bytes,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Reading documents.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", help="store the line of JSON in this file too")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {path.name: [path] for path in given.files} or make_files(Path(folder))
        for name, paths in files.items():
            found = results[name] = measure(paths, given.processes)
            rates = [found[what] / found["seconds"] for what in ("pages", "documents")]
            rows.append([
                name, f"{found['bytes'] / 1e6:.1f}", f"{found['documents']:,}",
                f"{found['seconds']:.2f}", f"{found['cpu_seconds']:.2f}",
                *(f"{rate:,.0f}" for rate in rates), f"{found['peak_bytes'] / 1e6:.0f}",
            ])  # fmt: skip
    columns = ["", "MB", "documents", "seconds", "CPU", "pages/s", "documents/s", "peak MB"]
    say(table(columns, rows))
    finish(header("reading") | {"processes": given.processes, "results": results}, given.output)


if __name__ == "__main__":
    main()
