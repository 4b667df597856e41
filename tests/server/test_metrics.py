# SPDX-License-Identifier: Apache-2.0
"""`/metrics` of a live server, read by Prometheus' own parser, says what clients were told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from live_server import LiveServer, live_server
from prometheus_client.parser import text_string_to_metric_families

from freehold.errors import CapacityError, EngineError, InvalidParameterError
from freehold.server.models.registry import ModelRegistry
from freehold.server.monitoring.metrics import MAX_KEYS, OTHER, ServerMetrics
from freehold.server.request_context import RequestRecord, set_current
from freehold.server.security.keys import ApiKey, create_key
from freehold.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
STORY = "Once upon a time there was a small house at the edge of a wood. " * 3


class Samples(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Values by name and labels."""

    def get_one(self, name: str, **labels: str) -> float:
        return self.get(("freehold_" + name, frozenset(labels.items())), 0.0)

    def total(self, name: str) -> float:
        return sum(value for (given, _), value in self.items() if given == "freehold_" + name)

    def labels_of(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for given, labels in self if given == "freehold_" + name}


def parse(text: str) -> Samples:
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    found = Samples()
    for family in families:
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def scrape(server: LiveServer) -> Samples:
    answer = httpx.get(server.url + "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parse(answer.text)


def until(server: LiveServer, condition: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + 20
    while not condition(found := scrape(server)):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return found


def ask(server: LiveServer, text: str, **fields: object) -> dict[str, object]:
    body = {"model": "a", "messages": [{"role": "user", "content": text}], "temperature": 0,
            "max_tokens": 9, "ignore_eos": True, **fields}  # fmt: skip
    answer = httpx.post(server.url + CHAT, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]


@pytest.fixture
def server() -> Iterator[LiveServer]:
    engine = {"threads": 1, "max_num_seqs": 4, "context_length": 1024}
    with live_server(ServerSettings(models=("a=seedling", "b=seedling"), engine=engine)) as running:
        yield running


def test_counts_are_those_the_clients_were_told(server):
    before = scrape(server)
    assert before.get_one("model_loaded", model="a") == 0
    assert before.get_one("model_memory_limit_bytes") > 0
    usages = [ask(server, STORY), ask(server, STORY), ask(server, "Hello", n=2)]
    found = until(server, lambda now: now.total("answers_total") == 4)
    mine = {"model": "a", "key": ""}
    assert usages[1]["prompt_tokens_details"]["cached_tokens"] > 0
    prompts = [*usages, usages[2]]  # each of several answers is a sequence with the prompt
    assert found.get_one("prompt_tokens_total", **mine) == sum(u["prompt_tokens"] for u in prompts)
    made = sum(u["completion_tokens"] for u in usages)
    assert found.get_one("generated_tokens_total", **mine) == made
    assert found.get_one("prefix_cache_hits_total", **mine) >= 1
    found_in_cache = found.get_one("cached_tokens_total", **mine)
    assert found_in_cache >= usages[1]["prompt_tokens_details"]["cached_tokens"]
    computed = found.get_one("computed_prompt_tokens_total", model="a")
    assert computed == found.get_one("prompt_tokens_total", **mine) - found_in_cache
    assert found.get_one("answers_total", **mine, outcome="length") == 4
    for name in ("time_to_first_token_seconds", "queue_seconds", "request_seconds"):
        assert found.get_one(name + "_count", **mine) == 4
    assert found.get_one("inter_token_seconds_count", **mine) == made - 4
    assert found.get_one("time_to_first_token_seconds_sum", **mine) > 0
    waits = found.get_one("time_to_first_token_seconds_sum", **mine)
    assert waits <= found.get_one("request_seconds_sum", **mine)
    # the first answer waited for the model, but not in the queue
    assert found.get_one("queue_seconds_sum", **mine) <= waits
    assert found.get_one("model_loaded", model="a") == 1
    assert found.get_one("model_bytes", model="a") > 1e6
    assert found.get_one("model_loads_total", model="a", outcome="loaded") == 1
    assert found.get_one("http_requests_total", method="POST", route=CHAT, status="200") == 3
    assert found.get_one("model_loaded", model="b") == 0
    assert ("process_resident_memory_bytes", frozenset()) in found


def test_a_running_stream_is_seen_and_leaves_nothing_behind(server):
    body = {"model": "a", "messages": [{"role": "user", "content": STORY}], "stream": True,
            "ignore_eos": True, "temperature": 1.0}  # fmt: skip
    with httpx.stream("POST", server.url + CHAT, json=body, timeout=60) as answer:
        lines = answer.iter_lines()  # letting go of it would hang up
        next(lines)
        gate = threading.Event()  # the engine stands still while it is looked at
        server.services.registry.find("a").loaded._engine._send(lambda: gate.wait(20))
        found = scrape(server)
        assert found.get_one("running_sequences", model="a") == 1
        assert found.get_one("waiting_sequences", model="a") == 0
        assert found.get_one("model_users", model="a") == 1
        used = found.get_one("kv_blocks_used", model="a", pool="0")
        assert 1 <= used <= found.get_one("kv_blocks", model="a", pool="0")
        gate.set()
    found = until(server, lambda now: now.total("kv_blocks_used") == 0)
    assert found.get_one("kv_blocks_cached", model="a", pool="0") > 0
    found = until(server, lambda now: now.total("answers_total") == 1)
    assert found.get_one("answers_total", model="a", key="", outcome="cancelled") == 1
    assert found.get_one("request_seconds_count", model="a", key="") == 0
    assert found.get_one("running_sequences", model="a") == 0
    assert found.get_one("model_users", model="a") == 0


def test_totals_stay_when_a_model_goes(server):
    ask(server, STORY)
    before = scrape(server)
    registry = server.services.registry
    model = registry.find("a")
    model.timer._loop.call_soon_threadsafe(registry._expire, model)  # as after a long silence
    found = until(server, lambda now: now.get_one("model_loaded", model="a") == 0)
    for name in ("computed_prompt_tokens_total", "engine_steps_total", "model_seconds_total"):
        value = before.get_one(name, model="a")
        assert found.get_one(name, model="a") == value > 0
    assert found.get_one("model_unloads_total", model="a", reason="idle") == 1
    assert found.get_one("model_unloads_total", model="a", reason="memory") == 0
    assert found.labels_of("kv_blocks", "model") == set()
    assert found.get_one("model_bytes", model="a") == 0
    ask(server, STORY)
    again = scrape(server)
    steps = before.get_one("engine_steps_total", model="a")
    assert again.get_one("engine_steps_total", model="a") == 2 * steps
    assert again.get_one("model_loads_total", model="a", outcome="loaded") == 2


def test_refusals_are_counted_without_letting_clients_make_labels(server):
    httpx.get(server.url + "/v1/nothing-of-the-kind")
    httpx.get(server.url + "/v1/models/nobody")
    httpx.request("BREW", server.url + "/v1/models")
    too_long = {"model": "a", "messages": [{"role": "user", "content": "a " * 2000}]}
    assert httpx.post(server.url + CHAT, json=too_long, timeout=60).status_code == 400
    found = until(server, lambda now: now.total("answers_total") == 1)
    assert found.get_one("answers_total", model="a", key="", outcome="refused") == 1
    assert found.get_one("http_requests_total", method="GET", route="(none)", status="404") == 1
    one = "/v1/models/{name:path}"
    assert found.get_one("http_requests_total", method="GET", route=one, status="404") == 1
    assert found.labels_of("http_requests_total", "method") == {"GET", "POST", OTHER}
    assert found.labels_of("http_requests_total", "route") <= {
        "(none)", one, CHAT, "/metrics", "/v1/models",
    }  # fmt: skip


def test_keys_are_told_apart_up_to_a_limit():
    metrics = ServerMetrics(ModelRegistry(ServerSettings()))
    for number in range(MAX_KEYS + 20):
        set_current(RequestRecord(key=ApiKey(f"key-{number}", "0" * 64, 0)))
        metrics.answers("m").begin(3).end(None, None)
    set_current(None)
    found = parse(metrics.render().decode())
    keys = found.labels_of("answers_total", "key")
    assert {"key-0", f"key-{MAX_KEYS - 1}", OTHER} <= keys
    assert len(keys) == MAX_KEYS + 1
    assert found.get_one("answers_total", model="m", key=OTHER, outcome="cancelled") == 20
    other = parse(ServerMetrics(ModelRegistry(ServerSettings())).render().decode())
    assert other.total("answers_total") == 0


def test_ends_of_answers_have_names():
    metrics = ServerMetrics(ModelRegistry(ServerSettings()))
    ends = {
        "refused": InvalidParameterError("no"),
        "overloaded": CapacityError("full"),
        "failed": EngineError("stopped"),
        "cancelled": GeneratorExit(),
    }
    for error in ends.values():
        metrics.answers("m").begin(1).end(None, error)
    found = parse(metrics.render().decode())
    for outcome in ends:
        assert found.get_one("answers_total", model="m", key="", outcome=outcome) == 1


def test_answers_are_counted_for_the_key_that_asked(tmp_path):
    path = tmp_path / "keys.json"
    secret, narrow = create_key(path, "laptop"), create_key(path, "intern", models=("b",))
    settings = ServerSettings(
        models=("a=seedling", "b=seedling"), key_file=path,
        engine={"threads": 1, "max_num_seqs": 4, "context_length": 256},
    )  # fmt: skip
    body = {"model": "b", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    with live_server(settings) as server:
        mine, theirs = ({"x-api-key": each} for each in (secret, narrow))
        for headers in (mine, theirs, theirs):
            answer = httpx.post(server.url + CHAT, json=body, headers=headers, timeout=60)
            assert answer.status_code == 200
        assert httpx.get(server.url + "/metrics").status_code == 401
        refused = httpx.get(server.url + "/metrics", headers=theirs)
        assert refused.status_code == 403  # it would see other models and keys
        assert "intern" in refused.json()["error"]["message"]
        found = parse(httpx.get(server.url + "/metrics", headers=mine).text)
    for key, count in (("laptop", 1), ("intern", 2)):
        assert found.get_one("time_to_first_token_seconds_count", model="b", key=key) == count
    assert found.labels_of("generated_tokens_total", "key") == {"laptop", "intern"}
    assert found.get_one("http_requests_total", method="GET", route="(none)", status="401") == 1
    assert found.get_one("model_loaded", model="a") == 0
