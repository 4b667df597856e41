# SPDX-License-Identifier: Apache-2.0
"""Names that come from elsewhere and are to become paths, digests or keys here.

Knows what a hostile name looks like: it may leave its folder, name a device, or be two names on
another file system. Does not know what the files are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from freehold.errors import StoreError

MAX_NAME = 512  # characters of a model's name
_MAX_DEPTH = 8
_MAX_PART = 200  # bytes; file systems allow 255, and unfinished files get longer names

_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names of devices on Windows, with or without an ending; a store may lie on a shared disk.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\\:*?"<>|\u202a-\u202e\u2066-\u2069\ud800-\udfff]')


def check_sha256(text: str) -> str:
    """`text`, when it is 64 lower-case hexadecimal digits; StoreError for anything else."""
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise StoreError(f"not a SHA-256 digest: {text!r:.100}")
    return text


def check_file_name(name: str) -> str:
    """`name`, when it is a relative path that stays where it is put, on any file system.

    Slashes separate folders. Raises StoreError for everything else.
    """
    if why := _fault(name):
        raise StoreError(f"the file name {name!r:.120} {why}")
    return name


def _fault(name: str) -> str | None:
    if not isinstance(name, str) or not name:
        return "is empty"
    if found := _FORBIDDEN.search(name):
        return f"holds the character {found.group()!a}"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode's composed form"
    parts = name.split("/")
    if len(parts) > _MAX_DEPTH:
        return "lies too deep"
    for part in parts:
        if part in ("", ".", ".."):
            return "leaves its folder"
        if part[-1] in ". " or part[0] == " " or _DEVICE.fullmatch(part):
            return "is none on some file systems"
        if len(part.encode("utf-8")) > _MAX_PART:
            return "is too long"
    return None


def check_file_names(names: Iterable[str]) -> None:
    """All of them by `check_file_name`, and that no two are one file, nor one a folder of another.

    Names that differ in their case alone count as one: half of all file systems see one file.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for name in names:
        folded = check_file_name(name).casefold()
        if folded in seen:
            raise StoreError(f"the file name {name!r:.120} occurs twice")
        seen.add(folded)
        parts = folded.split("/")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    if both := seen & folders:
        raise StoreError(f"{min(both)!r:.120} is a file and a folder")


def check_model_name(name: str) -> str:
    """`name`, when a person can type and read it; StoreError otherwise."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise StoreError(f"the name of a model has 1 to {MAX_NAME} characters")
    if not name.isprintable() or name != name.strip() or name.startswith("-"):
        raise StoreError(f"{name!a:.120} cannot be the name of a model")
    return name


def key_of(name: str) -> str:
    """A file name for any text: readable where it can be, unique always."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable}-{digest}" if readable else digest
