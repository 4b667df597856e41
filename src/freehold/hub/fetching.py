# SPDX-License-Identifier: Apache-2.0
"""A whole model from its source into the store: room for it, its files, then its record.

The record is written when every file is there and checked, so a model that is listed is complete.
Knows no policy and asks nobody; that is `pulling.py`'s.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from freehold.errors import (
    CapacityError,
    DownloadError,
    InvalidParameterError,
    MalformedFileError,
    ModelNotFoundError,
    StoreError,
    UnsupportedModelError,
)
from freehold.hub.file_names import check_model_name
from freehold.hub.inspection import Inspection, inspect
from freehold.hub.ranged_download import TransferLimits
from freehold.hub.remote import RemoteFile, RemoteModel
from freehold.hub.store import Store, StoredFile, StoredModel
from freehold.hub.transfer import blob_key, fetch, forget, present
from freehold.hub.web import Web

RESERVE = 64 << 20  # bytes that are left free: records, and whatever else the machine is doing
_WORTH_TELLING = 1 << 30  # bytes of a file that takes seconds to read

# Told of bytes that are there, bytes in all, and the file that is coming.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Need:
    """What a fetch would take. Bytes."""

    total: int
    present: int  # that need not come: from other models, or from an unfinished transfer
    free: int  # on the disk of the store

    @property
    def missing(self) -> int:
        """Bytes that would come."""
        return self.total - self.present


def known_already(model: RemoteModel, store: Store) -> RemoteModel:
    """`model`, with the digests that the store remembers of this very version of it."""
    try:
        stored = store.find(model.reference.name)
    except StoreError:
        stored = None  # a damaged record is replaced by the new one
    if stored is None or model.revision is None or stored.revision != model.revision:
        return model
    known = {(file.name, file.size): file.sha256 for file in stored.files}

    def with_digest(file: RemoteFile) -> RemoteFile:
        sha256 = file.sha256 or known.get((file.name, file.size))
        return replace(file, sha256=sha256) if sha256 and store.blob(sha256) else file

    return replace(model, files=tuple(map(with_digest, model.files)))


def need(model: RemoteModel, store: Store) -> Need:
    """Bytes in all, here and still to come, files that occur twice counted once."""
    unique = {blob_key(file): file for file in model.files}
    return Need(
        total=sum(file.size for file in unique.values()),
        present=sum(present(file, store) for file in unique.values()),
        free=shutil.disk_usage(_existing(store.root)).free,
    )


def check_room(model: RemoteModel, wanted: Need, store: Store) -> None:
    """CapacityError, with the numbers, unless the disk has room for what is missing."""
    if wanted.missing + RESERVE > wanted.free:
        kept = f" ({wanted.present:,} are here already)" if wanted.present else ""
        raise CapacityError(
            f"{model.reference.name} needs {wanted.missing:,} bytes more{kept}, and "
            f"{store.root} has {wanted.free:,} free",
            hint="make room (`freehold gc` shows what can go), or set FREEHOLD_MODELS to a "
            "folder on another disk",
        )


def check_name(model: RemoteModel) -> None:
    """InvalidParameterError for a name that no record can have, before anything is fetched."""
    try:
        check_model_name(model.reference.name)
    except StoreError as error:
        raise InvalidParameterError(error.message) from None


def fetch_model(
    model: RemoteModel,
    store: Store,
    web: Web,
    progress: Progress = lambda done, total, file: None,
    limits: TransferLimits | None = None,
) -> StoredModel:
    """Bring every file of `model` into `store` and record it.

    Raises DownloadError, IntegrityError, CapacityError or StoreError. What has come is kept.
    """
    check_name(model)
    total, before = model.nbytes, 0
    files: list[StoredFile] = []
    # Until the record names them, nobody may free the blobs.
    with store.transfer():
        check_room(model, need(model, store), store)
        for file in model.files:
            files.append(_fetch_one(file, store, web, limits, before, total, progress))
            before += file.size
        progress(total, total, "")
        stored = _record(model, files, store)
        store.add(stored)
    for file in model.files:
        if file.sha256 is None:
            forget(file, store)
    return stored


def _fetch_one(
    file: RemoteFile,
    store: Store,
    web: Web,
    limits: TransferLimits | None,
    before: int,
    total: int,
    progress: Progress,
) -> StoredFile:
    def report(done: int) -> None:
        progress(before + done, total, file.name)

    def checking(read: int) -> None:
        if file.size >= _WORTH_TELLING:
            progress(before + file.size, total, f"checking {file.name}, {read / file.size:.0%}")

    return fetch(file, store, web, report, limits, checking)


def _record(model: RemoteModel, files: list[StoredFile], store: Store) -> StoredModel:
    stored = StoredModel(
        name=model.reference.name,
        source=model.source,
        repository=model.repository,
        revision=model.revision,
        quant=model.quant,
        files=tuple(files),
        entry=model.entry,
        licence_claim=model.licence_claim,
        base_models=model.base_models,
        template_sha256=None,
        added_at=datetime.now(UTC).isoformat(timespec="seconds"),
        adopted=False,
        aliases=tuple(dict.fromkeys(a for a in model.aliases if a != model.reference.name)),
        root=store.root,
    )
    said = _inspected(stored)
    if said is None:
        return stored
    # Where it came from goes before its header, which is all that says anything of a lone file.
    return replace(
        stored,
        template_sha256=said.template_sha256,
        quant=stored.quant or (said.quant if stored.source in ("path", "url") else None),
        licence_claim=stored.licence_claim or said.licence_claim,
        base_models=stored.base_models or said.base_models,
    )


def _inspected(stored: StoredModel) -> Inspection | None:
    """What the model says of itself. Opening it also tells whether it is one: without a digest, a
    page that says "not found" comes as well as any file."""
    try:
        return inspect(stored.path())
    except UnsupportedModelError:
        return None  # sound, and of a kind that a later version may run
    except (MalformedFileError, ModelNotFoundError) as error:
        raise DownloadError(
            f"{stored.name}: what came is no model that can be read: "
            + error.message.partition(": ")[2],
            hint="look at the file where it comes from",
        ) from None


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
