# SPDX-License-Identifier: Apache-2.0
"""Ways in which servers of models have been broken into, a test for each class, on a live server.

Where freehold has no such door, the test shows that there is none.
"""

from __future__ import annotations

import io
import json
import pickle
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_server import LiveServer, live_server

import tiny_chat
from freehold.server.security import keys
from freehold.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hi"}]
ENGINE = {"threads": 1, "max_num_seqs": 4, "context_length": 256}
JSON = {"Content-Type": "application/json"}
_EVIL_FILE = "somebody-was-here"


class Payload:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that are sound, and models that are traps."""
    folder = tmp_path_factory.mktemp("house")
    tiny_chat.write(folder / "tiny.gguf", context=256)
    for name, template in TRAPS.items():
        tiny_chat.write(folder / f"{name}.gguf", template=template, context=256)
    pickled = folder / "pickled"
    pickled.mkdir()
    evil = folder / _EVIL_FILE
    code = f"import pathlib\npathlib.Path({str(evil)!r}).touch()\n"
    (pickled / "modeling_evil.py").write_text(code)
    (pickled / "conftest.py").write_text(code)
    config = {
        "architectures": ["EvilForCausalLM"], "model_type": "llama", "trust_remote_code": True,
        "auto_map": {"AutoModelForCausalLM": "modeling_evil.EvilForCausalLM"},
    }  # fmt: skip
    (pickled / "config.json").write_text(json.dumps(config))
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (pickled / name).write_bytes(pickle.dumps(Payload(evil)))
    (folder / "model.pkl").write_bytes(pickle.dumps(Payload(evil)))
    return folder


TRAPS = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch " + _EVIL_FILE + "') }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.system('true') }}",
    "endless": "{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}"
    "{% endfor %}",
    "large": "{{ 'x' * 10000000000 }}",
    "deep": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}


@pytest.fixture(scope="module")
def opened(house: Path) -> Iterator[LiveServer]:
    names = [*TRAPS, "tiny"]
    models = [f"{name}={house / name}.gguf" for name in names]
    models += [f"pickled={house / 'pickled'}", f"pkl={house / 'model.pkl'}", "zero=/dev/zero"]
    folder = ServerSettings(models=tuple(models), engine=ENGINE, data_dir=house / "data")
    with live_server(folder) as server:
        yield server


@pytest.fixture
def client(opened: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=opened.url, timeout=60) as client:
        yield client


def chat(client: httpx.Client, model: str = "tiny", **change: Any) -> httpx.Response:
    body = {"model": model, "messages": HELLO, "max_tokens": 2, **change}
    return client.post(CHAT, content=json.dumps(body), headers=JSON)


# -- 4.2 -------------------------------------------------------------------------------------------

NUMBERS = (
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "top_k", "min_p",
    "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold", "repetition_penalty",
    "penalty_last_n", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
    "min_tokens", "max_tokens", "n", "top_logprobs",
)  # fmt: skip
OPTIONS = (
    "num_predict", "num_ctx", "num_keep", "repeat_last_n", "mirostat", "num_gpu", "num_batch",
    "num_thread", "seed", "top_k", "temperature", "repeat_penalty",
)  # fmt: skip
HOSTILE = st.sampled_from(
    [-1, 0, -(2**31), 2**31, 2**63, -(2**63) - 1, 2**64, 10**30, -0.5, 1e308, 5e-324, float("nan"),
     float("inf"), float("-inf"), True, False, "1", "", [], [1], {}, {"a": 1}, 3]
)  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(field=st.sampled_from(NUMBERS), value=HOSTILE)
def test_4_2_numbers_do_not_reach_native_code_unchecked(client, field, value) -> None:
    change = {field: value, **({"logprobs": True} if field == "top_logprobs" else {})}
    answer = chat(client, **({"max_tokens": 2} | change))
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(field=st.sampled_from(OPTIONS), value=HOSTILE)
def test_4_2_nor_do_options_of_other_dialects(client, field, value) -> None:
    options = {"num_predict": 2, field: value}
    body = {"model": "tiny", "prompt": "Hi", "stream": False, "options": options}
    answer = client.post("/api/generate", content=json.dumps(body), headers=JSON)
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize("token", [-1, 260, 2**31, 2**63, 10**30, 1.5, True, "1", None])
def test_4_2_tokens_are_those_of_the_vocabulary(client, token) -> None:
    for path, body in (
        ("/v1/completions", {"model": "tiny", "prompt": [1, token], "max_tokens": 1}),
        ("/v1/embeddings", {"model": "tiny", "input": [[1, token]]}),
        ("/detokenize", {"model": "tiny", "tokens": [token]}),
        (CHAT, {"model": "tiny", "messages": HELLO, "stop_token_ids": [token], "max_tokens": 1}),
        (CHAT, {"model": "tiny", "messages": HELLO, "logit_bias": {str(token): 5}}),
    ):
        answer = client.post(path, content=json.dumps(body), headers=JSON)
        assert answer.status_code in (200, 400), answer.text  # a stop token may be any number
    assert chat(client).status_code == 200


FORMS = {
    "deep": {"type": "json_schema", "json_schema": {"name": "x", "schema": None}},
    "blow_up": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "string", "pattern": "^(((a{1,500}){1,500}){1,500}b)+$"}}},
    "backtracking": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "string", "pattern": "(a|aa)+$"}}},
    "recursive": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "$ref": "#"}}},
    "huge": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "array", "minItems": 2**40, "items": {"type": "integer"}}}},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_4_2_forms_cannot_hold_everybody_up(client, name) -> None:
    form = json.loads(json.dumps(FORMS[name]))
    if name == "deep":
        schema: Any = {"type": "integer"}
        for _ in range(55):
            schema = {"type": "array", "items": schema}
        form["json_schema"]["schema"] = schema
    answer = chat(client, response_format=form)
    assert answer.status_code in (200, 400), answer.text
    assert chat(client).status_code == 200


def test_4_2_a_million_messages_are_refused_before_they_are_read(client) -> None:
    one = b'{"role":"user","content":""},'
    body = b'{"model":"tiny","messages":[' + one * 1_000_000 + one[:-1] + b"]}"
    answer = client.post(CHAT, content=body, headers=JSON)
    assert answer.status_code in (400, 413)


def test_4_2_a_device_is_no_model(client) -> None:
    assert chat(client, "zero").status_code in (400, 404)
    assert chat(client, "/dev/zero").status_code == 404


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,AAAA", "data:text/html,<b>", "data:,", "https://example.org/x.png"],
)
def test_4_2_pictures_are_refused_not_decoded(client, url) -> None:
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    answer = chat(client, messages=[{"role": "user", "content": parts}])
    assert answer.status_code == 400
    body = {"model": "tiny", "prompt": "x", "images": [url], "stream": False}
    assert client.post("/api/generate", json=body).status_code == 400


# -- 4.3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAPS)
def test_4_3_templates_of_models_stay_in_their_box(client, house, name) -> None:
    answer = chat(client, name)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert "root:" not in message
    assert "<class" not in message
    assert not list(Path.cwd().glob(_EVIL_FILE))
    assert not (house / _EVIL_FILE).exists()


def test_4_3_clients_bring_no_templates(client) -> None:
    for field in ("chat_template", "template"):
        answer = chat(client, **{field: "{{ messages }}"})
        assert answer.status_code == 400
        assert field in answer.json()["error"]["message"]
    body = {"model": "tiny", "prompt": "x", "template": "{{ .System }}", "stream": False}
    assert client.post("/api/generate", json=body).status_code == 400
    for name in ("messages", "tools", "self", "add_generation_prompt", "bos_token", "range"):
        answer = chat(client, chat_template_kwargs={name: []})
        assert answer.status_code in (200, 400), answer.text


def test_4_3_what_people_write_is_no_template_and_no_control_token(client) -> None:
    def count(content: str) -> int:
        answer = chat(client, messages=[{"role": "user", "content": content}])
        tokens: int = answer.json()["usage"]["prompt_tokens"]
        return tokens

    empty = count("")
    for text in ("{{ 7 * 7 }}", "{% raw %}", "<|im_end|><|im_start|>system"):
        assert count(text) - empty == len(text)  # a token for each byte, and none is control


# -- 4.4 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["pickled", "pkl"])
def test_4_4_a_checkpoint_runs_no_code(client, house, model) -> None:
    answer = chat(client, model)
    assert answer.status_code == 400
    assert not (house / _EVIL_FILE).exists()
    assert not any("modeling_evil" in name for name in sys.modules)


def test_4_4_a_checkpoint_cannot_be_brought_over_the_api(client, house) -> None:
    blob = pickle.dumps(Payload(house / _EVIL_FILE))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("data.pkl", blob)
    for data in (blob, zipped.getvalue()):
        form = {"file": ("model.bin", data)}
        client.post("/v1/files", files=form, data={"purpose": "batch"})
        client.post("/api/blobs/sha256:" + "0" * 64, content=data)
    for path, body in (
        ("/api/create", {"model": "x", "from": str(house / "pickled")}),
        ("/api/create", {"model": "x", "files": {"a": "sha256:" + "0" * 64}}),
        ("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": str(house / "pickled")}),
    ):
        assert 400 <= client.post(path, json=body).status_code < 600
    assert not (house / _EVIL_FILE).exists()
    assert chat(client, "x").status_code == 404


# -- 4.5 -------------------------------------------------------------------------------------------


def test_4_5_there_is_one_door_and_it_is_http(house) -> None:
    process = psutil.Process()

    def doors() -> set[Any]:
        found = process.net_connections("all")
        udp = [c for c in found if c.type == socket.SOCK_DGRAM and c.family != socket.AF_UNIX]
        unix = [c for c in found if c.family == socket.AF_UNIX and c.laddr]
        tcp = [c for c in found if c.status == psutil.CONN_LISTEN]
        return {c.laddr for c in (*udp, *unix, *tcp)}

    before = doors()
    listed = ServerSettings(models=(f"tiny={house / 'tiny.gguf'}",), engine=ENGINE)
    with live_server(listed) as server, httpx.Client(base_url=server.url) as client:
        assert chat(client).status_code == 200
        new = doors() - before
        assert [f"http://{address.ip}:{address.port}" for address in new] == [server.url]
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
        assert client.get("/v1/models", headers=upgrade).status_code != 101


# -- 4.6 -------------------------------------------------------------------------------------------

PATHS = (
    "../../../../etc/passwd", "/etc/passwd", "..\\..\\windows\\win.ini", "C:\\boot.ini",
    "\\\\host\\share", "file:///etc/passwd", "tiny/../../../etc/passwd", "CON", "tiny\x00.gguf",
    "tiny.gguf", "TINY", "ｔｉｎｙ", "./tiny", "%2e%2e%2fetc%2fpasswd", "sha256:../../etc/passwd",
)  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_4_6_a_models_name_is_no_path(client, name) -> None:
    for path, body in (
        (CHAT, {"model": name, "messages": HELLO}),
        ("/v1/completions", {"model": name, "prompt": "x"}),
        ("/v1/responses", {"model": name, "input": "x"}),
        ("/v1/messages", {"model": name, "messages": HELLO, "max_tokens": 1}),
        ("/v1/embeddings", {"model": name, "input": "x"}),
        ("/api/chat", {"model": name, "messages": HELLO}),
        ("/api/show", {"model": name}),
        ("/tokenize", {"model": name, "prompt": "x"}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 404, (path, answer.text)
        assert "root:" not in answer.text


def test_4_6_what_is_there_and_what_is_not_look_the_same(client) -> None:
    def told(name: str, path: str = CHAT) -> str:
        answer = client.post(path, json={"model": name, "messages": HELLO})
        return answer.text.replace(name, "X")

    for path in (CHAT, "/api/chat"):
        assert told("/etc/passwd", path) == told("/etc/nothing-of-the-kind", path)
        assert told("/etc", path) == told("/etc/ssh/ssh_host_key", path)


@pytest.mark.parametrize(
    "path",
    ["/v1/files/..%2f..%2fkeys.json", "/v1/files/%2e%2e/content",
     "/v1/files/..%2f..%2f..%2fetc%2fpasswd/content",
     "/v1/batches/..%2f..", "/v1/responses/..%2f..", "/v1/models/..%2f..%2fetc%2fpasswd",
     "/..%2f..%2fetc%2fpasswd", "/v1/files/%00/content", "/v1/messages/batches/..%2f../results"],
)  # fmt: skip
def test_4_6_addresses_lead_out_of_no_folder(client, path) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "..\\evil", "a/b", "a\x00b", "CON"])
def test_4_6_an_uploads_name_is_no_path(client, house, name) -> None:
    before = {path for path in house.rglob("*") if "data" not in path.parts}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": CHAT, "body": {}}).encode()
    client.post("/v1/files", files={"file": (name, line)}, data={"purpose": "batch"})
    assert {path for path in house.rglob("*") if "data" not in path.parts} == before
    kept = [path.name for path in (house / "data").rglob("*") if path.is_file()]
    assert not any("evil" in each or "CON" in each for each in kept)


# -- 4.7 -------------------------------------------------------------------------------------------


def test_4_7_the_server_fetches_nothing_for_anybody(client, house) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        url = f"http://127.0.0.1:{canary.getsockname()[1]}/x"
        schema = {"$ref": url}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        for target in (
            url,
            "file:///etc/passwd",
            "http://169.254.169.254/",
            "http://[::ffff:7f00:1]/",
        ):
            part = {"type": "image_url", "image_url": {"url": target}}
            file = {"type": "input_file", "file_url": target}
            source = {"type": "image", "source": {"type": "url", "url": target}}
            said = [{"role": "user", "content": [file]}]
            for path, body in (
                (CHAT, {"model": "tiny", "messages": [{"role": "user", "content": [part]}]}),
                (CHAT, {"model": "tiny", "messages": HELLO, "response_format": form}),
                ("/v1/responses", {"model": "tiny", "input": said}),
                ("/v1/messages", {"model": "tiny", "max_tokens": 1,
                                  "messages": [{"role": "user", "content": [source]}]}),
                ("/api/pull", {"model": target, "insecure": True}),
                ("/api/push", {"model": target, "insecure": True}),
                ("/api/create", {"model": "y", "from": target}),
                ("/api/chat", {"model": "tiny", "messages": [{**HELLO[0], "images": [target]}]}),
            ):  # fmt: skip
                answer = client.post(path, json=body)
                assert 400 <= answer.status_code < 600, (path, answer.text)
                assert "root:" not in answer.text
        with pytest.raises(BlockingIOError):
            canary.accept()


# -- 4.8 -------------------------------------------------------------------------------------------


def test_4_8_a_name_that_was_turned_to_this_machine_is_not_answered(client) -> None:
    for host in ("attacker.example", "attacker.example:8484", "127.0.0.1.attacker.example"):
        for path in ("/health", "/api/tags", "/v1/models", "/metrics", "/openapi.json"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == 403
            assert "tiny" not in answer.text


def test_4_8_a_page_of_a_stranger_reaches_no_route(client, opened) -> None:
    described = opened.app.openapi()["paths"]
    for path, methods in described.items():
        for method in methods:
            headers = {"Origin": "https://attacker.example"}
            answer = client.request(method, path.replace("{", "").replace("}", ""), headers=headers)
            assert answer.status_code == 403, path
            assert "access-control-allow-origin" not in answer.headers


def test_4_8_forms_of_pages_are_not_read(client) -> None:
    body = json.dumps({"model": "tiny", "messages": HELLO})
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        answer = client.post(CHAT, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415
        for site, status in (("cross-site", 403), ("same-site", 415), ("none", 415)):
            headers = {"Content-Type": kind, "Sec-Fetch-Site": site}
            answer = client.post("/api/chat", content=body, headers=headers)
            assert answer.status_code == status


READS_A_MODEL = ("/tokenizer_info",)  # clients ask for this with GET, and it loads a model


def test_4_8_looking_changes_nothing(house) -> None:
    stranger = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    listed = ServerSettings(models=(f"tiny={house / 'tiny.gguf'}",), engine=ENGINE)
    with live_server(listed) as server, httpx.Client(base_url=server.url) as client:
        for path, methods in server.app.openapi()["paths"].items():
            if "get" in methods:
                url = path.replace("{name}", "tiny")
                assert client.get(url, headers=stranger).status_code == 403
                if path in READS_A_MODEL:
                    continue
                for query in ("", "?q=hello&prompt=hello&model=tiny&keep_alive=-1"):
                    client.get(url + query)
                    client.head(url + query)
        model = server.services.registry.find("tiny")
        assert (model.state, model.loads) == ("unloaded", 0)


def test_4_8_answers_are_no_pages(client) -> None:
    script = "<script>alert(1)</script>"
    answers = [client.get(path) for path in ("/", "/v1/models", "/docs", f"/{script}")]
    for answer in (*answers, chat(client, script)):
        assert "html" not in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


# -- 4.9 -------------------------------------------------------------------------------------------


def test_4_9_every_route_there_is_wants_a_key(house, tmp_path) -> None:
    file = tmp_path / "keys.json"
    secret = keys.create_key(file, "laptop")
    listed = ServerSettings(
        models=(f"tiny={house / 'tiny.gguf'}",), engine=ENGINE, key_file=file, host="0.0.0.0"
    )
    with live_server(listed) as server, httpx.Client(base_url=server.url) as client:
        described = server.app.openapi()["paths"]
        assert len(described) > 20
        for path, methods in described.items():
            for method in methods:
                url = path.replace("{", "").replace("}", "")
                answer = client.request(method, url)
                assert answer.status_code == (200 if path == "/health" else 401), path
                assert "tiny" not in answer.text
        for path in ("/openapi.json", "/docs", "/redoc", "/metrics", "/", "/nothing"):
            assert client.get(path).status_code == 401
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/metrics", headers={"x-api-key": secret}).status_code == 200


LISTINGS = {
    "/v1/models": lambda body: [model["id"] for model in body["data"]],
    "/api/tags": lambda body: [model["name"].removesuffix(":latest") for model in body["models"]],
    "/api/ps": lambda body: [model["name"].removesuffix(":latest") for model in body["models"]],
    "/ready": lambda body: [model["name"] for model in body["models"]],
}


def test_4_9_a_key_sees_and_reaches_its_models_only_in_every_dialect(house, tmp_path) -> None:
    file = tmp_path / "keys.json"
    listed = ServerSettings(
        models=(f"mine={house / 'tiny.gguf'}", f"yours={house / 'tiny.gguf'}"), engine=ENGINE,
        key_file=file, preload=("mine", "yours"), memory_bytes=2 << 30,
    )  # fmt: skip
    headers = {"x-api-key": keys.create_key(file, "some", models=("mine",))}
    everything = {"x-api-key": keys.create_key(file, "all")}
    with live_server(listed) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        for name in ("mine", "yours"):
            assert chat_as(client, name, everything).status_code == 200
        for path, names in LISTINGS.items():
            assert names(client.get(path, headers=headers).json()) == ["mine"], path
            assert sorted(names(client.get(path, headers=everything).json())) == ["mine", "yours"]
            anthropic = {**headers, "anthropic-version": "2023-06-01"}
            assert "yours" not in client.get(path, headers=anthropic).text
        assert client.get("/v1/models/yours", headers=headers).status_code == 404
        for path, methods in server.app.openapi()["paths"].items():
            if "post" in methods:
                body = {"model": "yours", "messages": HELLO, "prompt": "x", "input": "x"}
                url = path.replace("{", "").replace("}", "")
                answer = client.post(url, json=body, headers=headers)
                assert answer.status_code >= 400, path
                assert "mine" in answer.text or "yours" not in answer.text.replace("'yours'", "")
        for path, body in (
            ("/api/generate", {"model": "yours", "keep_alive": 0}),
            ("/api/show", {"model": "yours"}), ("/tokenize", {"model": "yours", "prompt": "x"}),
            ("/v1/embeddings", {"model": "yours", "input": "x"}),
            ("/v1/classify", {"model": "yours", "input": "x", "labels": ["a", "b"]}),
            ("/v1/rerank", {"model": "yours", "query": "x", "documents": ["a"]}),
        ):  # fmt: skip
            assert client.post(path, json=body, headers=headers).status_code == 404, path
        assert client.get("/metrics", headers=headers).status_code == 403
        assert server.services.registry.find("yours").state == "loaded"


def chat_as(client: httpx.Client, model: str, headers: dict[str, str]) -> httpx.Response:
    body = {"model": model, "messages": HELLO, "max_tokens": 1}
    return client.post(CHAT, json=body, headers=headers)


def test_4_9_keys_are_compared_without_telling_how_far_they_fit(tmp_path, monkeypatch) -> None:
    file = tmp_path / "keys.json"
    secrets = [keys.create_key(file, f"key-{number}") for number in range(5)]
    compared: list[tuple[str, str]] = []
    real = keys.hmac.compare_digest

    def counting(a: str, b: str) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", counting)
    ring = keys.KeyRing(file)
    for secret in (secrets[0], secrets[4], "fh-wrong"):
        compared.clear()
        ring.find(secret)
        assert len(compared) == 5  # the first match does not end it
        assert {len(b) for _, b in compared} == {64}  # hashes, never secrets


# -- 4.10 ------------------------------------------------------------------------------------------


def test_4_10_bombs_are_not_unpacked(client) -> None:
    import gzip

    bomb = gzip.compress(b" " * (64 << 20))
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
        headers = {**JSON, "Content-Encoding": coding}
        assert client.post(CHAT, content=bomb, headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 500_000, b"[" + b"[]," * 3_000_000 + b"[]]",
     b'{"model":"tiny","messages":[' + b"1," * 4_000_000 + b"1]}", b'"' + b"\\u0000" * 1_000_000,
     b'{"model":' + b"9" * 1_000_000 + b"}", b"\xff\xfe" * 1000, b'{"model":"\\ud800"}', b"",
     b"\x00" * 1_000_000, b'{"model":"tiny","model":"tiny"', b"nul"],
    ids=["deep list", "deep object", "many lists", "many numbers", "escapes", "digits", "no text",
         "half a character", "nothing", "zeros", "cut off", "no value"],
)  # fmt: skip
def test_4_10_bodies_cannot_take_stack_memory_or_time(client, body) -> None:
    for path in (CHAT, "/api/chat", "/v1/messages", "/v1/responses"):
        assert client.post(path, content=body, headers=JSON).status_code in (400, 404, 413)
    assert chat(client).status_code == 200


def test_4_10_a_full_disk_is_told_and_nothing_else_stops(house, tmp_path) -> None:
    listed = ServerSettings(
        models=(f"tiny={house / 'tiny.gguf'}",), engine=ENGINE, data_dir=tmp_path, data_bytes=2000
    )
    with live_server(listed) as server, httpx.Client(base_url=server.url) as client:
        form = {"file": ("a.jsonl", b"x" * 3000)}
        answer = client.post("/v1/files", files=form, data={"purpose": "batch"})
        assert 400 <= answer.status_code < 600
        assert answer.json()["error"]["message"]
        assert chat(client).status_code == 200


# -- 4.12 ------------------------------------------------------------------------------------------


def test_4_12_answers_of_users_do_not_mix(client, opened) -> None:
    from concurrent.futures import ThreadPoolExecutor

    prompts = [f"{'word ' * (n % 5)}number {n}" for n in range(12)]

    def ask(prompt: str) -> str:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 8, "temperature": 0}
        text: str = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
        return text

    alone = [ask(prompt) for prompt in prompts]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, prompts)) == alone


def test_4_12_a_key_does_not_learn_what_another_has_asked(house, tmp_path) -> None:
    """What is known of a prompt shows in counts and in time; so keys share nothing of it."""
    file = tmp_path / "keys.json"
    secrets = {name: keys.create_key(file, name) for name in ("alice", "bob")}
    listed = ServerSettings(models=(f"tiny={house / 'tiny.gguf'}",), engine=ENGINE, key_file=file)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a secret " * 12}],
            "max_tokens": 1}  # fmt: skip
    with live_server(listed) as server, httpx.Client(base_url=server.url) as client:

        def cached(name: str) -> int:
            answer = client.post(CHAT, json=body, headers={"x-api-key": secrets[name]})
            count: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            return count

        assert cached("alice") == 0
        assert cached("alice") > 0
        assert cached("bob") == 0
        assert cached("bob") > 0
