# SPDX-License-Identifier: Apache-2.0
"""JSON Lines: one object per item, nothing flattened and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator

from freehold.documents.jobs.exports import Rows
from freehold.documents.jobs.items import dumps

ENDINGS = ("jsonl", "ndjson")


def lines(rows: Rows) -> Iterator[str]:
    """``{"id", "status", "value", "error", …}``; where it came from under its own names."""
    for row in rows():
        shown = {
            "id": row.id, **row.origin, "content_sha256": row.content_sha256,
            "status": row.status, "value": row.value,
            "error": None if row.error is None else row.error.as_json(),
            "usage": dict(row.usage),
        }  # fmt: skip
        yield dumps(shown) + "\n"
