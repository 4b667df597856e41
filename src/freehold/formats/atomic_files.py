# SPDX-License-Identifier: Apache-2.0
"""`atomic_files`: files that appear under their names complete, or not at all.

It knows paths and the operating system's errors, not what is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from freehold.errors import CapacityError, InvalidParameterError

Opener: TypeAlias = Callable[[Path], BinaryIO]


@contextlib.contextmanager
def atomic_files() -> Iterator[Opener]:
    """Yields a function that opens a path for writing. What is written lies in a temporary file
    beside it; when the block ends well, all files are flushed to the disk and then renamed, in
    the order they were opened. When it raises, nothing has changed.

    Raises CapacityError when the disk is full and InvalidParameterError when a path cannot be
    written."""
    opened: list[tuple[BinaryIO, Path, Path]] = []

    def open_file(path: Path) -> BinaryIO:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        file = partial.open("xb")
        opened.append((file, partial, path))
        return file

    try:
        yield open_file
        for file, _, _ in opened:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for _, partial, path in opened:
            partial.replace(path)
    except OSError as error:
        _discard(opened)
        where = error.filename or (opened[-1][2] if opened else "the file")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError(f"{where}: the disk is full", hint="make room") from None
        raise InvalidParameterError(f"{where}: cannot be written: {error.strerror}") from None
    except BaseException:
        _discard(opened)
        raise


def _discard(opened: list[tuple[BinaryIO, Path, Path]]) -> None:
    for file, partial, _ in opened:
        with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
            file.close()
        partial.unlink(missing_ok=True)
