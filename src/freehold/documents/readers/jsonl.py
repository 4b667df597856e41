# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON: one document per line, read line by line, however long the file is.

An object's members are its columns, written as ``name: value`` lines like the cells of a table. A
line that is a string is that text. A line that is broken is an error of its own: unlike in a
table, the next one does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from freehold.documents.document import Limits, Part, Unread
from freehold.documents.readers import _json, _text
from freehold.errors import DocumentError, DocumentTooLargeError

VERSION = 1
LARGE = True


def read(file: BinaryIO, limits: Limits) -> Iterator[Part | Unread]:
    """One part per line that is not blank. Rows are numbered as the lines of the file."""
    encoding = _text.encoding_of(file)
    for number, line in enumerate(_text.lines(file, encoding, limits.max_characters), 1):
        if line is None:
            message = f"a line of more than {limits.max_characters:,} characters"
            yield Unread(DocumentTooLargeError(message), row=number)
        elif line.strip():
            try:
                yield _part(number, line, encoding.notes)
            except DocumentError as error:
                yield Unread(error, row=number)


def _part(number: int, line: str, notes: tuple[str, ...]) -> Part:
    value = _json.loads(line)
    if not isinstance(value, dict):
        return Part(_text.spoken(_json.flat(value)), row=number, notes=notes)
    columns = {_text.spoken(name): _text.spoken(_json.flat(cell)) for name, cell in value.items()}
    text = "\n".join(f"{name}: {cell}" for name, cell in columns.items() if cell)
    return Part(text, row=number, columns=columns, notes=notes)
