# SPDX-License-Identifier: Apache-2.0
"""Bytes to canonical text: which encoding, which line ends, and whether it is text at all.

Knows encodings; knows no file format.
"""

from __future__ import annotations

import codecs
import re

from freehold.errors import MalformedDocumentError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Character sets that mail and pages name. Python has codecs that are none (zlib, idna), and UTF-7
# gives halves of characters; a file does not get to choose those.
_CHARSETS = re.compile(
    r"(us-?)?ascii|utf[-_]?(8|16|32)([-_]?[bl]e)?|iso[-_]?(8859|2022)[-_\w]*|latin[-_]?\d+"
    r"|(windows|cp)[-_]?\d+|koi8[-_][rut]|big5([-_]?hkscs)?|gb(k|2312|18030)|euc[-_](jp|kr)"
    r"|shift[-_]?jis|hz|johab|mac[-_]?roman|tis[-_]?620",
    re.IGNORECASE,
)
_CONTROLS = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.01  # of characters; above, the bytes are no text


def decode(data: bytes, declared: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Text with ``\\n`` line ends and notes on guesses. Raises MalformedDocumentError.

    A byte order mark decides, then the declared character set, then UTF-8. What is none of these
    is read as Windows-1252, the superset of Latin-1 that is met in practice, and a note says so.
    """
    notes: list[str] = []
    text = _marked(data)
    if text is None and declared is not None:
        text = _declared(data, declared, notes)
    if text is None:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            text = _western(data)
            notes.append(
                f"byte {error.start:,} is no UTF-8; read as Windows-1252 (Latin-1), so accented "
                "letters may be wrong"
            )
    return canonical(text), tuple(notes)


def canonical(text: str) -> str:
    """`text` with ``\\n`` line ends. Raises MalformedDocumentError when it is no text."""
    nul = text.find("\0")
    if nul >= 0:
        raise MalformedDocumentError(
            f"not a text: character {nul:,} is NUL", hint="convert it to UTF-8 text first"
        )
    controls = sum(1 for _ in _CONTROLS.finditer(text))
    if controls > _MAX_CONTROL_SHARE * len(text):
        raise MalformedDocumentError(
            f"not a text: {controls:,} of {len(text):,} characters are control characters"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _marked(data: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise MalformedDocumentError(
                    f"begins as {encoding.removesuffix('-sig').upper()} and breaks at byte "
                    f"{error.start:,}"
                ) from None
    return None


def _declared(data: bytes, name: str, notes: list[str]) -> str | None:
    name = name.strip().strip("\"'")
    if _CHARSETS.fullmatch(name):
        try:
            return data.decode(name)
        except (LookupError, UnicodeError):
            pass
    notes.append(f"its text is not in the character set {name!r:.40} it names")
    return None


def _western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing there
        return data.decode("latin-1")
