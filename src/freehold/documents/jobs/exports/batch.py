# SPDX-License-Identifier: Apache-2.0
"""Answers as the result file of OpenAI's Batch API: one line per item, in the order of the input.

The answer to a request of a batch is its response's body; an answer of any other task is the
content of a chat completion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from freehold.documents.jobs.exports import Rows
from freehold.documents.jobs.items import dumps
from freehold.documents.jobs.rows import Row

ENDINGS = ()  # JSON Lines too: chosen by name


def lines(rows: Rows) -> Iterator[str]:
    """``{"id", "custom_id", "response", "error"}``; items that nothing came of yet are left out."""
    for row in rows():
        if row.status == "pending":
            continue
        mark = f"batch_req_{(row.content_sha256 or '')[:24] or format(row.seq, '024x')}"
        response, error = None, None
        status = (row.value or {}).get("status_code") if _is_response(row) else None
        if status is not None:
            response = {"status_code": status, "request_id": mark, "body": row.value["body"]}
        elif row.status == "ok":
            response = {"status_code": 200, "request_id": mark, "body": _completion(mark, row)}
        else:
            assert row.error is not None
            error = {"code": row.error.type, "message": row.error.message}
        shown = {"id": mark, "custom_id": row.id, "response": response, "error": error}
        yield dumps(shown) + "\n"


def _is_response(row: Row) -> bool:
    return isinstance(row.value, dict) and set(row.value) == {"status_code", "body"}


def _completion(mark: str, row: Row) -> dict[str, Any]:
    content = row.value if isinstance(row.value, str) else dumps(row.value)
    message = {"role": "assistant", "content": content}
    read, written = row.usage.get("prompt_tokens", 0), row.usage.get("answer_tokens", 0)
    return {
        "id": mark, "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
        },
    }  # fmt: skip
