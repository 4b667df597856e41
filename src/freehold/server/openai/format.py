# SPDX-License-Identifier: Apache-2.0
"""What the OpenAI dialects share: errors, ids, usage, log-probabilities, sampling fields."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from freehold.llm import LLM
from freehold.server.failures import Failure, RequestError
from freehold.server.services import Body
from freehold.server.sse import frame
from freehold.types import Completion, TokenLogprob

_TYPES = {
    "unauthenticated": "authentication_error",
    "forbidden": "permission_error",
    "rate_limited": "rate_limit_error",
    "overloaded": "server_error",
    "timeout": "server_error",
    "internal": "server_error",
}
_CODES = {
    "context_length": "context_length_exceeded",
    "not_found": "not_found",
    "unauthenticated": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
}


def error_body(failure: Failure) -> dict[str, Any]:
    """``{"error": {...}}`` as OpenAI's clients read it."""
    code = _CODES.get(failure.kind)
    if failure.kind == "not_found" and failure.param == "model":
        code = "model_not_found"
    return {
        "error": {
            "message": failure.message,
            "type": _TYPES.get(failure.kind, "invalid_request_error"),
            "param": failure.param,
            "code": code,
        }
    }


def error_frame(failure: Failure) -> str:
    """An error after the stream has begun."""
    return frame(error_body(failure))


def new_id(prefix: str) -> str:
    """An id such as ``chatcmpl-3f…``."""
    return f"{prefix}{secrets.token_hex(12)}"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def usage(prompt_tokens: int, completions: Sequence[Completion]) -> dict[str, Any]:
    """Token counts of a request; a prompt of several answers counts once."""
    made = sum(len(c.token_ids) for c in completions)
    cached = max((c.cached_tokens for c in completions), default=0)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": made,
        "total_tokens": prompt_tokens + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def finish_reason(completion: Completion) -> str:
    """OpenAI's word for why an answer ended."""
    if completion.tool_calls and completion.finish_reason == "stop":
        return "tool_calls"
    return "length" if completion.finish_reason == "length" else "stop"


def logprob_content(llm: LLM, entries: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Chat's ``logprobs.content``. A token that is no whole character shows replacement marks;
    its bytes are exact."""

    def one(token_id: int, logprob: float) -> dict[str, Any]:
        raw = llm.token_bytes(token_id)
        return {
            "token": raw.decode("utf-8", "replace"),
            "logprob": max(logprob, -9999.0),
            "bytes": list(raw),
        }

    return [
        {**one(e.token_id, e.logprob), "top_logprobs": [one(i, p) for i, p in e.top]}
        for e in entries
    ]


def check_metadata(metadata: dict[str, str] | None) -> None:
    """OpenAI's bounds of what a caller may note down beside a request. Raises RequestError."""
    if metadata is None:
        return
    if len(metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in metadata.items()):
        raise RequestError(
            "metadata may hold 16 pairs, keys of 64 characters and values of 512", param="metadata"
        )


class StreamOptions(Body):
    """What the stream brings beside text."""

    include_usage: bool = False
    include_obfuscation: bool | None = None  # padding against eavesdroppers on public networks


def _prompts(value: Any) -> list[str] | list[list[int]]:
    """One text, several, the ids of one, or the ids of several: several in any case."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return [value]
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(ids, list) and all(type(i) is int for i in ids) for ids in value):
            return value
    raise PydanticCustomError(
        "prompts", "must be a text, a list of texts, a list of token ids or a list of such lists"
    )


# Texts or lists of token ids, one or many, as OpenAI's plain completions and embeddings take them.
Prompts = Annotated[
    list[str] | list[list[int]],
    PlainValidator(_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]),
]


def template_variables(given: dict[str, Any] | None) -> dict[str, Any]:
    """``chat_template_kwargs``, less what has fields of its own."""
    taken = {"messages", "tools", "add_generation_prompt"} & set(given or {})
    if taken:
        raise RequestError(
            f"chat_template_kwargs cannot set {min(taken)}", param="chat_template_kwargs"
        )
    return dict(given or {})


class SamplingFields(Body):
    """Fields that chat and plain completions share, ours beyond OpenAI's included."""

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    # beyond OpenAI's
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repetition_penalty: float | None = None
    penalty_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    sampler_order: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None

    def sampling(self) -> dict[str, Any]:
        """The fields of `SamplingParams` this request names."""
        values = {name: getattr(self, name) for name in SamplingFields.model_fields}
        values = {name: value for name, value in values.items() if value is not None}
        if "logit_bias" in values:
            values["logit_bias"] = _token_bias(values["logit_bias"])
        if values.get("seed", 0) < 0:  # OpenAI's are signed
            values["seed"] %= 2**64
        return values


def _token_bias(given: dict[str, float]) -> dict[int, float]:
    bias: dict[int, float] = {}
    for token, value in given.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise RequestError(f"{token!r:.40} is no token id", param="logit_bias")
        if not -100.0 <= value <= 100.0:
            raise RequestError("a bias lies between -100 and 100", param="logit_bias")
        bias[int(token)] = value
    return bias
