# SPDX-License-Identifier: Apache-2.0
"""What a source says a model consists of, before any of it is fetched.

Plain values with their checks; every source makes one `RemoteModel`, and whoever fetches, plans
or judges a licence knows nothing else about sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from freehold.errors import DownloadError, StoreError
from freehold.hub.file_names import check_file_name, check_file_names
from freehold.hub.reference import Reference

MAX_FILES = 4_096  # as many as safetensors shards may be
MAX_FILE_BYTES = 1 << 44  # 16 TiB: beyond any model, below where offsets go wrong

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file as it is promised: where, how long, and by which digest it is known."""

    name: str  # relative, as it will be called in the store
    size: int
    location: str | Path  # a URL, or a file of this machine
    sha256: str | None = None
    git_sha1: str | None = None  # of the git blob, which small files of repositories have
    validator: str | None = None  # strong ETag, for files without a digest
    revision: str | None = None  # anything else that would change with the content

    def __post_init__(self) -> None:
        try:
            check_file_name(self.name)
        except StoreError as error:
            raise DownloadError(error.message) from None
        if not 0 <= self.size <= MAX_FILE_BYTES:
            raise DownloadError(f"{self.name}: a size of {self.size} bytes cannot be")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise DownloadError(f"{self.name}: {self.sha256!r:.80} is not a SHA-256 digest")
        if self.git_sha1 is not None and not _SHA1.fullmatch(self.git_sha1):
            raise DownloadError(f"{self.name}: {self.git_sha1!r:.80} is not a git digest")


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """One model of one source: what would come, and what is said about it."""

    reference: Reference  # with the quant that was chosen
    source: str  # as `StoredModel.source`
    repository: str
    revision: str | None  # commit, or digest of the manifest: pins the content
    quant: str | None
    files: tuple[RemoteFile, ...]
    entry: str  # the file to open, or "" for a directory
    licence_claim: str | None = None  # what the uploader says
    base_models: tuple[str, ...] = ()
    gated: bool = False
    page: str | None = None  # where a person reads about it
    metadata: Mapping[str, object] = field(default_factory=dict)  # the claims as they were found
    licence_texts: tuple[str, ...] = ()  # licences that came with it, as they are worded
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [file.name for file in self.files]
        if not names or len(names) > MAX_FILES:
            raise DownloadError(f"{self.repository}: {len(names):,} files cannot be a model")
        try:
            check_file_names(names)
        except StoreError as error:
            raise DownloadError(f"{self.repository}: {error.message}") from None
        if self.entry and self.entry not in names:
            raise DownloadError(f"{self.repository}: the file to open is not among its files")

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)
