# SPDX-License-Identifier: Apache-2.0
"""How much a key may ask for, and how every dialect says that it was too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from live_server import live_server

from freehold.server.failures import RequestError
from freehold.server.limits.quotas import Quotas
from freehold.server.security import keys
from freehold.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
BODY = {"model": "seedling", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
SETTINGS = ServerSettings(
    models=("seedling",), engine={"threads": 1, "max_num_seqs": 4, "context_length": 512}
)


def key(**limits: int) -> keys.ApiKey:
    return keys.ApiKey("k", "0" * 64, 0, **limits)


def refused(quotas: Quotas, each: keys.ApiKey) -> int:
    with pytest.raises(RequestError) as error:
        quotas.enter(each)
    assert error.value.kind == "rate_limited"
    return error.value.retry_after


def test_what_is_allowed_a_minute_flows_back_evenly() -> None:
    now = [1000.0]
    quotas = Quotas(lambda: now[0])
    each = key(requests_per_minute=6)
    for _ in range(6):
        quotas.enter(each)
    assert refused(quotas, each) == 10
    now[0] += 9.5
    assert refused(quotas, each) == 1
    now[0] += 0.6
    quotas.enter(each)
    assert refused(quotas, each) == 10
    now[0] += 3600
    for _ in range(6):
        quotas.enter(each)
    refused(quotas, each)
    quotas.enter(replace(each, name="other", requests_per_minute=1))


def test_tokens_are_paid_off_before_the_next_request() -> None:
    now = [0.0]
    quotas = Quotas(lambda: now[0])
    each = key(tokens_per_minute=600)
    quotas.enter(each)
    quotas.charge(each, 599)
    quotas.enter(each)
    quotas.charge(each, 301)
    assert refused(quotas, each) == 31
    now[0] += 31
    quotas.enter(each)


def test_places_are_given_back() -> None:
    quotas, each = Quotas(lambda: 0.0), key(concurrent_requests=2)
    quotas.enter(each)
    quotas.enter(each)
    assert refused(quotas, each) == 1
    quotas.leave(each)
    quotas.enter(each)
    refused(quotas, each)


DIALECTS = {
    CHAT: lambda body: body["error"]["type"] == "rate_limit_error",
    "/v1/messages": lambda body: (
        body["type"] == "error" and body["error"]["type"] == "rate_limit_error"
    ),
    "/api/chat": lambda body: isinstance(body["error"], str),
    "/v1/responses": lambda body: body["error"]["code"] == "rate_limit_exceeded",
}


def test_every_dialect_says_in_its_words_that_it_was_too_much(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    limits = {"few": {"requests_per_minute": 2}, "short": {"tokens_per_minute": 5}}
    made = {name: keys.create_key(path, name, **each) for name, each in limits.items()}
    with (
        live_server(replace(SETTINGS, key_file=path)) as server,
        httpx.Client(timeout=30) as client,
    ):

        def ask(name: str, where: str = CHAT) -> httpx.Response:
            headers = {"Authorization": f"Bearer {made[name]}"}
            return client.post(server.url + where, json=BODY, headers=headers)

        assert [ask("few").status_code for _ in range(2)] == [200, 200]
        for where, says_so in DIALECTS.items():
            answer = ask("few", where)
            assert answer.status_code == 429
            assert 25 <= int(answer.headers["retry-after"]) <= 30
            assert says_so(answer.json()), answer.text
        assert ask("short").status_code == 200
        answer = ask("short")  # the prompt alone was more than five tokens
        assert answer.status_code == 429
        assert "5 tokens a minute" in answer.json()["error"]["message"]
