# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document against the server it describes: refusals as documented, and no request
that follows the document, or nearly does, makes the server fail.

Routes come from the document itself. `FREEHOLD_FUZZ_EXAMPLES` sets how many requests each of them
gets; `make nightly` asks for many.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from live_server import LiveServer, live_server
from schemathesis.generation import GenerationMode

from freehold.server.settings import ServerSettings

EXAMPLES = int(os.environ.get("FREEHOLD_FUZZ_EXAMPLES", "3"))
METHODS = ("get", "post", "put", "delete", "patch", "head")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = ServerSettings(
        models=("seedling",),
        engine={"threads": 1, "max_num_seqs": 4, "context_length": 96},
        data_dir=tmp_path_factory.mktemp("data"),
    )
    with live_server(settings) as running:
        yield running


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def document(server: LiveServer) -> dict[str, Any]:
    return httpx.get(server.url + "/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in document["paths"].items():
        for method in METHODS:
            if method in found:
                yield method.upper(), path, found[method]


def check_response(document: dict[str, Any], operation: dict[str, Any], answer: Any) -> None:
    """The status is documented, and the body looks as documented."""
    described = operation["responses"].get(str(answer.status_code))
    described = described or operation["responses"]["default"]
    content = described.get("content", {})
    given = answer.headers.get("content-type", "")
    kind = (given if isinstance(given, str) else given[0]).partition(";")[0]
    if not content or not answer.content:
        return
    assert kind in content, (answer.status_code, kind)
    if kind == "application/json":
        schema = {**content[kind]["schema"], "components": document["components"]}
        jsonschema.validate(answer.json(), schema)


def test_every_operation_is_described(document):
    assert document["openapi"].startswith("3.1")
    seen = [f"{method} {path}" for method, path, _ in operations(document)]
    assert {"POST /v1/chat/completions", "GET /v1/models", "GET /metrics"} <= set(seen)
    for method, path, operation in operations(document):
        assert operation["summary"], path
        assert operation["tags"], path
        assert {"400", "404", "500", "default"} <= set(operation["responses"]), (method, path)
        for status, response in operation["responses"].items():
            assert status.isdigit() or status == "default"
            assert response["description"], (method, path, status)
    assert "ValidationError" not in json.dumps(document)
    streamed = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(streamed) == {"application/json", "text/event-stream"}


def test_references_lead_somewhere(document):
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else ())
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    for reference in references(document):
        where: Any = document
        for part in reference.removeprefix("#/").split("/"):
            where = where[part]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"', b'{"no such field": 1}', b"\xff", b""])
def test_broken_bodies_are_refused_as_documented(server, document, client, body):
    headers = {"content-type": "application/json"}
    for method, path, operation in operations(document):
        if "requestBody" not in operation:
            continue
        url = server.url + path.format_map(_Nobody())
        answer = client.request(method, url, content=body, headers=headers)
        assert 400 <= answer.status_code < 500, (method, path, answer.text)
        check_response(document, operation, answer)


def test_objects_that_are_not_there_are_refused_as_documented(server, document, client):
    for method, path, operation in operations(document):
        if "{" in path and "requestBody" not in operation:
            answer = client.request(method, server.url + path.format_map(_Nobody()))
            assert 400 <= answer.status_code < 500, (method, path, answer.text)
            check_response(document, operation, answer)


def test_no_page_asks_others_for_scripts(server):
    for path in ("/docs", "/redoc"):
        assert httpx.get(server.url + path).status_code == 404


class Fuzzer:
    """Sends what schemathesis makes of the document, and judges the answers."""

    def __init__(self, url: str, document: dict[str, Any]) -> None:
        self.url, self.document = url, document
        self.session = requests.Session()
        self.tried, self.answered = 0, 0

    def run(self, operation: Any) -> None:
        """As many requests of one operation as `EXAMPLES` says: right ones and wrong ones."""
        about = self.document["paths"][operation.path][operation.method]
        strategy = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if about.get("parameters") or "requestBody" in about:  # else nothing can be wrong
            wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
            strategy = st.one_of(strategy, wrong)

        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=(hypothesis.Phase.generate,),
        )  # fmt: skip
        @hypothesis.given(strategy, st.integers(0, 3))
        def ask(case: Any, choice: int) -> None:
            self.ask(about, case, served=choice > 0)

        ask()

    def ask(self, about: dict[str, Any], case: Any, *, served: bool) -> None:
        """One request; `served`: of the model there is."""
        body = case.body
        if isinstance(body, dict):
            if served and "model" in body:
                body["model"] = "seedling"
            for many in ("n", "best_of"):  # as many as are allowed would take too long
                if isinstance(body.get(many), int) and 3 < body[many] <= 128:
                    body[many] = 2
        answer = case.call(base_url=self.url, session=self.session, timeout=60)
        shown = (case.method, case.formatted_path, body, answer.status_code, answer.text[:500])
        assert answer.status_code < 500, shown
        self.tried += 1
        self.answered += answer.status_code == 200
        check_response(self.document, about, answer)


def test_no_request_makes_the_server_fail(server, document):
    fuzzer = Fuzzer(server.url, document)
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        fuzzer.run(result.ok())
    assert fuzzer.tried >= EXAMPLES * 20
    assert fuzzer.answered > 5


# Requests that are answered, of all routes: what a body needs is taken from here.
SENSIBLE: dict[str, Any] = {
    "model": "seedling", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2,
    "prompt": "Hi", "input": "Hi", "query": "Hi", "documents": ["a", "b"], "labels": ["a", "b"],
    "text": "Hi", "tokens": [1, 2], "max_output_tokens": 2, "options": {"num_predict": 2},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
}  # fmt: skip
# Texts of JSON, some of which Python reads and JSON has not.
HOSTILE = [
    '"\\ud800"', '"\\u0000"', "NaN", "-Infinity", "1e999", "9" * 400, "9" * 5000, "-1", "0", "null",
    "true", "[]", "{}", '""', "[null]", '[{"type": "\\udfff", "content": "\\ud800"}]', "[" * 3000,
    '{"\\ud800": "\\ud800"}', '"%s"' % ("x" * 70_000),
]  # fmt: skip


def test_hostile_values_in_any_field_are_refused_or_answered(server, document, client):
    rng = random.Random(1)
    tried, failed = 0, []
    for method, path, operation in operations(document):
        schema = _body_schema(document, operation)
        if schema is None:
            continue
        base = {name: SENSIBLE[name] for name in schema["properties"] if name in SENSIBLE}
        base.pop("tools", None)
        for name in schema["properties"]:
            values = HOSTILE if EXAMPLES > 50 else [rng.choice(HOSTILE)]
            for value in values:
                body = json.dumps({**base, name: "HERE"}).replace('"HERE"', value)
                answer = client.request(
                    method, server.url + path.format_map(_Nobody()), content=body,
                    headers={"content-type": "application/json"},
                )  # fmt: skip
                if answer.status_code >= 500:
                    failed.append((path, name, value[:40], answer.status_code, answer.text[:200]))
                check_response(document, operation, answer)
                tried += 1
    assert not failed
    assert tried > 150


def _body_schema(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a JSON object that the operation takes."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"].get(name, content["schema"])
    return schema if "properties" in schema else None


class _Nobody(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "nobody"
