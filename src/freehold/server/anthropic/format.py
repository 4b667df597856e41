# SPDX-License-Identifier: Apache-2.0
"""How Anthropic words errors, usage and the reasons for which an answer ends."""

from __future__ import annotations

from typing import Any

from freehold.llm import LLM
from freehold.server.failures import Failure, FailureKind
from freehold.server.sse import frame
from freehold.types import Completion

_TYPES: dict[FailureKind, str] = {
    "unauthenticated": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "not_found_error",
    "too_large": "request_too_large",
    "rate_limited": "rate_limit_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "internal": "api_error",
}
# What Anthropic's client reads to go on by itself: without a thread it sends all messages again.
_DETAILS = {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
STATUSES: dict[FailureKind, int] = {"overloaded": 529}  # where they are Anthropic's alone


def error_body(failure: Failure) -> dict[str, Any]:
    """``{"type": "error", "error": {...}}``; the field to blame is part of the sentence."""
    message = failure.message
    if failure.param is not None and failure.param not in message:
        message = f"{failure.param}: {message}"
    kind = _TYPES.get(failure.kind, "invalid_request_error")
    error: dict[str, Any] = {"type": kind, "message": message}
    if (details := _DETAILS.get(failure.param or "")) is not None:
        error["details"] = details
    return {"type": "error", "error": error}


def error_frame(failure: Failure) -> str:
    """An error after the stream has begun."""
    return frame(error_body(failure), "error")


def usage(prompt_tokens: int, cached: int, made: int, thought: int = 0) -> dict[str, Any]:
    """Token counts. Anthropic counts tokens found in the cache apart; the sum of the three is the
    prompt. Nobody pays for writing the cache here, so it stays 0."""
    counts: dict[str, Any] = {
        "input_tokens": prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": made,
    }
    if thought:
        counts["output_tokens_details"] = {"thinking_tokens": thought}
    return counts


def stop_reason(llm: LLM, completion: Completion, max_tokens: int) -> tuple[str, str | None]:
    """Why an answer ended, and the stop sequence if that was it."""
    if completion.finish_reason == "length":
        full = len(completion.token_ids) < max_tokens and llm.context_is_full(completion)
        return ("model_context_window_exceeded" if full else "max_tokens"), None
    if isinstance(completion.stop_reason, str):
        return "stop_sequence", completion.stop_reason
    return ("tool_use" if completion.tool_calls else "end_turn"), None
