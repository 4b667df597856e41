# SPDX-License-Identifier: Apache-2.0
"""Bundles: models with everything that belongs to them in one file, for machines without a network.

Export reads every byte against its digest; import believes nothing: what the bundle says of itself
is checked first, every file is hashed before it is in the store, and no model is listed before all
are. A bundle says where its models are from, which is a claim: `digest` is what to compare by
another way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from freehold.errors import CapacityError, FreeholdError, MalformedFileError, StoreError
from freehold.formats.atomic_files import atomic_files
from freehold.formats.strict_json import parse_json_object
from freehold.hub import bundle_archive as archive
from freehold.hub.bundle_archive import ArchiveReader, Blob
from freehold.hub.disk import CHUNK, Watch, open_regular, store_errors
from freehold.hub.store import Gate, Store, StoredFile, StoredModel
from freehold.hub.stored_model import as_dict, blob_path, check, from_dict

_FORMAT, _VERSION = "freehold-bundle", 1
_MAX_MODELS = 1000
_SPARE = 64 << 20  # bytes left free on the disk


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle says that it holds."""

    models: tuple[StoredModel, ...]
    blobs: tuple[Blob, ...]
    digest: str  # SHA-256 of the list of contents, which has the digest of every file

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(blob.size for blob in self.blobs)


def export(models: Sequence[StoredModel], out: Path, watch: Watch | None = None) -> Bundle:
    """Write a bundle; `out` is there whole or not at all. `watch` is told of bytes.

    Raises StoreError where a file is not what its record says, CapacityError for a full disk."""
    files: dict[str, StoredFile] = {}
    for model in models:
        if why := model.problem():
            raise StoreError(f"{model.name}: {why}")
        files |= {file.sha256: file for file in model.files}
    contents = _contents(models, files)
    bundle = _read_contents(contents, out, out.parent)
    check_space(out.parent, archive.archive_bytes(contents, bundle.blobs))
    with store_errors(out), atomic_files() as create:
        file = create(out)
        file.write(archive.header(archive.CONTENTS, len(contents)))
        file.write(contents + archive.padding(len(contents)))
        for blob in bundle.blobs:
            file.write(archive.header(blob.member, blob.size))
            _copy(files[blob.sha256], file, watch)
            file.write(archive.padding(blob.size))
        file.write(archive.end())
    return bundle


def _copy(stored: StoredFile, out: BinaryIO, watch: Watch | None) -> None:
    digest = hashlib.sha256()
    left = stored.size
    try:
        file = open_regular(stored.path)
    except OSError as error:
        raise StoreError(f"{stored.path}: cannot be read: {error.strerror}") from None
    with file:
        while part := file.read(min(CHUNK, left + 1)):
            left -= len(part)
            digest.update(part)
            out.write(part)
            if watch is not None:
                watch(len(part))
    if left or digest.hexdigest() != stored.sha256:
        raise StoreError(
            f"{stored.path}: has not the content of its digest", hint="see `freehold verify`"
        )


def _contents(models: Iterable[StoredModel], files: dict[str, StoredFile]) -> bytes:
    """The first member: records without paths, then every blob in the order of the archive."""
    nowhere = Path("/")
    records: list[dict[str, Any]] = []
    for model in sorted(models, key=lambda model: model.name):
        own = tuple(
            StoredFile(file.name, file.sha256, file.size, blob_path(nowhere, file.sha256))
            for file in model.files
        )
        records.append(as_dict(replace(model, files=own, adopted=False), nowhere))
    blobs = [{"sha256": sha256, "size": files[sha256].size} for sha256 in sorted(files)]
    content = {"format": _FORMAT, "version": _VERSION, "models": records, "blobs": blobs}
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


# -- reading ----------------------------------------------------------------------------------


def look_into(path: Path) -> Bundle:
    """What the bundle at `path` says that it holds. Raises MalformedFileError, StoreError."""
    with store_errors(path), open_regular(path) as file:
        return _read_contents(ArchiveReader(file, path).contents(), path, path.parent)


def _read_contents(data: bytes, where: Path, root: Path) -> Bundle:
    content = parse_json_object(data, str(where))
    if (content.get("format"), content.get("version")) != (_FORMAT, _VERSION):
        raise MalformedFileError(f"{where}: not a bundle that this version can read")
    records, listed = content.get("models"), content.get("blobs")
    if not isinstance(records, list) or not isinstance(listed, list):
        raise MalformedFileError(f"{where}: models and blobs must be lists")
    if not 0 < len(records) <= _MAX_MODELS:
        raise MalformedFileError(f"{where}: a bundle has 1 to {_MAX_MODELS} models")
    models = tuple(_model(record, where, root) for record in records)
    names = [name for model in models for name in (model.name, *model.aliases)]
    if len(set(names)) != len(names):
        raise MalformedFileError(f"{where}: two models have the same name")
    needed = {(file.sha256, file.size) for model in models for file in model.files}
    blobs = [_blob(item, where) for item in listed]
    if {(blob.sha256, blob.size) for blob in blobs} != needed or len(blobs) != len(needed):
        raise MalformedFileError(f"{where}: its files are not the ones that its models need")
    if len({blob.sha256 for blob in blobs}) != len(blobs):
        raise MalformedFileError(f"{where}: one digest has two sizes")
    return Bundle(models, tuple(blobs), hashlib.sha256(data).hexdigest())


