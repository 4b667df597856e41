# SPDX-License-Identifier: Apache-2.0
"""Documents at volume: read, asked about, answered.

`readers` turn files into `Document`, `tasks` turn texts into `Answer`; both fail item by item.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freehold.documents.asking import Answer
    from freehold.documents.document import Document, Limits, Page, Unread
    from freehold.documents.reading import Caps, read, read_all
    from freehold.documents.sources import find
    from freehold.documents.tasks.classify import classify
    from freehold.documents.tasks.code import complete_functions
    from freehold.documents.tasks.extract import extract
    from freehold.documents.tasks.summarize import summarize

__all__ = [
    "Answer",
    "Caps",
    "Document",
    "Limits",
    "Page",
    "Unread",
    "classify",
    "complete_functions",
    "extract",
    "find",
    "read",
    "read_all",
    "summarize",
]

# Imported when they are asked for: a process that only reads must start quickly and stay small.
_HOMES = {
    "Answer": "asking",
    "Caps": "reading",
    "Document": "document",
    "Limits": "document",
    "Page": "document",
    "Unread": "document",
    "classify": "tasks.classify",
    "complete_functions": "tasks.code",
    "extract": "tasks.extract",
    "find": "sources",
    "read": "reading",
    "read_all": "reading",
    "summarize": "tasks.summarize",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
