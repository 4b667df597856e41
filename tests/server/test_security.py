# SPDX-License-Identifier: Apache-2.0
"""What browsers must not do: names that resolve to this machine, and pages of strangers."""

from __future__ import annotations

import httpx
import pytest
from live_server import LiveServer, live_server

from freehold.cli.main import run as freehold
from freehold.errors import InvalidParameterError
from freehold.server.security.hosts import (
    host_name,
    is_loopback,
    origin_host,
    parse_host,
    parse_origin,
)
from freehold.server.settings import ServerSettings

BODY = {"model": "seedling", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def named():
    settings = ServerSettings(
        models=("seedling",), allow_hosts=("freehold.lan",),
        allow_origins=("https://chat.example.org",),
    )  # fmt: skip
    with live_server(settings) as running:
        yield running


def ask(server: LiveServer, method: str = "GET", path: str = "/v1/models", **headers: str):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, server.url + path, headers=headers)


def test_names_of_this_machine() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST.", "localhost"):
        assert is_loopback(host), host
    for host in ("", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1.nip.io", "localhost.evil.org",
                 "127.1", "2130706433", "[::1"[:-1], "evil"):  # fmt: skip
        assert not is_loopback(host), host
    assert host_name("LocalHost:8484") == "localhost"
    assert host_name("[::1]:80") == "[::1]"
    for header in ("", "a b", "a:b", "evil@localhost", "localhost:80:80", "localhost/x", "a,b",
                   "localhost\t"[:-1] + "\x00", ":80"):  # fmt: skip
        assert host_name(header) is None, header
    assert origin_host("http://localhost:3000") == "localhost:3000"
    for origin in ("null", "", "file://", "http://", "http://a/b", "http://a@b", "ftp://localhost",
                   "localhost", "chrome-extension://abc"):  # fmt: skip
        assert origin_host(origin) is None, origin
    assert parse_host("Freehold.LAN:8484") == "freehold.lan"
    assert parse_origin("https://Chat.example.org/") == "https://chat.example.org"
    assert parse_origin("chrome-extension://abcdef") == "chrome-extension://abcdef"
    for text in ("*", "", "chat.example.org", "https://", "https://a/b", "https://a?b"):
        with pytest.raises(InvalidParameterError):
            parse_origin(text)
    with pytest.raises(InvalidParameterError):
        parse_host("*")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8484"])
def test_this_machines_names_are_answered(server, host) -> None:
    assert ask(server, Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.org", "localhost.evil.org", "127.0.0.1.nip.io", "0.0.0.0", "freehold.lan", "[::]"],
)
def test_other_names_are_not(server, host) -> None:
    answer = ask(server, Host=host)
    assert answer.status_code == 403
    assert "--allow-host" in answer.json()["error"]["message"]


def test_a_name_that_was_allowed_is(named) -> None:
    assert ask(named, Host="freehold.lan:8484").status_code == 200
    assert ask(named, Host="FREEHOLD.lan").status_code == 200
    assert ask(named, Host="evil.lan").status_code == 403
    assert ask(named).status_code == 200


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5"])
def test_pages_of_this_machine_may_ask_and_read(server, origin) -> None:
    answer = ask(server, Origin=origin)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["https://evil.org", "null", "http://localhost.evil.org", "file://", "http://127.0.0.1.nip.io",
     "http://localhost@evil.org", "chrome-extension://abc", "https://chat.example.org"],
)  # fmt: skip
def test_pages_of_strangers_may_not(server, origin) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        answer = ask(server, method, CHAT, Origin=origin)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    asked = ask(server, "OPTIONS", CHAT, Origin=origin, Access_Control_Request_Method="POST")
    assert asked.status_code == 403
    assert "access-control-allow-origin" not in asked.headers


def test_a_page_is_told_what_it_may_send(named) -> None:
    answer = ask(
        named, "OPTIONS", CHAT, Origin="https://chat.example.org",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization, content-type, x-stainless-os",
        Access_Control_Request_Private_Network="true",
    )  # fmt: skip
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://chat.example.org"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "x-stainless-os" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert ask(named, Origin="https://other.example.org").status_code == 403
    assert ask(named, Host="freehold.lan", Origin="http://freehold.lan").status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json",
             "text/plain; application/json", "application/jsonp"]
)  # fmt: skip
def test_a_body_must_call_itself_json(server, kind) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = httpx.post(server.url + CHAT, content=b'{"model": "x"}', headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


def test_curl_without_a_header_is_understood_where_its_users_expect_it(server) -> None:
    def ask(**headers: str) -> int:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return httpx.post(server.url + "/api/show", content=b"{}", headers=headers).status_code

    assert ask() == 400
    assert ask(Origin="http://localhost:3000") == 415
    assert ask(**{"Sec-Fetch-Site": "none"}) == 415


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
def test_bodies_that_do_are_read(server, kind) -> None:
    answer = httpx.post(
        server.url + CHAT, content=b'{"model": "x"}', headers={"Content-Type": kind}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages"


def test_bodies_are_not_decompressed(server) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = httpx.post(server.url + CHAT, content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415


def test_a_header_that_is_no_text_is_no_crash(server) -> None:
    for name in (b"host", b"origin", b"content-type"):
        headers = [(name, b"\xff\xfe"), (b"content-length", b"2")]
        answer = httpx.post(server.url + CHAT, content=b"{}", headers=headers)
        assert answer.status_code in (400, 403, 415)


def test_every_answer_carries_its_own_id(server) -> None:
    ids = {ask(server).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    "words", [("--allow-origin", "*"), ("--allow-host", "a b"), ("--allow-origin", "evil.org")]
)
def test_mistaken_names_are_told_at_the_start(words, capsys) -> None:
    assert freehold(["serve", "seedling", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
