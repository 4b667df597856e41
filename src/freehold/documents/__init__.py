# SPDX-License-Identifier: Apache-2.0
"""Documents at volume: read, asked about, answered.

`readers` turn files into `Document`, `tasks` turn documents into `Answer`; both fail item by item.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freehold.documents.asking import Answer, Asker
    from freehold.documents.document import Document, Limits, Page, Unread
    from freehold.documents.llm_asker import LLMAsker
    from freehold.documents.reading import Caps, read, read_all
    from freehold.documents.sources import find
    from freehold.documents.tasks import Task
    from freehold.documents.tasks.classify import Classify, classify
    from freehold.documents.tasks.code import Code, complete_functions
    from freehold.documents.tasks.extract import Extract, extract
    from freehold.documents.tasks.summarize import Summarize, summarize

__all__ = [
    "Answer",
    "Asker",
    "Caps",
    "Classify",
    "Code",
    "Document",
    "Extract",
    "LLMAsker",
    "Limits",
    "Page",
    "Summarize",
    "Task",
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
    "Asker": "asking",
    "Caps": "reading",
    "Classify": "tasks.classify",
    "Code": "tasks.code",
    "Document": "document",
    "Extract": "tasks.extract",
    "LLMAsker": "llm_asker",
    "Limits": "document",
    "Page": "document",
    "Summarize": "tasks.summarize",
    "Task": "tasks",
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
