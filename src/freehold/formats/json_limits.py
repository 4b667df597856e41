# SPDX-License-Identifier: Apache-2.0
"""How deep and how long a JSON body is, told while its bytes arrive and before anybody parses it.

A parser recurses once per level and makes an object of some hundred bytes per value: a body within
its limit of bytes could take the stack and gigabytes.
"""

from __future__ import annotations

import re

import numpy as np

MAX_DEPTH = 128
MAX_VALUES = 2_000_000
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STEP = np.zeros(256, np.int8)  # what a byte outside of strings does to the depth
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1
_STARTS = np.zeros(256, bool)  # bytes outside of strings after which a value may come
_STARTS[list(b"[{,:")] = True
_QUOTE = ord('"')


class JsonLimits:
    """Follows a JSON text in pieces. What is not JSON at all is the parser's to refuse."""

    def __init__(self, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES) -> None:
        self._max_depth, self._max_values = max_depth, max_values
        self._depth = self._values = 0
        self._inside = False  # a string
        self._escape = b""  # a backslash whose character is in the next piece

    def feed(self, piece: bytes) -> str | None:
        """What is wrong with the text up to here, or None."""
        data = self._escape + piece
        # Outside of strings a backslash is an error at which every parser stops.
        data = _ESCAPED.sub(b"  ", data)
        self._escape = b"\\" if data.endswith(b"\\") else b""
        codes = np.frombuffer(data.removesuffix(b"\\"), np.uint8)
        if not codes.size:
            return None
        quotes = (codes == _QUOTE).cumsum(dtype=np.int64) + self._inside
        outside = quotes % 2 == 0
        self._inside = not outside[-1]
        depth = (_STEP[codes] * outside).cumsum(dtype=np.int64) + self._depth
        self._depth = int(depth[-1])
        self._values += int(np.count_nonzero(_STARTS[codes] & outside))
        if int(depth.max()) > self._max_depth:
            return f"the body nests deeper than {self._max_depth} levels"
        if self._values > self._max_values:
            return f"the body holds more than {self._max_values:,} values"
        return None
