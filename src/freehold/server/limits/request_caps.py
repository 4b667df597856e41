# SPDX-License-Identifier: Apache-2.0
"""How large the lists of a request may be. Each entry costs work at every token or every message,
so a body within its limit of bytes could still hold everybody up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from freehold.server.failures import RequestError

MAX_MESSAGES = 4096
MAX_TOOLS = 1024
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 4096
MAX_STOP_TOKENS = 1024
MAX_BREAKERS = 64
MAX_BREAKER_CHARACTERS = 256
MAX_BIASES = 4096
MAX_LOGPROBS = 100  # alternatives per token


def check_caps(
    sampling: Mapping[str, Any],
    messages: Sequence[Any] | None = None,
    tools: Sequence[Any] | None = None,
) -> None:
    """Raise RequestError, by the name of the field, where a list is too long.

    `sampling` holds fields of `SamplingParams`; types are that class's to check.
    """
    _count("messages", messages, MAX_MESSAGES)
    _count("tools", tools, MAX_TOOLS)
    _count("stop_token_ids", sampling.get("stop_token_ids"), MAX_STOP_TOKENS)
    _count("logit_bias", sampling.get("logit_bias"), MAX_BIASES)
    _texts("stop", sampling.get("stop"), MAX_STOPS, MAX_STOP_CHARACTERS)
    breakers = sampling.get("dry_sequence_breakers")
    _texts("dry_sequence_breakers", breakers, MAX_BREAKERS, MAX_BREAKER_CHARACTERS)
    for name in ("logprobs", "prompt_logprobs"):
        value = sampling.get(name)
        if isinstance(value, int) and value > MAX_LOGPROBS:
            raise RequestError(f"{name}: at most {MAX_LOGPROBS} alternatives a token", param=name)


def _count(name: str, values: Any, most: int) -> None:
    if isinstance(values, Sized) and len(values) > most:
        raise RequestError(
            f"{name} holds {len(values):,} entries; {most:,} are the most", param=name
        )


def _texts(name: str, values: Any, most: int, characters: int) -> None:
    if isinstance(values, str):
        values = [values]
    _count(name, values, most)
    for text in values or ():
        if isinstance(text, str) and len(text) > characters:
            raise RequestError(f"{name}: a text has at most {characters:,} characters", param=name)
