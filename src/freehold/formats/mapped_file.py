# SPDX-License-Identifier: Apache-2.0
"""`MappedFile`: a model file mapped read-only, with every way of not being one refused by name.

It knows paths, sizes and the operating system's errors. It knows nothing of what the bytes mean.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from freehold.errors import EngineError, MalformedFileError, ModelNotFoundError

ByteArray = npt.NDArray[np.uint8]


def _open_regular(path: Path) -> int:
    """Descriptor of a regular file; ModelNotFoundError for anything else."""
    # O_NONBLOCK: opening a FIFO nobody writes to must not wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}: no such file", hint="check the path") from None
    except PermissionError:
        raise ModelNotFoundError(
            f"{path}: permission denied", hint="make the file readable for this user"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ModelNotFoundError(f"{path!s:.200}: cannot be opened: {error}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ModelNotFoundError(f"{path}: is not a regular file")
    return fd


class MappedFile:
    """The bytes of one file, one dimension, little or big endian as they are.

    Arrays handed out by `view` keep the mapping alive, also after `close`.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelNotFoundError (not a readable file) or MalformedFileError (empty)."""
        self.path = path
        fd = _open_regular(path)
        try:
            self.size = os.fstat(fd).st_size
            if self.size == 0:
                raise MalformedFileError(f"{path}: the file is empty")
            self._map: mmap.mmap | None = mmap.mmap(fd, self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: the file shrank in between
            raise ModelNotFoundError(f"{path}: cannot be mapped: {error}") from None
        finally:
            os.close(fd)

    @property
    def buffer(self) -> mmap.mmap:
        """The mapping, for header parsers. Raises EngineError once closed."""
        if self._map is None:
            raise EngineError(f"{self.path}: used after the checkpoint was closed")
        return self._map

    def check_unchanged(self) -> None:
        """MalformedFileError when the file lost bytes since it was mapped.

        Touching a page that is gone kills the process with SIGBUS, so this runs before each use.
        """
        if self.buffer.size() < self.size:
            raise MalformedFileError(
                f"{self.path}: the file became shorter while it was open", hint="fetch it again"
            )

    def view(self, offset: int, nbytes: int) -> ByteArray:
        """Read-only view of ``nbytes`` bytes; the range must lie inside the file."""
        assert 0 <= offset <= self.size - nbytes, "ranges are checked when headers are read"
        self.check_unchanged()
        return np.frombuffer(self.buffer, dtype=np.uint8, count=nbytes, offset=offset)

    def close(self) -> None:
        """Let go of the mapping; it disappears with the last array made from it."""
        self._map = None
