# SPDX-License-Identifier: Apache-2.0
"""Jobs: many items under one task, each answered once, whatever happens in between."""

from freehold.documents.jobs.fingerprint import Identity
from freehold.documents.jobs.items import ErrorInfo, Item, ItemResult, Work
from freehold.documents.jobs.journal import Journal
from freehold.documents.jobs.rows import Counts, Row
from freehold.documents.jobs.runner import JobSummary, Tally, run_job

__all__ = [
    "Counts",
    "ErrorInfo",
    "Identity",
    "Item",
    "ItemResult",
    "JobSummary",
    "Journal",
    "Row",
    "Tally",
    "Work",
    "run_job",
]
