# SPDX-License-Identifier: Apache-2.0
"""Office Open XML: the package of .docx, .xlsx and .pptx, read as a stream of XML events.

Knows parts, relationships between them and how XML is hostile; knows nothing of words, cells and
slides. No tree is built and no picture unpacked, so memory does not grow with a document. A part
with a document type declaration is refused, for Office writes none and every bomb of entities
needs one. Relationships that point outside the package are never followed.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import BinaryIO
from xml.parsers import expat

from freehold.documents.document import Limits
from freehold.documents.readers import _zip
from freehold.errors import (
    DocumentError,
    DocumentTooLargeError,
    EncryptedDocumentError,
    MalformedDocumentError,
    UnsupportedDocumentError,
)

_PIECE = 1 << 16
_MAX_DEPTH = 500  # elements in elements
_MAX_RELATIONS = 100_000
_MAX_TOKEN = 4_000_000  # bytes of one tag; expat reads an unfinished one again with every piece
# Transitional and strict files differ in their namespaces; local names mean the same in both.
_COMPATIBILITY = "http://schemas.openxmlformats.org/markup-compatibility/2006"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # begins encrypted packages, and files of before 2007

# What `events` gives: "<" and ">" for the beginning and end of an element, "t" for text.
Event = tuple[str, str, dict[str, str]]


class Package:
    """An office file. Every method raises DocumentError."""

    def __init__(self, file: BinaryIO, limits: Limits, kind: str) -> None:
        self._kind = kind
        head = file.read(len(_OLE))
        if head == _OLE:
            raise _ole(file, kind)
        if not head.startswith(b"PK"):
            raise MalformedDocumentError(f"not a {kind} file: it does not begin like one")
        self._archive = _zip.opened(file, limits)
        # Names of parts do not depend on case; the first of a name is the one that counts.
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._archive.infolist():
            self._entries.setdefault(entry.filename.lower(), entry)
        self._left = limits.max_unpacked_bytes  # of XML, for a part may be read many times

    def has(self, part: str) -> bool:
        return part.lower() in self._entries

    def main(self) -> str:
        """The name of the part where the document begins."""
        for relation in self.relations(""):
            if relation.kind == "officeDocument" and self.has(relation.target):
                return relation.target
        raise MalformedDocumentError(f"not a {self._kind} file: it holds no document")

    def relations(self, part: str) -> list[Relation]:
        """Which parts of the package `part` refers to, in the order of its list."""
        folder, name = posixpath.split(part)
        listed = posixpath.join(folder, "_rels", f"{name}.rels")
        found: list[Relation] = []
        if not self.has(listed):
            return found
        for what, name, attributes in self.events(listed):
            if what != "<" or name != "Relationship" or attributes.get("TargetMode") == "External":
                continue
            if len(found) == _MAX_RELATIONS:
                raise DocumentTooLargeError(f"more than {_MAX_RELATIONS:,} relationships in a part")
            target = attributes.get("Target", "")
            inside = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            kind = attributes.get("Type", "").rpartition("/")[2]
            found.append(Relation(attributes.get("Id", ""), kind, inside))
        return found

    def events(self, part: str) -> Iterator[Event]:
        """Elements and text of a part, without prefixes; of alternatives the first."""
        entry = self._entries.get(part.lower())
        if entry is None:
            raise MalformedDocumentError(f"a damaged {self._kind} file: {part!r:.100} is missing")
        parser = _Parser()
        try:
            with _zip.member(self._archive, entry) as file:
                while data := file.read(_PIECE):
                    self._left -= len(data)
                    if self._left < 0:
                        raise DocumentTooLargeError("its parts unpack to more than the limit")
                    yield from parser.feed(data)
                yield from parser.feed(b"", last=True)
        except DocumentError:
            raise
        except expat.ExpatError as error:
            words = expat.ErrorString(error.code)
            raise MalformedDocumentError(
                f"a damaged {self._kind} file: {part!r:.100} is no XML ({words}, line "
                f"{error.lineno:,})"
            ) from None
        except (*_zip.BROKEN, LookupError):  # also an encoding that XML names and Python lacks
            raise MalformedDocumentError(
                f"a damaged {self._kind} file: {part!r:.100} cannot be unpacked or decoded"
            ) from None


class Relation:
    """A reference from one part to another. `kind` is the last word of its type."""

    __slots__ = ("id", "kind", "target")

    def __init__(self, identifier: str, kind: str, target: str) -> None:
        self.id = identifier
        self.kind = kind
        self.target = target


class _Parser:
    """Bytes in, events out."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._depth = 0
        self._fed = 0
        self._skipping = 0  # depth of the alternative that is passed over, 0 for none
        self._chosen: list[bool] = []  # per open AlternateContent: whether one was taken
        expat_parser = expat.ParserCreate(namespace_separator=" ")
        expat_parser.buffer_text = True
        expat_parser.StartDoctypeDeclHandler = self._declaration
        expat_parser.StartElementHandler = self._start
        expat_parser.EndElementHandler = self._end
        expat_parser.CharacterDataHandler = self._text
        self._parser = expat_parser

    def feed(self, data: bytes, *, last: bool = False) -> list[Event]:
        self._events = []
        self._fed += len(data)
        self._parser.Parse(data, last)
        if self._fed - max(self._parser.CurrentByteIndex, 0) > _MAX_TOKEN:
            raise DocumentTooLargeError(f"a tag of more than {_MAX_TOKEN:,} bytes")
        return self._events

    def _declaration(self, *_: object) -> None:
        raise MalformedDocumentError(
            "it declares a document type, which office files never do and bombs of entities need"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise DocumentTooLargeError(f"XML nested more than {_MAX_DEPTH} deep")
        if self._skipping:
            return
        space, _, local = name.rpartition(" ")
        if space == _COMPATIBILITY:
            self._alternative(local)
        else:
            self._events.append(("<", local, {_plain(key): attributes[key] for key in attributes}))

    def _alternative(self, local: str) -> None:
        """The same thing is written for new and old programs; both would be it twice."""
        if local == "AlternateContent":
            self._chosen.append(False)
        elif self._chosen and self._chosen[-1]:
            self._skipping = self._depth
        elif self._chosen:
            self._chosen[-1] = True

    def _end(self, name: str) -> None:
        if not self._skipping:
            space, _, local = name.rpartition(" ")
            if space != _COMPATIBILITY:
                self._events.append((">", local, {}))
            elif local == "AlternateContent":
                self._chosen.pop()
        elif self._skipping == self._depth:
            self._skipping = 0
        self._depth -= 1

    def _text(self, data: str) -> None:
        if not self._skipping:
            self._events.append(("t", data, {}))


def _plain(key: str) -> str:
    """An attribute's name: of a relationship it is ``r:id``, for elements have an id of theirs."""
    space, _, local = key.rpartition(" ")
    return f"r:{local}" if space.endswith("/relationships") else local


def _ole(file: BinaryIO, kind: str) -> DocumentError:
    """What an OLE file with an ending of Office Open XML is."""
    wanted = "EncryptedPackage".encode("utf-16-le")
    before = b""
    file.seek(0)
    while data := file.read(1 << 20):
        if wanted in before + data:
            return EncryptedDocumentError("it wants a password", hint="save it without one first")
        before = data[-len(wanted) :]
    return UnsupportedDocumentError(
        f"not a {kind} file but one of Office before 2007", hint=f"save it as {kind} first"
    )
