# SPDX-License-Identifier: Apache-2.0
"""How a server's log looks: one line an event, as text for people or JSON for programs.

Whatever clients put into a name or a path stays within its line and moves no cursor.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, TextIO

REQUESTS = "freehold.request"  # the logger of lines about requests
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+*{}()-]{1,200}")
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of an event."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, message, and the fields of the event as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of an event; a traceback follows it, indented."""
        words = [_time(record), record.levelname, _one_line(record.getMessage())]
        words += [f"{name}={_value(value)}" for name, value in _fields(record).items()]
        text = " ".join(words)
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            text += "".join(f"\n    {_UNSAFE.sub(_spelled, line)}" for line in trace.split("\n"))
        return text


def set_up(style: Literal["text", "json"], stream: TextIO | None = None) -> logging.Handler:
    """Send freehold's events to `stream` (stderr) in this style; returns the handler in use."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logger = logging.getLogger("freehold")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=True)


def _one_line(text: str) -> str:
    return _UNSAFE.sub(_spelled, text.replace("\n", "\\n"))


def _spelled(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]
