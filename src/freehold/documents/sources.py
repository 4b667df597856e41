# SPDX-License-Identifier: Apache-2.0
"""Which files a path stands for. Opens none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from freehold.errors import DocumentError


def find(path: str | Path) -> Iterator[Path]:
    """The file itself, or every file below a folder in the order of their names.

    Hidden files and folders are left out; links to folders are not followed, so that no loop
    and nothing outside is walked into. Raises DocumentError when there is nothing at `path`.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
        if not is_folder:
            path.lstat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise DocumentError(f"{path!s:.300}: {reason or error}") from None
    if not is_folder:
        yield path
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name)
