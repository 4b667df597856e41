# SPDX-License-Identifier: Apache-2.0
"""Office files: real ones by the libraries that people use, and parts put together by hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def saved(document: Any) -> bytes:
    """What `save` of a document of any of the libraries writes."""
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def zipped(files: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def changed(data: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """An archive with some of its files replaced, added or (None) left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return zipped({k: v for k, v in (files | dict(changes)).items() if v is not None})


def part(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


def word(body: str, declaration: str = "", **others: str) -> bytes:
    """A .docx of the given XML in its body; the prefixes w, mc and r are declared."""
    relations = "".join(
        f'<Relationship Id="r{name}" Type="{_OFFICE}/{name}" Target="{name}.xml"/>'
        for name in others
    )
    spaces = (
        f'xmlns:w="{_WORD}" xmlns:r="{_OFFICE}" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    )
    return zipped(
        {
            "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="r1"'
            f' Type="{_OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/document.xml": f"<?xml version='1.0'?>{declaration}<w:document {spaces}>"
            f"<w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{_PACKAGE}">{relations}'
            "</Relationships>",
        }
        | {f"word/{name}.xml": f"<w:x {spaces}>{xml}</w:x>" for name, xml in others.items()}
    )
