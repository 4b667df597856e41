# SPDX-License-Identifier: Apache-2.0
"""Documents at volume: read, asked about, answered.

`readers` turn files into `Document`, `tasks` turn texts into `Answer`; both fail item by item.
"""

from freehold.documents.asking import Answer
from freehold.documents.document import Document, Limits
from freehold.documents.readers import read
from freehold.documents.sources import find
from freehold.documents.tasks.classify import classify
from freehold.documents.tasks.code import complete_functions
from freehold.documents.tasks.extract import extract
from freehold.documents.tasks.summarize import summarize

__all__ = [
    "Answer",
    "Document",
    "Limits",
    "classify",
    "complete_functions",
    "extract",
    "find",
    "read",
    "summarize",
]
