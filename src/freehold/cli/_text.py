# SPDX-License-Identifier: Apache-2.0
"""Text that comes from outside: files named on the command line, and stdin.

Knows limits and encodings; knows nothing of prompts or models.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from freehold.errors import InvalidParameterError

# More than any context holds; /dev/zero must not fill the memory before anyone notices.
MAX_TEXT_BYTES = 64_000_000


def read_file(path: str) -> str:
    """A UTF-8 text file. Raises InvalidParameterError when it is too long or not text."""
    with Path(path).open("rb") as file:
        return _decode(file, path)


def read_stdin() -> str:
    """Everything on stdin."""
    return _decode(sys.stdin.buffer, "stdin")


def stdin_is_given() -> bool:
    """Whether stdin is anything but the keyboard; it may be empty."""
    return sys.stdin is not None and not sys.stdin.closed and not sys.stdin.isatty()


def stdin_has_text() -> bool:
    """Whether something is piped or redirected into this process (/dev/null is not)."""
    if not stdin_is_given():
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _decode(file: BinaryIO, name: str) -> str:
    raw = file.read(MAX_TEXT_BYTES + 1)
    if len(raw) > MAX_TEXT_BYTES:
        raise InvalidParameterError(
            f"{name} holds more than {MAX_TEXT_BYTES:,} bytes", hint="give a shorter text"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidParameterError(
            f"{name} is not UTF-8 text: byte {error.start} is {raw[error.start]:#04x}",
            hint="convert it to UTF-8 text first",
        ) from None
