# SPDX-License-Identifier: Apache-2.0
"""Spans of time and amounts of memory as people write them: ``10m``, ``1h30m``, ``8GiB``."""

from __future__ import annotations

import math
import re

from freehold.errors import InvalidParameterError

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPAN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ns|us|µs|ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_keep_alive(value: str | float) -> float:
    """Seconds; below 0 means for good, and is given as infinity.

    A number counts seconds, a text needs units (``5m``, ``1h30m``, ``-1m``) unless it is a whole
    number. Raises InvalidParameterError.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidParameterError("keep_alive must be a number of seconds or a text like '5m'")
    seconds = _span(value) if isinstance(value, str) else float(min(value, 1e18))
    if math.isnan(seconds):
        raise InvalidParameterError("keep_alive is not a number")
    return math.inf if seconds < 0 else seconds


def _span(text: str) -> float:
    text = text.strip()
    rest = text.removeprefix("-")
    if re.fullmatch(r"[0-9]{1,12}", rest):
        seconds = float(rest)
    elif rest and re.fullmatch(f"(?:{_SPAN.pattern}){{1,8}}", rest):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _SPAN.findall(rest))
    else:
        raise InvalidParameterError(
            f"{text!r:.40} is no span of time", hint="write 30s, 10m or 1h30m; -1 means for good"
        )
    return -seconds if text.startswith("-") else seconds


def parse_bytes(text: str) -> int:
    """``8GiB``, ``500MB``, ``12g`` (of 1024³) or a plain number of bytes.

    Raises InvalidParameterError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidParameterError(
            f"{text!r:.40} is no amount of memory", hint="write 8GiB, 500MB or a number of bytes"
        )
    number, unit, binary = match.groups()
    decimal = not binary and text.strip()[-1:] in "bB"  # 8GB = 8·10⁹, 8G = 8GiB
    amount = int(float(number) * (1000 if decimal else 1024) ** _POWERS[unit.lower()])
    if amount < 1:
        raise InvalidParameterError(f"{text!r:.40} is no memory at all")
    return amount