def _model(record: object, where: Path, root: Path) -> StoredModel:
    if not isinstance(record, dict):
        raise MalformedFileError(f"{where}: a model must be an object")
    try:
        model = from_dict(record, str(where), root)
        check(model)
    except StoreError as error:
        raise MalformedFileError(f"{where}: {error.message}") from None
    if model.adopted or any(file.path != blob_path(root, file.sha256) for file in model.files):
        raise MalformedFileError(f"{where}: {model.name} has files outside of the bundle")
    return model


def _blob(item: object, where: Path) -> Blob:
    if isinstance(item, dict):
        sha256, size = item.get("sha256"), item.get("size")
        if isinstance(sha256, str) and type(size) is int:
            return Blob(sha256, size)
    raise MalformedFileError(f"{where}: a file of the list has no digest and size")


def read_into(
    store: Store,
    path: Path,
    *,
    replace_models: bool = False,
    expected: str | None = None,
    watch: Watch | None = None,
    gate: Gate | None = None,
) -> list[StoredModel]:
    """Put the models of a bundle into the store; gives those that were not there already.

    `expected`: the `Bundle.digest` it must have. Raises MalformedFileError or IntegrityError for
    whatever a bundle may have wrong, StoreError where the store has another model of a name,
    CapacityError when there is no room, and what `gate` raises; the store lists what it listed
    before then.
    """
    with store.transfer(), store_errors(path), open_regular(path) as file:
        reader = ArchiveReader(file, path)
        bundle = _read_contents(reader.contents(), path, store.root)
        if expected is not None and bundle.digest != expected.lower().removeprefix("sha256:"):
            raise StoreError(f"{path}: the bundle's digest is {bundle.digest}, not {expected:.80}")
        new = _wanted(store, bundle, replace_models)
        missing = [blob.size for blob in bundle.blobs if store.blob(blob.sha256) is None]
        check_space(store.root, sum(missing))
        for blob in bundle.blobs:
            _take(store, reader, blob, watch)
        reader.end()
        if gate is not None:
            for model in new:
                gate(model)
        for model in new:
            store.add(model)
    return new


def _wanted(store: Store, bundle: Bundle, replace_models: bool) -> list[StoredModel]:
    """The models to add: without those that are there, and without names that others have."""
    new: list[StoredModel] = []
    for model in bundle.models:
        try:
            old = store.find(model.name)
        except StoreError:
            old = None  # a damaged record is replaced
        if old is not None and old.digest == model.digest and old.problem() is None:
            continue
        if old is not None and not replace_models:
            raise StoreError(
                f"{model.name}: the store has another model of this name",
                hint="--replace takes the bundle's instead",
            )
        free = tuple(a for a in model.aliases if replace_models or _is_free(store, a))
        new.append(replace(model, aliases=free))
    return new


def _is_free(store: Store, alias: str) -> bool:
    try:
        return store.find(alias) is None
    except StoreError:
        return False


def _take(store: Store, reader: ArchiveReader, blob: Blob, watch: Watch | None) -> None:
    """The next member as a blob of the store; read past where the store has it."""
    partial = store.partial(f"bundle {blob.sha256}")
    with store.lock_of(partial):
        have = store.blob(blob.sha256) is not None
        try:
            if have:
                for part in reader.blob(blob):
                    if watch is not None:
                        watch(len(part))
                return
            partial.unlink(missing_ok=True)
            with store_errors(store.root), partial.open("xb") as file:
                for part in reader.blob(blob):
                    file.write(part)
                    if watch is not None:
                        watch(len(part))
            store.commit_blob(partial, blob.sha256, blob.size)
        except (FreeholdError, OSError):
            partial.unlink(missing_ok=True)
            raise


def check_space(folder: Path, needed: int) -> None:
    """CapacityError, with the numbers, where the disk of `folder` has not that many bytes free."""
    existing = next((p for p in (folder, *folder.parents) if p.is_dir()), Path("/"))
    free = shutil.disk_usage(existing).free
    if needed and needed + _SPARE > free:
        raise CapacityError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free",
            hint="make room, or set FREEHOLD_MODELS to a folder on another disk",
        )
