# SPDX-License-Identifier: Apache-2.0
"""The cache of huggingface_hub, which transformers, mlx-lm, vLLM and newer llama.cpp share.

    models--org--name/blobs/<etag>           the files; an etag of 64 digits is a SHA-256
    models--org--name/refs/main              the commit that a branch or tag was at
    models--org--name/snapshots/<commit>/…   links to the blobs under the files' own names

Snapshots may be incomplete: only what was asked for is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from freehold.config import huggingface_caches
from freehold.hub.caches import Find, FoundFile, FoundModel, Skipped, _files
from freehold.hub.disk import read_small
from freehold.hub.gguf_variants import quant_label

TOOL = "huggingface"
TITLE = "Hugging Face cache"

_REPOSITORY = re.compile(r"models--([A-Za-z0-9][\w.-]*?)--([\w.-]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9][\w./-]{0,199}")
_MAX_REFS = 200


def folders() -> list[Path]:
    """Where the cache lies on this machine."""
    return [folder for folder in huggingface_caches() if folder.is_dir()]


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return any(_REPOSITORY.fullmatch(inner.name) for inner in _files.folders_in(folder))


@dataclass(slots=True)
class _Repository:
    """One repository while it is scanned."""

    tool: str
    identity: str  # org/name
    folder: Path
    refs: dict[str, str]  # branches and tags with their commits
    taken: set[str] = field(default_factory=set)  # names that models of it have


def scan(folder: Path, tool: str = TOOL) -> Iterator[Find]:
    """Every model in every snapshot of every repository. The one that `main` is at comes first and
    has the plain name; others have their branch, tag or commit in the name."""
    for inner in _files.folders_in(folder):
        match = _REPOSITORY.fullmatch(inner.name)
        if match is not None and ".." not in inner.name:
            refs = _refs(inner / "refs")
            repository = _Repository(tool, f"{match[1]}/{match[2]}", inner, refs)
            for snapshot in _snapshots(inner / "snapshots", refs):
                yield from _models(repository, snapshot)


def _snapshots(folder: Path, refs: dict[str, str]) -> list[Path]:
    found = [inner for inner in _files.folders_in(folder) if _COMMIT.fullmatch(inner.name)]
    main = refs.get("main")
    return sorted(found, key=lambda inner: (inner.name != main, inner.name))


def _refs(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _files.walk(folder):
        name = path.relative_to(folder).as_posix()
        if len(found) < _MAX_REFS and _REF.fullmatch(name) and ".." not in name:
            try:
                text = (read_small(path, 100) or b"").decode("ascii", "replace").strip()
            except OSError:
                continue
            if _COMMIT.fullmatch(text):
                found[name] = text
    return found


def _models(repository: _Repository, snapshot: Path) -> Iterator[Find]:
    tool = repository.tool
    files: dict[str, FoundFile] = {}
    for path in _files.walk(snapshot):
        name = _files.relative_name(path, snapshot)
        if name is None:
            yield Skipped(tool, path, "its name could leave the folder or be another's")
            continue
        found = _file(name, path, repository.folder)
        if isinstance(found, FoundFile):
            files[name] = found
        elif name.lower().endswith((".gguf", ".safetensors", "config.json")):
            yield Skipped(tool, path, found)
    for group in _files.group(files):
        if group.fault:
            yield Skipped(tool, snapshot / group.entry, group.fault)
            continue
        quant = quant_label(group.entry) if group.entry else None
        name = _name(repository, group.entry, quant, snapshot.name)
        yield FoundModel(
            tool, name, "huggingface", repository.identity, snapshot.name, quant, group.files,
            group.entry,
        )  # fmt: skip


def _file(name: str, path: Path, repository: Path) -> FoundFile | str:
    """A file of a snapshot, or why it is none."""
    try:
        real = path.resolve(strict=True)
        home = repository.resolve()
    except (OSError, RuntimeError):
        return "the file it links to is not there"
    if not real.is_relative_to(home):
        return "it links to a file outside of its repository"
    size = _files.regular_size(real)
    if size is None:
        return "it is not a file"
    known = real.name if real.parent == home / "blobs" and _SHA256.fullmatch(real.name) else None
    return FoundFile(name, real, size, known)


def _name(repository: _Repository, entry: str, quant: str | None, commit: str) -> str:
    refs, base = repository.refs, f"hf:{repository.identity}"
    at = ""
    if refs.get("main") != commit and refs:
        at = "@" + next((ref for ref, where in refs.items() if where == commit), commit)
    name = base + (f":{quant}" if quant else f"/{entry}" if entry else "") + at
    if entry and name in repository.taken:
        name = f"{base}/{entry}{at}"
    repository.taken.add(name)
    return name
