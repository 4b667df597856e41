# SPDX-License-Identifier: Apache-2.0
"""What all programs' folders have in common: walking them within limits, grouping files to models.

Knows how files of a model are named, not where a program puts them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from freehold.errors import MalformedFileError, StoreError
from freehold.formats.strict_json import parse_json_object
from freehold.hub.caches import FoundFile
from freehold.hub.disk import read_small
from freehold.hub.file_names import check_file_name, check_file_names
from freehold.hub.gguf_variants import is_beside
from freehold.hub.model_files import CARD, is_beside_weights, is_licence

MAX_ENTRIES = 200_000  # directory entries looked at below one folder
_MAX_DEPTH = 8
_MAX_INDEX = 64 << 20
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one model under one folder, or why they are none."""

    entry: str  # the file to open, "" for the whole folder
    files: tuple[FoundFile, ...]
    fault: str | None = None


def walk(folder: Path) -> Iterator[Path]:
    """All files and links below `folder`, links to folders not followed, in order. Ends quietly
    at what may not be read, at MAX_ENTRIES and eight levels down."""
    left = MAX_ENTRIES
    waiting = [(folder, 0)]
    while waiting:
        where, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError:
            continue
        deeper = []
        for entry in entries:
            left -= 1
            if left < 0:
                return
            if entry.is_dir(follow_symlinks=False):
                if depth < _MAX_DEPTH:
                    deeper.append((Path(entry.path), depth + 1))
            else:
                yield Path(entry.path)
        waiting += reversed(deeper)


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in `folder`, by name; none where it cannot be read."""
    try:
        found = [Path(e.path) for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(found)[:MAX_ENTRIES]


def regular_size(path: Path) -> int | None:
    """Bytes of a regular file (links followed); None for anything else."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def group(files: Mapping[str, FoundFile]) -> Iterator[Group]:
    """The models among files by their relative names: every GGUF file or split set, with the
    papers of the folder; and the folder itself where it holds safetensors and config.json."""
    papers = [file for name, file in files.items() if _is_paper(name)]
    seen: set[str] = set()
    for name in sorted(files):
        base = name.rpartition("/")[2]
        if name in seen or not base.lower().endswith(".gguf") or is_beside(name):
            continue
        names = _members(name)
        seen.update(names)
        missing = [member for member in names if member not in files]
        if missing:
            why = f"{missing[0]}, one of {len(names)} files, is not there"
            yield Group(names[0], (files[name],), why)
            continue
        yield checked(names[0], [*(files[member] for member in names), *papers])
    top = {name for name in files if "/" not in name}
    if top & {"config.json", "params.json"} and any(n.endswith(".safetensors") for n in top):
        yield _directory(files)


def checked(entry: str, files: Iterable[FoundFile]) -> Group:
    """A group whose names are fit for a store."""
    listed = tuple(files)
    try:
        check_file_names(file.name for file in listed)
    except StoreError as error:
        return Group(entry, listed, error.message)
    return Group(entry, listed)


def _members(name: str) -> list[str]:
    """The names of a split set of which `name` is one, or `name` alone."""
    match = _SPLIT.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]) <= 512:
        return [name]
    count = int(match["count"])
    return [f"{match['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def _directory(files: Mapping[str, FoundFile]) -> Group:
    """The weights in the folder itself and what belongs to them, as a fetched model would have
    it; what an index names must be there."""
    weights = {name for name in files if "/" not in name and name.endswith(".safetensors")}
    usual = {name for name in weights if not name.startswith("consolidated")}
    weights = usual if usual and "config.json" in files else weights
    own = {n: f for n, f in files.items() if n in weights or is_beside_weights(n) or _is_paper(n)}
    for name in sorted(own):
        own_layout = name.startswith("consolidated") == (weights != usual)
        used = own_layout and name.endswith(_INDEX_SUFFIX)
        fault = _index_fault(own[name], own) if used else None
        if fault is not None:
            return Group("", tuple(own.values()), fault)
    return checked("", own.values())


def _index_fault(index: FoundFile, own: Mapping[str, FoundFile]) -> str | None:
    """What an index of shards says of the files that are there."""
    try:
        data = read_small(index.path, _MAX_INDEX)
        listed = parse_json_object(data or b"", index.name).get("weight_map")
    except (OSError, MalformedFileError) as error:
        return f"its index cannot be read: {error}"
    shards = set(map(str, listed.values())) if isinstance(listed, dict) else set()
    missing = sorted(shards - own.keys())
    return f"{missing[0]:.100} is not there" if missing else None


def _is_paper(name: str) -> bool:
    """Whether a file says under which terms a model may be used."""
    return is_licence(name) or name == CARD


def relative_name(path: Path, folder: Path) -> str | None:
    """The name of a file inside `folder`, with slashes; None where the store could not have it."""
    name = str(PurePosixPath(path.relative_to(folder)))
    try:
        return check_file_name(name)
    except StoreError:
        return None
