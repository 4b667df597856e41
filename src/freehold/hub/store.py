# SPDX-License-Identifier: Apache-2.0
"""`Store`: the models of this machine, each file once, under the digest of its content.

    blobs/sha256-<digest>    complete files whose digest was checked; never changed
    partial/<key>            transfers that are not finished; never listed
    models/<key>.json        one record per model, written whole or not at all
    views/<id>/<name>        links under the files' own names; made again when they are gone

A model is there once its record is, and its record is written after its files. Several processes
may work on one store. Knows no network and no other program's folders.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from freehold.config import models_dir
from freehold.errors import IntegrityError, InvalidParameterError, StoreError
from freehold.formats.atomic_files import atomic_files
from freehold.hub.disk import (
    Watch,
    digest_of,
    file_lock,
    open_regular,
    read_small,
    store_errors,
    sync_folder,
)
from freehold.hub.file_names import key_of
from freehold.hub.stored_model import (
    MAX_RECORD_BYTES,
    StoredFile,
    StoredModel,
    blob_path,
    check,
    from_record,
    to_record,
)

__all__ = ["DamagedRecord", "Gate", "Store", "StoredFile", "StoredModel"]

# Told of a model before it is in the store; raises where it must not be.
Gate = Callable[[StoredModel], None]


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A record that cannot be read. Stands for one model; the others are there all the same."""

    key: str  # what `Store.remove` takes to be rid of it
    path: Path
    error: StoreError


