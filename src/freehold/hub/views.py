# SPDX-License-Identifier: Apache-2.0
"""Folders of links that show the files of a model under their own names.

Blobs are called after their digests, but split sets find each other by their names and a Hugging
Face model is a directory. A view is named after what is in it, is made whole or not at all, and
can be made again at any time. Knows names and paths, not models.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from freehold.errors import CapacityError, StoreError
from freehold.hub.disk import is_full


def folder_of(root: Path, files: Mapping[str, Path]) -> Path:
    """Where the view of these files (name to path) lies in the store at `root`."""
    lines = "".join(f"{name}\0{_target(root, path)}\n" for name, path in sorted(files.items()))
    digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    return root / "views" / digest[:32]


def ensure(root: Path, files: Mapping[str, Path]) -> Path:
    """The view of these files, made where it is not there or not what it should be.

    Raises StoreError where it cannot be made, CapacityError when the disk is full.
    """
    folder = folder_of(root, files)
    if all(_is_link_to(folder / name, root, path) for name, path in files.items()):
        return folder
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        for name, path in files.items():
            link = partial / name
            link.parent.mkdir(parents=True, exist_ok=True)
            up = "../" * (2 + name.count("/"))
            link.symlink_to(_target(root, path, up))
        _put_in_place(partial, folder, root, files)
    except OSError as error:
        if is_full(error):
            raise CapacityError(f"{root}: the disk is full", hint="make room") from None
        raise StoreError(f"{root}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _put_in_place(partial: Path, folder: Path, root: Path, files: Mapping[str, Path]) -> None:
    for attempt in range(3):
        try:
            partial.rename(folder)
            return
        except OSError:
            # Another process was faster, which is as good; or there is something else.
            if all(_is_link_to(folder / name, root, path) for name, path in files.items()):
                return
            if attempt == 2:
                raise
            aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


def _target(root: Path, path: Path, up: str = "") -> str:
    """Blobs by a relative path, so that a store can be moved; other files where they are."""
    if path.parent == root / "blobs":
        return f"{up}blobs/{path.name}"
    return os.fspath(path)


def _is_link_to(link: Path, root: Path, path: Path) -> bool:
    depth = len(link.relative_to(root).parts) - 1
    try:
        return os.fspath(link.readlink()) == _target(root, path, "../" * depth)
    except OSError:
        return False


def discard(root: Path, files: Mapping[str, Path]) -> None:
    """Take the view of these files away; it can be made again."""
    shutil.rmtree(folder_of(root, files), ignore_errors=True)
