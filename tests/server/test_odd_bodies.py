# SPDX-License-Identifier: Apache-2.0
"""Bodies of Anthropic's and Ollama's API with something odd somewhere: never a failure of ours."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

USER = {"role": "user", "content": "x"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
MESSAGES = {
    "model": "thinker",
    "max_tokens": 2,
    "messages": [
        USER,
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            {"type": "tool_use", "id": "i", "name": "w", "input": {"a": "b"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "i", "is_error": False,
             "content": [{"type": "text", "text": "r"}]},
        ]},
    ],
    "system": [{"type": "text", "text": "s"}],
    "tools": [{"name": "w", "description": "d", "input_schema": SCHEMA, "type": "custom",
               "strict": False, "input_examples": [{"a": "b"}]}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1, "display": "summarized"},
    "output_config": {"effort": "low"},
    "stream": False,
    "temperature": 0.5,
    "top_k": 3,
    "stop_sequences": ["q"],
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
}  # fmt: skip
CHAT = {
    "model": "thinker",
    "messages": [
        {"role": "system", "content": "s"},
        USER,
        {"role": "assistant", "content": "", "thinking": "t",
         "tool_calls": [{"id": "c", "function": {"name": "w", "arguments": {"a": "b"}}}]},
        {"role": "tool", "content": "r", "tool_name": "w", "tool_call_id": "c"},
    ],
    "tools": [{"type": "function", "function": {"name": "w", "parameters": SCHEMA}}],
    "options": {"num_predict": 2, "temperature": 0.5, "top_k": 4, "seed": 3, "stop": ["q"],
                "num_ctx": 100, "mirostat": 0, "repeat_last_n": 3},
    "format": SCHEMA,
    "think": False,
    "keep_alive": "5m",
    "stream": False,
    "logprobs": True,
    "top_logprobs": 1,
}  # fmt: skip
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", MESSAGES),
    ("/v1/messages", {"model": "thinker", "max_tokens": 2, "stream": True,
                      "messages": [USER, {"role": "assistant", "content": "so"}]}),
    ("/v1/messages", {"model": "thinker", "max_tokens": 2, "messages": [USER],
                      "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    ("/v1/messages/count_tokens", {k: MESSAGES[k] for k in ("model", "messages", "tools")}),
    ("/api/chat", CHAT),
    ("/api/generate", {"model": "thinker", "prompt": "x", "system": "s", "context": [1, 2],
                       "options": {"num_predict": 2}, "raw": False, "think": True,
                       "format": "json"}),
    ("/api/embed", {"model": "thinker", "input": ["a", "b"], "truncate": True, "dimensions": 3}),
    ("/api/embeddings", {"model": "thinker", "prompt": "a"}),
    ("/api/show", {"model": "thinker", "verbose": True}),
    ("/api/pull", {"model": "thinker", "stream": True}),
]  # fmt: skip
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 3.5, 1e308, 10**30, math.inf, math.nan, "", "x", "none", "\0",
    "a" * 2000, [], [1], ["x"], [[]], [None], [{}], {}, {"type": "x"}, {"type": []}, "5m", "-1",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def odd(body: dict[str, Any], random: random.Random) -> dict[str, Any]:
    body = copy.deepcopy(body)
    *path, last = random.choice(list(places(body)))
    inner: Any = body
    for key in path:
        inner = inner[key]
    what = random.random()
    if what < 0.75:
        inner[last] = copy.deepcopy(random.choice(ODD))
    elif what < 0.9:
        del inner[last]
    elif isinstance(inner, dict):
        inner[random.choice(["extra", "type", "role", "$ref", "\0"])] = random.choice(ODD)
    else:
        inner.append(copy.deepcopy(random.choice(ODD)))
    return body


@pytest.mark.parametrize("seed", range(3))
def test_no_odd_value_is_a_failure_of_the_server(thinker, seed):
    rng = random.Random(seed)
    with httpx.Client(base_url=thinker.url, timeout=60) as client:
        for path, sound in BODIES * 4:
            body = odd(sound, rng)
            headers = {"content-type": "application/json"}
            answer = client.post(path, content=json.dumps(body), headers=headers)
            assert answer.status_code < 500, f"{path} {json.dumps(body)}: {answer.text}"
            if answer.status_code >= 400:
                assert answer.json()["error"]


def test_the_bodies_are_sound(thinker):
    for path, body in BODIES:
        answer = httpx.post(thinker.url + path, json=body, timeout=60)
        assert answer.status_code == 200, f"{path}: {answer.text}"
