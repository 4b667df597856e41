# SPDX-License-Identifier: Apache-2.0
"""PDF files written by hand, object by object, so that a test knows what is in them.

Text is shown in a font without outlines whose ToUnicode map says which characters are meant, which
is all that reading needs and works for every script.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence


def pdf(pages: Sequence[str], *, meaning: dict[str, str] | None = None) -> bytes:
    """A file with one page per text; ``\\n`` begins a new line on it.

    `meaning` changes what the map says of a character; an empty string leaves it out.
    """
    letters = sorted(set("".join(pages)) - {"\n"})
    codes = {letter: number for number, letter in enumerate(letters, 1)}
    means = {letter: letter for letter in letters} | (meaning or {})
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",  # the tree of pages, once their numbers are known
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Plain /Encoding /Identity-H"
        b" /DescendantFonts [4 0 R] /ToUnicode 5 0 R >>",
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Plain /DW 500 /CIDSystemInfo"
        b" << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /FontDescriptor 6 0 R >>",
        stream(_to_unicode({codes[x]: means[x] for x in letters if means[x]})),
        b"<< /Type /FontDescriptor /FontName /Plain /Flags 4 /FontBBox [0 -200 500 800]"
        b" /ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 >>",
    ]
    kids = []
    for page in pages:
        objects.append(stream(_content(page, codes)))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    return assemble(objects)


def assemble(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """Objects numbered from 1, the first of them the catalogue, as a file."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\n" % (len(objects) + 1, trailer)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % table)


def stream(data: bytes, entries: bytes = b"") -> bytes:
    """A compressed stream object's body."""
    packed = zlib.compress(data, 9)
    head = b"<< /Length %d /Filter /FlateDecode %s >>" % (len(packed), entries)
    return head + b"\nstream\n" + packed + b"\nendstream"


def picture_page() -> list[bytes]:
    """The objects of a page that shows one picture and no text, as scanners make them."""
    return [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R"
        b" /Resources << /XObject << /I 5 0 R >> >> >>",
        stream(b"q 100 0 0 100 0 0 cm /I Do Q"),
        stream(
            bytes(64),
            b"/Type /XObject /Subtype /Image /Width 8 /Height 8 /ColorSpace /DeviceGray"
            b" /BitsPerComponent 8",
        ),
    ]


def _content(page: str, codes: dict[str, int]) -> bytes:
    lines = []
    for number, line in enumerate(page.split("\n")):
        shown = "".join(f"{codes[letter]:04x}" for letter in line)
        lines.append(f"BT /F 10 Tf 1 0 0 1 40 {800 - 14 * number} Tm <{shown}> Tj ET")
    return "\n".join(lines).encode()


def _to_unicode(means: dict[int, str]) -> bytes:
    lines = [
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap",
        "/CMapName /Plain def /CMapType 2 def",
        "1 begincodespacerange <0000> <ffff> endcodespacerange",
    ]
    for code, meaning in means.items():
        utf16 = meaning.encode("utf-16-be").hex()
        lines.append(f"1 beginbfchar <{code:04x}> <{utf16}> endbfchar")
    return "\n".join([*lines, "endcmap end end"]).encode()
