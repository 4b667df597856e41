# SPDX-License-Identifier: Apache-2.0
"""The cache of llama.cpp: flat file names in older versions, Hugging Face's layout in newer ones.

<org>_<repo>_<file>.gguf            the weights
manifest=<org>=<repo>=<tag>.json    what the repository said of them: file, size, SHA-256
<file>.json                         where older versions fetched a file from
<file>.downloadInProgress           not finished
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from freehold.config import llama_cpp_caches
from freehold.errors import MalformedFileError
from freehold.formats.strict_json import parse_json_object
from freehold.hub.caches import Find, FoundFile, FoundModel, Skipped, _files, huggingface
from freehold.hub.disk import read_small
from freehold.hub.gguf_variants import quant_label

TOOL = "llama.cpp"
TITLE = "llama.cpp cache"

_MAX_JSON = 1 << 20
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_MANIFEST = re.compile(rf"manifest=({_PART})=({_PART})=({_PART})\.json")
_URL = re.compile(rf"https://(?:huggingface\.co|hf\.co)/({_PART}/{_PART})/resolve/[^/]+/(.+\.gguf)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a file came from, as far as the cache says."""

    repository: str
    file: str
    size: int | None = None
    sha256: str | None = None


def folders() -> list[Path]:
    """Where the cache lies on this machine."""
    return [folder for folder in llama_cpp_caches() if folder.is_dir()]


def recognises(folder: Path) -> bool:
    """Whether a folder has the older layout."""
    try:
        return any(_MANIFEST.fullmatch(path.name) for path in folder.iterdir())
    except OSError:
        return False


def scan(folder: Path) -> Iterator[Find]:
    """Every finished model."""
    yield from huggingface.scan(folder, TOOL)
    try:
        paths = sorted(path for path in folder.iterdir() if not path.is_dir())
    except OSError:
        return
    files: dict[str, FoundFile] = {}
    for path in paths[: _files.MAX_ENTRIES]:
        name, size = _files.relative_name(path, folder), _files.regular_size(path)
        if name is None or size is None or path.is_symlink():
            if path.name.lower().endswith(".gguf"):
                yield Skipped(TOOL, path, "it is a link, or no file, or its name is odd")
        elif name.lower().endswith(".gguf"):
            files[name] = FoundFile(name, path.resolve(), size)
    origins = _origins(folder, paths, files)
    for group in _files.group(files):
        if group.fault:
            yield Skipped(TOOL, folder / group.entry, group.fault)
        else:
            yield _model(folder, group, origins)


def _model(folder: Path, group: _files.Group, origins: dict[str, _Origin]) -> Find:
    origin = origins.get(group.entry)
    stem = group.entry.removesuffix(".gguf")
    if origin is None:
        label = quant_label(group.entry)
        return FoundModel(
            TOOL, f"{TOOL}:{stem}", "llama.cpp", stem, None, label, group.files, group.entry
        )  # fmt: skip
    first = group.files[0]
    if origin.size is not None and origin.size != first.size:
        why = f"it has {first.size:,} bytes of {origin.size:,}"
        return Skipped(TOOL, folder / group.entry, why)
    files = (replace(first, sha256=origin.sha256), *group.files[1:])
    label = quant_label(origin.file)
    name = f"hf:{origin.repository}" + (f":{label}" if label else f"/{origin.file}")
    return FoundModel(
        TOOL, name, "llama.cpp", origin.repository, None, label, files, group.entry
    )  # fmt: skip


def _origins(folder: Path, paths: list[Path], files: dict[str, FoundFile]) -> dict[str, _Origin]:
    """By file name. Manifests know more than the notes beside files, so they go last."""
    found: dict[str, _Origin] = {}
    for name in files:
        url = _json(folder / f"{name}.json").get("url")
        match = _URL.fullmatch(url) if isinstance(url, str) else None
        if match is not None and ".." not in match[0]:
            found[name] = _Origin(match[1], match[2])
    for path in paths:
        match = _MANIFEST.fullmatch(path.name)
        if match is None:
            continue
        told = _json(path).get("ggufFile")
        file = told.get("rfilename") if isinstance(told, dict) else None
        if not isinstance(told, dict) or not isinstance(file, str):
            continue
        name = f"{match[1]}_{match[2]}_{file.replace('/', '_')}"
        if name in files:
            found[name] = _told(f"{match[1]}/{match[2]}", file, told)
    return found


def _told(repository: str, file: str, told: dict[str, Any]) -> _Origin:
    large = told.get("lfs")
    large = large if isinstance(large, dict) else {}
    size, sha256 = told.get("size", large.get("size")), large.get("sha256")
    sound = isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None
    return _Origin(
        repository, file, size if type(size) is int else None, str(sha256) if sound else None
    )


def _json(path: Path) -> dict[str, Any]:
    """A small JSON object; empty where there is none."""
    try:
        return parse_json_object(read_small(path, _MAX_JSON) or b"", str(path))
    except (OSError, MalformedFileError):
        return {}
