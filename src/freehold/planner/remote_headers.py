# SPDX-License-Identifier: Apache-2.0
"""A checkpoint whose headers alone have been fetched: files of full length, empty but for those.

A file is made as long as the real one with nothing in it (it takes no room on the disk), and the
header is filled in, a piece at a time until the reader finds its end. So the readers of local files
read remote ones, with all their checks. Knows how far headers reach; how bytes are fetched is the
caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from freehold.errors import FreeholdError, MalformedFileError
from freehold.formats.checkpoint import Checkpoint, open_checkpoint
from freehold.formats.gguf_reader import read_one

# (location, first byte, how many) -> those bytes
Fetch = Callable[[str, int, int], bytes]

FIRST_PIECE = 1 << 20
MAX_HEADER = 128 << 20  # as the readers allow: the largest vocabularies take some 20 MB
# Of a directory, the files that are fetched whole.
_SAY_HOW_LARGE = ("config.json", "params.json", ".safetensors.index.json")
_MAX_TEXT = 32 << 20


@dataclass(frozen=True, slots=True)
class RemotePart:
    """One file of a model, elsewhere."""

    name: str  # relative
    size: int
    location: str


def open_remote(
    parts: Sequence[RemotePart], entry: str, folder: Path, fetch: Fetch
) -> tuple[Checkpoint, int]:
    """The checkpoint made of headers in `folder`, which has to outlive it, and how many bytes were
    fetched. `entry` is the file to open, "" the directory.

    Raises what `fetch` and opening raise."""
    fetched = 0
    for part in parts:
        path = folder / part.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if part.name.endswith(".gguf"):
            fetched += _gguf_header(part, path, fetch)
        elif part.name.endswith(".safetensors"):
            fetched += _safetensors_header(part, path, fetch)
        elif part.name.endswith(_SAY_HOW_LARGE) and not entry and 0 < part.size <= _MAX_TEXT:
            path.write_bytes(fetch(part.location, 0, part.size))
            fetched += part.size
    return open_checkpoint(folder / entry if entry else folder), fetched


def _gguf_header(part: RemotePart, path: Path, fetch: Fetch) -> int:
    have, wanted = 0, min(FIRST_PIECE, part.size)
    with path.open("wb") as file:
        file.truncate(part.size)
    while True:
        data = fetch(part.location, have, wanted - have)
        with path.open("r+b") as file:
            file.seek(have)
            file.write(data)
        have = wanted
        if _is_whole(path, have):
            return have
        if have >= min(part.size, MAX_HEADER):
            return have  # opening it says what is wrong
        wanted = min(part.size, MAX_HEADER, have * 4)


def _is_whole(path: Path, have: int) -> bool:
    """Whether the header ends within the bytes that are there. Behind them lie zeros, which no
    header ends with: names and counts are never empty."""
    try:
        contents = read_one(path)
    except FreeholdError:
        return False
    try:
        return min((t.offset for t in contents.tensors.values()), default=have + 1) <= have
    finally:
        for opened in contents.files:
            opened.close()


def _safetensors_header(part: RemotePart, path: Path, fetch: Fetch) -> int:
    first = fetch(part.location, 0, min(FIRST_PIECE, part.size))
    length = 8 + int.from_bytes(first[:8], "little")
    if length > min(part.size, MAX_HEADER):
        raise MalformedFileError(
            f"{part.name}: says that its header has {length - 8:,} bytes",
        )
    rest = fetch(part.location, len(first), length - len(first)) if length > len(first) else b""
    with path.open("wb") as file:
        file.write((first + rest)[:length])
        file.truncate(part.size)
    return len(first) + len(rest)
