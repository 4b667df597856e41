# SPDX-License-Identifier: Apache-2.0
"""One file from where it lies into the store: resumed, checked, and only then there.

What has come is in a `Partial`, so whoever comes next goes on from there. Bytes count as the file
only after `Store.commit_blob` has read all of them again and found the digest that was promised.
Knows no source, no names of models and no progress bars.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from freehold.errors import CapacityError, IntegrityError
from freehold.hub.disk import digest_of, is_full, open_regular
from freehold.hub.partial import Partial, journal_of, read_spans
from freehold.hub.ranged_download import RangedDownload, Report, TransferLimits
from freehold.hub.remote import RemoteFile
from freehold.hub.store import Store, StoredFile
from freehold.hub.web import Web


def blob_key(file: RemoteFile) -> str:
    """The name of the unfinished file: of its content where that is known, else of everything
    that would change with it."""
    if file.sha256 is not None:
        return file.sha256
    told = f"{file.location}\n{file.size}\n{file.git_sha1}\n{file.validator}\n{file.revision}"
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def present(file: RemoteFile, store: Store) -> int:
    """How many bytes of the file need not be fetched."""
    sha256 = file.sha256 or _noted(store, file)
    if sha256 is not None and store.blob(sha256) is not None:
        return file.size
    key = blob_key(file)
    return sum(end - start for start, end in read_spans(store.partial(key), file.size, key))


def fetch(
    file: RemoteFile,
    store: Store,
    web: Web,
    report: Report = lambda done: None,
    limits: TransferLimits | None = None,
    checking: Report = lambda done: None,
) -> StoredFile:
    """Bring `file` into the store. `Store.transfer` must be held. `report` is told how many bytes
    are there, `checking` how many of them were read again.

    Raises DownloadError, IntegrityError for bytes that are not the promised ones, and
    CapacityError when the disk is full. What has come is kept, unless it is wrong.
    """
    path = store.partial(blob_key(file))
    with store.lock_of(path):
        # Whoever held the lock may have been fetching the same.
        sha256 = file.sha256 or _noted(store, file)
        if sha256 is not None and (blob := store.blob(sha256)) is not None:
            if blob.stat().st_size != file.size:
                raise IntegrityError(
                    f"{file.name}: promised with {file.size:,} bytes, but the file of that digest "
                    f"has {blob.stat().st_size:,}"
                )
            report(file.size)
            return StoredFile(file.name, sha256, file.size, blob)
        resumed = bool(read_spans(path, file.size, blob_key(file)))
        try:
            return _fetch(file, store, web, report, limits or TransferLimits(), checking)
        except IntegrityError:
            if not resumed:
                raise
        # What an earlier try left was wrong, so it is nobody's fault today.
        return _fetch(file, store, web, report, limits or TransferLimits(), checking)


def _fetch(
    file: RemoteFile,
    store: Store,
    web: Web,
    report: Report,
    limits: TransferLimits,
    checking: Report,
) -> StoredFile:
    key = blob_key(file)
    path = store.partial(key)
    try:
        with Partial(path, file.size, key) as part:
            if isinstance(file.location, Path):
                _copy(file, file.location, part, report)
            else:
                RangedDownload(file, file.location, part, web, limits).run(report)
        sha256 = file.sha256 or _digest(path, file)
        blob = _commit(file, path, sha256, store, checking)
    except IntegrityError:
        # Wrong bytes are nothing to go on from.
        path.unlink(missing_ok=True)
        journal_of(path).unlink(missing_ok=True)
        raise
    except OSError as error:
        if not is_full(error):
            raise
        raise CapacityError(
            f"{file.name}: the disk became full",
            hint="make room; the same command goes on from what has come",
        ) from None
    if file.sha256 is None:
        _note(store, file, sha256)
    journal_of(path).unlink(missing_ok=True)
    return StoredFile(file.name, sha256, file.size, blob)


def _commit(file: RemoteFile, path: Path, sha256: str, store: Store, checking: Report) -> Path:
    read = 0

    def watch(count: int) -> None:
        nonlocal read
        read += count
        checking(read)

    try:
        return store.commit_blob(path, sha256, file.size, watch)
    except IntegrityError as error:
        raise _not_promised(file, error.message.removeprefix(f"{path.name}: ")) from None


def _not_promised(file: RemoteFile, what: str) -> IntegrityError:
    return IntegrityError(
        f"{file.name}: what came is not what was promised ({what})",
        hint="it was thrown away; if this happens again, the server or something on the way "
        "to it is not to be trusted",
    )


def _digest(path: Path, file: RemoteFile) -> str:
    """The SHA-256 of a file that came without one, after whatever else is known was checked."""
    with open_regular(path, follow=False) as opened:
        if file.git_sha1 is not None and (found := git_digest(opened, file.size)) != file.git_sha1:
            raise _not_promised(file, f"it has the git digest {found}, not {file.git_sha1}")
        opened.seek(0)
        return digest_of(opened)[0]


def git_digest(opened: BinaryIO, size: int) -> str:
    """The digest by which git knows a file of `size` bytes."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    while chunk := opened.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


# A file without a promised digest has one once it is here. It is noted until the model is
# complete, or a model of many such files would begin anew each time.


def _note_path(store: Store, file: RemoteFile) -> Path:
    path = store.partial(blob_key(file))
    return path.with_name(f"{path.name}.came")


def _note(store: Store, file: RemoteFile, sha256: str) -> None:
    path = _note_path(store, file)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(sha256, "ascii")
    fresh.replace(path)


def _noted(store: Store, file: RemoteFile) -> str | None:
    try:
        with _note_path(store, file).open("rb") as opened:
            text = opened.read(65).decode("ascii", "replace")
    except OSError:
        return None
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def forget(file: RemoteFile, store: Store) -> None:
    """Drop what was noted of a file whose model is complete."""
    path = store.partial(blob_key(file))
    for ending in ("came", "journal"):
        path.with_name(f"{path.name}.{ending}").unlink(missing_ok=True)


def _copy(file: RemoteFile, source: Path, part: Partial, report: Report) -> None:
    """A file of this machine; nothing to resume, for it comes as fast as it can be read."""
    part.reset()
    with open_regular(source) as opened:
        at = 0
        while chunk := opened.read(4 << 20):
            if at + len(chunk) > file.size:
                break
            part.write(at, chunk)
            at += len(chunk)
            report(at)
        if at != file.size or os.fstat(opened.fileno()).st_size != file.size:
            raise IntegrityError(f"{source} changed while it was read")