class Store:
    """See the module. Making one touches no disk; every method raises StoreError, and
    CapacityError when the disk is full."""

    def __init__(self, root: Path | None = None) -> None:
        """`root`: the folder; by default where `config.models_dir` says."""
        self.root = models_dir() if root is None else root.absolute()
        self._records = self.root / "models"

    # -- what is there ------------------------------------------------------------------------

    def models(self) -> list[StoredModel]:
        """All models whose records can be read, by name. Whether files of theirs are missing by
        now is `StoredModel.problem`'s to say."""
        return self.scan()[0]

    def damaged(self) -> list[DamagedRecord]:
        """The records that cannot be read."""
        return self.scan()[1]

    def scan(self) -> tuple[list[StoredModel], list[DamagedRecord]]:
        """Both."""
        models: list[StoredModel] = []
        damaged: list[DamagedRecord] = []
        for path in self._record_paths():
            try:
                model = self._read(path)
            except StoreError as error:
                damaged.append(DamagedRecord(path.stem, path, error))
            else:
                if model is not None:
                    models.append(model)
        return sorted(models, key=lambda model: model.name), damaged

    def version(self) -> int | None:
        """A number that changes when a model comes, changes or goes, as fine as the disk's clock;
        None where there is no model yet."""
        try:
            return self._records.stat().st_mtime_ns
        except OSError:
            return None

    def find(self, name: str) -> StoredModel | None:
        """The model of that name or alias, or None. Raises StoreError where there is one, but its
        record is damaged."""
        if named := self._read(self._record_path(name)):
            return named
        # Two may claim an alias only when a process ended between two writes: the later has it.
        claims = [model for model in self.models() if name in model.aliases]
        return max(claims, key=lambda model: model.added_at, default=None)

    def blob(self, sha256: str) -> Path | None:
        """The complete file of that digest, or None."""
        path = blob_path(self.root, sha256)
        try:
            return path if stat.S_ISREG(path.lstat().st_mode) else None
        except OSError:
            return None

    def _record_paths(self) -> list[Path]:
        try:
            return sorted(
                path
                for path in self._records.iterdir()
                if path.name.endswith(".json") and not path.name.startswith(".")
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self._records}: {error.strerror}") from None

    def _record_path(self, name: str) -> Path:
        return self._records / f"{key_of(name)}.json"

    def _read(self, path: Path) -> StoredModel | None:
        """None where there is no such record, or no longer."""
        try:
            data = read_small(path, MAX_RECORD_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
        hint = f"`freehold remove {path.stem}` takes the record away; then get the model again"
        if data is None:
            raise StoreError(f"{path}: larger than {MAX_RECORD_BYTES >> 20} MiB", hint=hint)
        try:
            model = from_record(data, str(path), self.root)
            if key_of(model.name) != path.stem:
                raise StoreError(f"{path}: is the record of another model, {model.name!r:.100}")
        except StoreError as error:
            raise StoreError(error.message, hint=hint) from None
        return model

    # -- getting models in --------------------------------------------------------------------

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """Held from before the first blob is looked for until `add`: meanwhile nobody takes blobs
        away that no record names yet. Any number of processes may hold it."""
        with self._errors(), file_lock(self.root / "transfer.lock", shared=True):
            yield

    def partial(self, key: str) -> Path:
        """Where an unfinished file lies, by its digest or any other text that names it. Its folder
        exists then. Who writes there sees to it that nobody else does: `lock_of`."""
        name = key if len(key) == 64 and key.isalnum() else key_of(key)
        with self._errors():
            self._make(self.root / "partial")
        return self.root / "partial" / name

    @contextmanager
    def lock_of(self, partial: Path, *, wait: bool = True) -> Iterator[bool]:
        """Hold what `partial` gave for this process; yields whether it is held (see
        `file_lock`)."""
        lock = partial.with_name(f"{partial.name}.lock")
        with self._errors(), file_lock(lock, wait=wait, passing=True) as has:
            yield has

    def commit_blob(
        self, partial: Path, sha256: str, size: int, watch: Watch | None = None
    ) -> Path:
        """Make a finished file a blob: read it again, compare size and digest, flush it to the
        disk, rename it. `watch` is told of bytes read.

        Raises IntegrityError, and the file is gone then, for what is wrong cannot be gone on from.
        """
        target = blob_path(self.root, sha256)
        with self._errors():
            self._make(target.parent)
            with open_regular(partial, follow=False) as file:
                found, length = digest_of(file, watch)
                if length == size and found == sha256:
                    os.fchmod(file.fileno(), 0o444)  # nobody writes to a blob by accident
                    os.fsync(file.fileno())
            if length != size or found != sha256:
                partial.unlink()
                what = f"{length:,} bytes" if length != size else f"the digest {found}"
                wanted = f"{size:,}" if length != size else sha256
                raise IntegrityError(
                    f"{partial.name}: has {what}, not {wanted}", hint="fetch it again"
                )
            partial.replace(target)
            sync_folder(target.parent)
        return target

    def add(self, model: StoredModel) -> None:
        """Write the record of a model whose files are there; an older one of its name is replaced,
        and its aliases are taken from others."""
        check(model)
        aliases = tuple(dict.fromkeys(alias for alias in model.aliases if alias != model.name))
        model = replace(model, root=self.root, aliases=aliases)
        with self._errors():
            self._make(self._records)
        with self._errors(), file_lock(self.root / "lock"):
            for file in model.files:
                if why := file.problem():
                    raise StoreError(f"{model.name}: {why}")
            model.path()
            self._write(model)
            for other in self.models():
                if other.name != model.name and set(other.aliases) & {*model.aliases, model.name}:
                    left = [a for a in other.aliases if a not in (*model.aliases, model.name)]
                    self._write(replace(other, aliases=tuple(left)))

    def _write(self, model: StoredModel) -> None:
        data = to_record(model, self.root)
        if len(data) > MAX_RECORD_BYTES:
            raise StoreError(f"{model.name}: its record is over {MAX_RECORD_BYTES >> 20} MiB")
        try:
            with atomic_files() as create:
                create(self._record_path(model.name)).write(data)
        except InvalidParameterError as error:
            raise StoreError(error.message) from None
        sync_folder(self._records)

    # -- taking models out --------------------------------------------------------------------

    def remove(self, name: str) -> int:
        """Take a model away, and the blobs that no other one needs; gives the bytes freed. Files
        that another program keeps stay. A damaged record goes by its key as well.

        Raises StoreError where there is no such model."""
        from freehold.hub import garbage

        self._to_remove(name)  # who asks in vain leaves no folder behind
        with self._errors(), file_lock(self.root / "lock"):
            path, model = self._to_remove(name)
            path.unlink()
            sync_folder(self._records)
            with file_lock(self.root / "transfer.lock", wait=False) as alone:
                # Somebody who fetches may count on a blob: then it is left to `freehold gc`.
                if model is not None and alone:
                    with contextlib.suppress(StoreError):
                        return garbage.free(self, model)
                return 0

    def _to_remove(self, name: str) -> tuple[Path, StoredModel | None]:
        path = self._record_path(name)
        try:
            model = self.find(name)
        except StoreError:
            return path, None
        if model is not None:
            return self._record_path(model.name), model
        for damaged in self.damaged():
            if damaged.key == name:
                return damaged.path, None
        raise StoreError(f"{name}: the store has no such model", hint="see `freehold list`")

    # -- the folder ---------------------------------------------------------------------------

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with store_errors(self.root):
            yield

    def _make(self, folder: Path) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True)
