# SPDX-License-Identifier: Apache-2.0
"""Folders as other programs leave them, laid out for tests with small files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from store_files import gguf, sha256, write_json

COMMIT = "1234567890abcdef1234567890abcdef12345678"
OLDER = "abcdef1234567890abcdef1234567890abcdef12"
MODEL = gguf({"general.architecture": "llama", "general.license": "apache-2.0"})
IMAGE = "application/vnd.ollama.image."


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def huggingface(
    cache: Path,
    repository: str,
    files: Mapping[str, bytes],
    commit: str = COMMIT,
    ref: str | None = "main",
) -> Path:
    """A repository as huggingface_hub caches it; gives its folder."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for name, data in files.items():
        large = name.endswith((".gguf", ".safetensors"))
        blob = folder / "blobs" / (sha256(data) if large else git_sha1(data))
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (2 + name.count("/")), "blobs", blob.name))
    if ref is not None:
        path = folder / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return folder


def ollama(
    models: Path,
    name: str,
    layers: Mapping[str, bytes],
    host: str = "registry.ollama.ai",
    namespace: str = "library",
) -> Path:
    """A tag as Ollama keeps it (layers by the end of their media type); gives its manifest."""
    listed = []
    for kind, data in layers.items():
        digest = sha256(data)
        blob = models / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        media = IMAGE + kind.rstrip("0123456789")
        listed.append({"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)})
    base, _, tag = name.partition(":")
    path = models / "manifests" / host / namespace / base / tag
    write_json(path, {"schemaVersion": 2, "layers": listed})
    return path


def llama_cpp(cache: Path, repository: str, tag: str, file: str, data: bytes) -> Path:
    """A file as older versions of llama.cpp cache it, with its manifest; gives the file."""
    organisation, name = repository.split("/")
    path = cache / f"{organisation}_{name}_{file.replace('/', '_')}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    told = {"rfilename": file, "size": len(data), "lfs": {"sha256": sha256(data)}}
    write_json(cache / f"manifest={organisation}={name}={tag}.json", {"ggufFile": told})
    return path


def safetensors(name: str = "x") -> bytes:
    """A safetensors file of one number."""
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


def everything_under(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every file, to see that nothing was touched."""
    return {
        path.relative_to(folder).as_posix(): (sha256(path.read_bytes()), path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
