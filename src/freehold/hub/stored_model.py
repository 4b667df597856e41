# SPDX-License-Identifier: Apache-2.0
"""A model that lies on this disk, and its record: the JSON that says which files it is made of.

The record is untrusted like any file. Knows its fields; where records lie is `store.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freehold.errors import MalformedFileError, StoreError
from freehold.formats.strict_json import describe, parse_json_object
from freehold.hub import views
from freehold.hub.file_names import (
    check_file_name,
    check_file_names,
    check_model_name,
    check_sha256,
)

MAX_RECORD_BYTES = 16 << 20
MAX_FILES = 4096
SOURCES = ("huggingface", "ollama", "url", "path", "lmstudio", "llama.cpp", "bundle")
_VERSION = 1
_MAX_TEXT = 4096
_MAX_SIZE = 1 << 60


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a model: a blob of the store, or a file that another program keeps."""

    name: str  # relative, with slashes: what the file is called inside the model
    sha256: str
    size: int  # bytes
    path: Path
    mtime_ns: int | None = None  # of an adopted file, when its digest was taken

    def problem(self) -> str | None:
        """Why the file cannot be used, judged without reading it; None where nothing is wrong."""
        try:
            status = self.path.stat()
        except OSError as error:
            return f"{self.name}: {self.path} cannot be read: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return f"{self.name}: {self.path} is not a file"
        if status.st_size != self.size:
            return f"{self.name}: {self.path} has {status.st_size:,} bytes, not {self.size:,}"
        if self.mtime_ns is not None and status.st_mtime_ns != self.mtime_ns:
            return f"{self.name}: {self.path} was written to since it was adopted"
        return None


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One model under its name. What an uploader claims is kept as a claim."""

    name: str  # the canonical reference, such as "hf:org/repo:Q4_K_M"
    source: str  # one of SOURCES
    repository: str
    revision: str | None
    quant: str | None
    files: tuple[StoredFile, ...]
    entry: str  # name of the file to open (the first of a split set), or "" for the directory
    licence_claim: str | None  # what the uploader says
    base_models: tuple[str, ...]  # repositories it says it was made from
    template_sha256: str | None  # of the chat template
    added_at: str  # ISO 8601, UTC
    adopted: bool  # whether another program keeps its files
    aliases: tuple[str, ...] = ()
    root: Path | None = field(default=None, compare=False)  # of the store that it lies in

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over names and digests of all files: one number for the whole model."""
        lines = "".join(sorted(f"{file.sha256}  {file.name}\n" for file in self.files))
        return hashlib.sha256(lines.encode()).hexdigest()

    def problem(self) -> str | None:
        """Why the model cannot be opened, judged without reading its files; None: it can."""
        return next((why for file in self.files if (why := file.problem())), None)

    def path(self) -> Path:
        """What `LLM` opens. Raises StoreError where a file is gone or is another one by now."""
        if self.root is None:
            raise StoreError(f"{self.name}: is not in a store yet")
        if why := self.problem():
            hint = (
                "adopt it again, or restore the file"
                if self.adopted
                else f"`freehold remove {self.name}`, then pull it again"
            )
            raise StoreError(f"{self.name}: {why}", hint=hint)
        folder = views.ensure(self.root, {file.name: file.path for file in self.files})
        return folder / self.entry if self.entry else folder


def check(model: StoredModel) -> None:
    """StoreError unless every field of `model` has the form that a record may hold."""
    check_model_name(model.name)
    for alias in model.aliases:
        check_model_name(alias)
    if not 0 < len(model.files) <= MAX_FILES:
        raise StoreError(f"{model.name}: a model has 1 to {MAX_FILES} files")
    check_file_names(file.name for file in model.files)
    for file in model.files:
        check_sha256(file.sha256)
        if not 0 <= file.size <= _MAX_SIZE:
            raise StoreError(f"{model.name}: {file.name} cannot have {file.size} bytes")
    if model.entry and model.entry not in {file.name for file in model.files}:
        raise StoreError(f"{model.name}: the file to open, {model.entry!r:.100}, is not one of it")
    if model.source not in SOURCES:
        raise StoreError(f"{model.name}: models do not come from {model.source!r:.40}")


# -- the record -------------------------------------------------------------------------------


def to_record(model: StoredModel, root: Path) -> bytes:
    """The record of `model` in the store at `root`."""
    return (json.dumps(as_dict(model, root), ensure_ascii=False, indent=1) + "\n").encode()


