# SPDX-License-Identifier: Apache-2.0
"""ZIP archives: each file inside is a document, or several, of its own.

Nothing is written anywhere, so names inside name documents and no places. Hidden files are left
out, as they are in folders. What the archive may unpack to in all is the loader's to bound.
"""

from __future__ import annotations

import functools
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from freehold.documents.document import Limits
from freehold.documents.readers import Member, _zip

VERSION = 1
LARGE = True

_WHOLE = 64_000_000  # bytes of a member that are unpacked at once; more are streamed


def members(file: BinaryIO, limits: Limits) -> Iterator[Member]:
    """The files in the archive, in the order of its directory. Raises DocumentError."""
    archive = _zip.opened(file, limits)
    seen: Counter[str] = Counter()
    for entry in archive.infolist():
        name = "".join(letter if letter.isprintable() else "\ufffd" for letter in entry.filename)
        path = PurePosixPath(name.replace("\\", "/"))
        # not `is_dir`, which a damaged entry without a name breaks
        if name.endswith("/") or any(_hidden(part) for part in path.parts):
            continue
        if path.name in ("", ".."):
            path = path / "unnamed"
        seen[name] += 1
        if seen[name] > 1:  # both are there, so both are given, under names that differ
            path = path.with_stem(f"{path.stem} ({seen[name]})")
        yield Member(str(path), entry.file_size, functools.partial(_open, archive, entry))


def _hidden(part: str) -> bool:
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def _open(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> BinaryIO:
    if entry.file_size <= _WHOLE:
        return io.BytesIO(_zip.unpacked(archive, entry))
    return cast(BinaryIO, io.BufferedReader(_zip.Checked(_zip.member(archive, entry))))
