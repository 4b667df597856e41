# SPDX-License-Identifier: Apache-2.0
"""A model that lies on this machine already: files and folders, to be copied into the store.

The same files are taken as from a repository, and regular ones only. `freehold adopt` uses files
where they are instead.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from freehold.errors import DownloadError, ModelNotFoundError
from freehold.hub.gguf_variants import Chooser, quant_label
from freehold.hub.model_files import select, select_file
from freehold.hub.reference import Reference
from freehold.hub.remote import RemoteFile, RemoteModel

_MAX_ENTRIES = 10_000


def resolve(ref: Reference, *, chooser: Chooser | None = None) -> RemoteModel:
    """What lies at the path. Raises ModelNotFoundError."""
    try:
        path = Path(os.path.normpath(Path(ref.repository).expanduser().absolute()))
    except RuntimeError:
        raise ModelNotFoundError(f"{ref.repository}: there is no such user") from None
    if path.is_dir():
        files, entry, label = select(_list(path), ref.quant, chooser, str(path))
    else:
        if not path.exists():
            raise ModelNotFoundError(f"{path}: there is no such file")
        listed = _list(path.parent, beside=path.name)
        files, entry = select_file(listed, path.name, str(path.parent))
        files = tuple(f for f in files if f.name.endswith(path.suffix))
        label = quant_label(path.name)
    return RemoteModel(
        reference=replace(ref, repository=str(path)),
        source="path",
        repository=str(path),
        revision=None,
        quant=label,
        files=files,
        entry=entry,
    )


def _list(folder: Path, beside: str | None = None) -> list[RemoteFile]:
    """The files of a folder; with `beside`, those of that ending only."""
    found: list[RemoteFile] = []
    for count, path in enumerate(folder.iterdir()):
        name = path.name
        if count == _MAX_ENTRIES:
            raise DownloadError(f"{folder} holds more than {_MAX_ENTRIES:,} files")
        if beside is not None and path.suffix != Path(beside).suffix:
            continue
        try:
            status = path.stat()
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        try:
            version = f"{status.st_mtime_ns} {status.st_dev} {status.st_ino}"
            found.append(RemoteFile(name, status.st_size, path, revision=version))
        except DownloadError:
            if name == beside:
                raise
    return found