def as_dict(model: StoredModel, root: Path) -> dict[str, Any]:
    """The record as JSON values. Blobs of the store have no path: stores can be moved."""
    files: list[dict[str, Any]] = []
    for file in model.files:
        entry: dict[str, Any] = {"name": file.name, "sha256": file.sha256, "size": file.size}
        if file.path != blob_path(root, file.sha256):
            entry |= {"path": os.fspath(file.path), "mtime_ns": file.mtime_ns}
        files.append(entry)
    return {
        "version": _VERSION,
        "name": model.name,
        "aliases": list(model.aliases),
        "source": model.source,
        "repository": model.repository,
        "revision": model.revision,
        "quant": model.quant,
        "entry": model.entry,
        "files": files,
        "licence_claim": model.licence_claim,
        "base_models": list(model.base_models),
        "template_sha256": model.template_sha256,
        "added_at": model.added_at,
        "adopted": model.adopted,
    }


def blob_path(root: Path, sha256: str) -> Path:
    """Where the blob of that digest lies, if the store has it."""
    return root / "blobs" / f"sha256-{check_sha256(sha256)}"


def from_record(data: bytes, where: str, root: Path) -> StoredModel:
    """The model that a record tells of. Raises StoreError, and reads nothing but `data`."""
    try:
        if len(data) > MAX_RECORD_BYTES:
            raise MalformedFileError(f"{where}: larger than {MAX_RECORD_BYTES >> 20} MiB")
        model = from_dict(parse_json_object(data, where), where, root)
        check(model)
    except MalformedFileError as error:
        raise StoreError(error.message) from None
    return model


def from_dict(record: Mapping[str, Any], where: str, root: Path) -> StoredModel:
    """The same for values; raises MalformedFileError."""
    if record.get("version") != _VERSION:
        raise MalformedFileError(
            f"{where}: version {describe(record.get('version'))} of records is not known"
        )
    files = record.get("files")
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise MalformedFileError(f"{where}: files must be a list of up to {MAX_FILES}")
    adopted = record.get("adopted")
    if not isinstance(adopted, bool):
        raise MalformedFileError(f"{where}: adopted must be true or false")
    return StoredModel(
        name=_text(record, "name", where),
        source=_text(record, "source", where),
        repository=_text(record, "repository", where),
        revision=_optional(record, "revision", where),
        quant=_optional(record, "quant", where),
        files=tuple(_file(item, where, root) for item in files),
        entry=_text(record, "entry", where),
        licence_claim=_optional(record, "licence_claim", where),
        base_models=_texts(record, "base_models", where),
        template_sha256=_optional(record, "template_sha256", where),
        added_at=_text(record, "added_at", where),
        adopted=adopted,
        aliases=_texts(record, "aliases", where),
        root=root,
    )


def _file(item: object, where: str, root: Path) -> StoredFile:
    if not isinstance(item, dict):
        raise MalformedFileError(f"{where}: a file must be an object, not {describe(item)}")
    size, mtime = item.get("size"), item.get("mtime_ns")
    if type(size) is not int or not (mtime is None or type(mtime) is int):
        raise MalformedFileError(f"{where}: size and mtime_ns of a file must be whole numbers")
    try:
        name = check_file_name(_text(item, "name", where))
        sha256 = check_sha256(_text(item, "sha256", where))
    except StoreError as error:
        raise MalformedFileError(f"{where}: {error.message}") from None
    given = _optional(item, "path", where)
    if given is None:
        return StoredFile(name, sha256, size, blob_path(root, sha256))
    if "\0" in given or not Path(given).is_absolute():
        raise MalformedFileError(f"{where}: the path of {name!r:.100} is not absolute")
    return StoredFile(name, sha256, size, Path(given), mtime)


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise MalformedFileError(f"{where}: {key} must be a text, not {describe(value)}")
    return value


def _optional(record: Mapping[str, Any], key: str, where: str) -> str | None:
    return None if record.get(key) is None else _text(record, key, where)


def _texts(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = record.get(key)
    if not isinstance(value, list) or len(value) > 1000:
        raise MalformedFileError(f"{where}: {key} must be a list of texts")
    if not all(isinstance(item, str) and len(item) <= _MAX_TEXT for item in value):
        raise MalformedFileError(f"{where}: {key} must be a list of texts")
    return tuple(value)
