# SPDX-License-Identifier: Apache-2.0
"""Tool-call syntaxes, one file each. This module only lists the folder.

A new syntax is a new file with a `FORMAT` (see `freehold.chat.tool_format.ToolFormat`).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from freehold.chat.tool_format import Evidence, ToolFormat
from freehold.errors import InvalidParameterError


@functools.cache
def tool_formats() -> dict[str, ToolFormat]:
    """Every syntax by name, in order of names."""
    found: dict[str, ToolFormat] = {}
    for module in pkgutil.iter_modules(__path__):
        tool_format = importlib.import_module(f"{__name__}.{module.name}").FORMAT
        assert isinstance(tool_format, ToolFormat)
        assert tool_format.name == module.name, f"{module.name} calls itself {tool_format.name}"
        found[tool_format.name] = tool_format
    return found


def tool_format(name: str) -> ToolFormat:
    """The syntax called `name`, or InvalidParameterError."""
    found = tool_formats().get(name)
    if found is None:
        raise InvalidParameterError(
            f"there is no tool-call format {name!r:.60}",
            hint=f"there are: {', '.join(tool_formats())}",
        )
    return found


def detect_tool_format(evidence: Evidence) -> ToolFormat | None:
    """The syntax the evidence speaks for most, or None."""
    scored = [(f.detect(evidence), f.name, f) for f in tool_formats().values()]
    score, _, best = max(scored, key=lambda x: x[:2])
    return best if score > 0 else None
