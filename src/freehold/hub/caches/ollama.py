# SPDX-License-Identifier: Apache-2.0
"""Ollama's models: manifests that name blobs by their digests.

    manifests/<host>/<namespace>/<name>/<tag>   JSON: layers with media type, digest and size
    blobs/sha256-<digest>

The same files are taken as when a model is fetched from a registry. Templates, system prompts and
parameters are kept but not used: a GGUF file carries its template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from freehold.config import ollama_folders
from freehold.errors import FreeholdError, MalformedFileError
from freehold.formats.strict_json import parse_json_object
from freehold.hub import reference
from freehold.hub.caches import Find, FoundFile, FoundModel, Skipped, _files
from freehold.hub.disk import read_small
from freehold.hub.ollama_layers import PREFIX, WEIGHTS, LayerNames

TOOL = "ollama"
TITLE = "Ollama"

MAX_MANIFEST = 1 << 20
_MAX_LAYERS = 64
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
# Layers without which the weights would be another model, or none.
_NEEDED = {"adapter": "it carries an adapter", "tensor": "its weights are in Ollama's own format"}


def folders() -> list[Path]:
    """Where Ollama keeps models on this machine."""
    return [folder for folder in ollama_folders() if (folder / "manifests").is_dir()]


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / "manifests").is_dir() and (folder / "blobs").is_dir()


def scan(folder: Path) -> Iterator[Find]:
    """Every tag of every model."""
    manifests = folder / "manifests"
    for path in _files.walk(manifests):
        parts = path.relative_to(manifests).parts
        if len(parts) != 4 or path.name.startswith("."):
            continue
        try:
            yield _model(folder, path, parts)
        except FreeholdError as error:
            yield Skipped(TOOL, path, error.message.removeprefix(f"{path}: "))
        except OSError as error:
            yield Skipped(TOOL, path, error.strerror or "cannot be read")


def _model(folder: Path, path: Path, parts: tuple[str, ...]) -> Find:
    host, namespace, base, tag = parts
    ref = reference.parse(f"ollama:{host}/{namespace}/{base}:{tag}")
    data = read_small(path, MAX_MANIFEST)
    if data is None:
        return Skipped(TOOL, path, f"a manifest of more than {MAX_MANIFEST >> 20} MiB")
    layers = parse_json_object(data, str(path)).get("layers")
    if not isinstance(layers, list) or len(layers) > _MAX_LAYERS:
        raise MalformedFileError(f"{path}: layers must be a list of up to {_MAX_LAYERS}")
    files: list[FoundFile] = []
    names = LayerNames()
    for layer in layers:
        if not isinstance(layer, dict):
            raise MalformedFileError(f"{path}: a layer must be an object")
        kind = str(layer.get("mediaType", "")).removeprefix(PREFIX)
        if kind in _NEEDED:
            return Skipped(TOOL, path, _NEEDED[kind])
        name = names.of(kind)
        if name is not None:
            files.append(_blob(folder, path, layer, name))
    weights = [file for file in files if file.name.startswith("model")]
    if len(weights) != 1:
        return Skipped(TOOL, path, f"it has {len(weights)} files of weights")
    return FoundModel(
        TOOL, ref.name, "ollama", ref.repository, None, None, tuple(files), WEIGHTS
    )  # fmt: skip


def _blob(folder: Path, manifest: Path, layer: Mapping[str, Any], name: str) -> FoundFile:
    """The file of a layer; MalformedFileError where the manifest or the disk is at fault."""
    digest, size = layer.get("digest"), layer.get("size")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None or type(size) is not int or size < 0:
        raise MalformedFileError(f"{manifest}: a layer has no sound digest and size")
    path = folder / "blobs" / f"sha256-{match[1]}"
    if not path.exists():
        path = path.with_name(f"sha256:{match[1]}")  # as early versions named them
    if path.is_symlink():
        raise MalformedFileError(f"{manifest}: the blob of {name} is a link")
    found = _files.regular_size(path)
    if found is None:
        raise MalformedFileError(f"{manifest}: the blob of {name} is not there")
    if found != size:
        raise MalformedFileError(f"{manifest}: the blob of {name} has {found:,} bytes of {size:,}")
    return FoundFile(name, path.resolve(), size, match[1])
