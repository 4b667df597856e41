# SPDX-License-Identifier: Apache-2.0
"""API keys: the file they are kept in, the command that makes them, and what they open."""

from __future__ import annotations

import json
import re
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer, live_server

from freehold.cli.main import run as freehold
from freehold.errors import FreeholdError, InvalidParameterError, MalformedFileError
from freehold.server.security import keys
from freehold.server.settings import ServerSettings

SETTINGS = ServerSettings(
    models=("one=seedling", "two=seedling", "three=seedling"),
    engine={"threads": 1, "max_num_seqs": 4, "context_length": 256},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "freehold" / "keys.json"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


# -- the file -----------------------------------------------------------------------------------


def test_a_key_is_kept_as_its_hash_alone(file: Path) -> None:
    secret = keys.create_key(file, "laptop")
    assert re.fullmatch(r"fh-[A-Za-z0-9_-]{43}", secret)  # 256 bits
    assert secret not in file.read_text()
    assert secret[3:] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (key,) = keys.read_keys(file)
    assert key.sha256 == keys.digest_of(secret)
    assert keys.KeyRing(file).find(secret) == key
    assert keys.KeyRing(file).find(secret + "x") is None
    assert keys.KeyRing(file).find(key.sha256) is None
    assert keys.KeyRing(file).find("x" * 10**6) is None


def test_a_running_server_sees_every_change(file: Path) -> None:
    ring = keys.KeyRing(file)
    assert ring.keys() == ()
    first = keys.create_key(file, "first")
    second = keys.create_key(file, "second", models=("a",))
    assert ring.find(first)
    assert ring.find(second)
    keys.revoke_key(file, "first")
    assert ring.find(first) is None
    assert ring.find(second)
    file.write_text("{")
    assert ring.find(second) is None  # what cannot be read opens no door
    file.unlink()
    assert ring.keys() == ()


def test_keys_made_at_the_same_time_are_all_kept(file: Path) -> None:
    threads = [
        threading.Thread(target=keys.create_key, args=(file, f"key-{number}"))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in keys.read_keys(file)} == {f"key-{n}" for n in range(12)}
    assert {path.name for path in file.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_names_are_unique_and_plain(file: Path) -> None:
    keys.create_key(file, "laptop")
    with pytest.raises(InvalidParameterError, match="there is a key named laptop"):
        keys.create_key(file, "laptop")
    for name in ("", "a b", "a\nb", "-x", "a/b", "é", "x" * 65):
        with pytest.raises(InvalidParameterError, match="cannot be named"):
            keys.create_key(file, name)
    with pytest.raises(InvalidParameterError, match="no key named"):
        keys.revoke_key(file, "tablet")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": {}}',
        '{"version": 1, "keys": [1]}',
        '{"version": 1, "keys": [{"name": "a"}]}',
        '{"version": 1, "keys": [{"name": "a", "sha256": "0", "created": 1}]}',
        '{"version": 1, "keys": [{"name": "a", "sha256": "%s", "created": "1"}]}',
        '{"version": 1, "keys": [{"name": "a b", "sha256": "%s", "created": 1}]}',
        '{"version": 1, "keys": [{"name": "a", "sha256": "%s", "created": 1, "admin": true}]}',
        '{"version": 1, "keys": [{"name": "a", "sha256": "%s", "created": 1, "models": "all"}]}',
        '{"version": 1, "keys": [{"name": "a", "sha256": "%s", "created": 1, "manage_models": 1}]}',
        '{"version": 1, "keys": [{"name": "a", "sha256": "%s", "created": 1, "models": []}]}',
        '{"version": 1, "keys": [{"name": "a", "sha256": "%s", "created": 1,'
        ' "requests_per_minute": -1}]}',
        "[" * 10**5,
    ],
)
def test_a_file_that_is_not_sound_is_refused(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text.replace("%s", "0" * 64))
    file.chmod(0o600)
    with pytest.raises(MalformedFileError):
        keys.read_keys(file)


def test_a_file_that_others_may_write_is_refused(file: Path) -> None:
    keys.create_key(file, "laptop")
    file.chmod(0o620)
    with pytest.raises(InvalidParameterError, match="others than you"):
        keys.read_keys(file)


def test_patterns_name_models() -> None:
    key = keys.ApiKey("a", "0" * 64, 0, models=("llama*", "tiny"))
    assert key.may_use("llama-3:tuned")
    assert key.may_use("tiny")
    assert not key.may_use("tiny2")
    assert not key.may_use("LLAMA")
    assert replace(key, models=None).may_use("anything")


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "freehold" / "keys.json"


def test_the_command_creates_lists_and_revokes(home: Path, capsys) -> None:
    assert freehold(["keys", "list"]) == 0
    assert "there are no keys" in capsys.readouterr().err
    words = ["keys", "create", "laptop", "--days", "30", "--model", "a", "--model", "b*"]
    assert freehold([*words, "--requests-per-minute", "60", "--concurrent", "2"]) == 0
    secret = capsys.readouterr().out.strip()
    (key,) = keys.read_keys(home)
    assert key.sha256 == keys.digest_of(secret)
    assert (key.models, key.requests_per_minute, key.tokens_per_minute) == (("a", "b*"), 60, None)
    assert key.expires - key.created == 30 * 86400
    assert freehold(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert "laptop" in shown
    assert "60 requests/min, 2 at a time" in shown
    assert "a b*" in shown
    assert freehold(["keys", "list", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)[0]["concurrent_requests"] == 2
    assert key.sha256 not in text
    assert secret not in text
    assert freehold(["keys", "revoke", "laptop"]) == 0
    assert keys.read_keys(home) == ()


@pytest.mark.parametrize(
    "words",
    [
        ("create",), ("revoke",), ("revoke", "nobody"), ("create", "a b"), ("list", "a"),
        ("burn", "a"), ("create", "a", "--concurrent", "0"), ("create", "a", "--days", "x"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(home: Path, capsys, words: tuple[str, ...]) -> None:
    assert freehold(["keys", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.org"])
def test_nobody_is_let_in_from_outside_without_a_key(home: Path, capsys, host: str) -> None:
    assert freehold(["serve", "seedling", "--host", host, "--port", "0"]) == 2
    assert "freehold keys create" in capsys.readouterr().err
    keys.create_key(home, "old", expires=int(time.time()) - 1)
    assert freehold(["serve", "seedling", "--host", host, "--port", "0"]) == 2


def test_with_a_key_the_server_listens_outside(home: Path, monkeypatch) -> None:
    taken: list[ServerSettings] = []
    monkeypatch.setattr("freehold.server.run.serve", lambda settings, ready: taken.append(settings))
    keys.create_key(home, "laptop")
    assert freehold(["serve", "seedling", "--host", "0.0.0.0"]) == 0
    assert taken[0].key_file == home


def test_a_relative_config_home_is_ignored(monkeypatch, tmp_path: Path) -> None:
    from freehold.config import config_dir

    monkeypatch.setenv("XDG_CONFIG_HOME", "settings")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_dir() == tmp_path / ".config" / "freehold"


# -- what they open ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> tuple[LiveServer, Path, str]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    secret = keys.create_key(path, "all")
    with live_server(replace(SETTINGS, key_file=path)) as server:
        yield server, path, secret


def test_every_route_wants_a_key_but_health(guarded) -> None:
    server, _, secret = guarded
    paths = set(server.app.openapi()["paths"]) | {"/openapi.json", "/docs"}
    assert {"/v1/models", "/v1/chat/completions", "/ready"} <= paths
    others = {"/", "/nowhere", "//health", "/health/", "/HEALTH", "/v1/../health/x"}
    with httpx.Client() as client:
        for path in sorted((paths | others) - {"/health"}):
            url = server.url + re.sub(r"\{[^}]*\}", "x", path)
            for method in ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"):
                answer = client.request(method, url)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(server.url + "/v1/models", headers=bearer(secret)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer fh-wrong"},
        {"Authorization": "Basic {}"},
        {"Authorization": "{}"},
        {"Cookie": "key={}"},
        {"x-api-key": "{}"},
        {"x-api-key": "fh-\xff"},
        {"Authorization": "Bearer " + "x" * 5000},
    ],
)  # fmt: skip
def test_what_is_no_key_opens_nothing(guarded, headers: dict[str, str]) -> None:
    server, _, secret = guarded
    shown = [(name.encode(), value.replace("{}", secret[:-1]).encode("latin-1"))
             for name, value in headers.items()]  # fmt: skip
    assert httpx.get(server.url + "/v1/models", headers=shown).status_code == 401


def test_a_key_in_the_address_opens_nothing(guarded) -> None:
    server, _, secret = guarded
    assert httpx.get(server.url + f"/v1/models?key={secret}&api_key={secret}").status_code == 401


def test_keys_are_shown_as_every_dialect_does(guarded) -> None:
    server, _, secret = guarded
    for headers in (
        bearer(secret), {"authorization": f"bearer {secret}"}, {"x-api-key": secret},
        {"Authorization": "Bearer of-another-vendor", "x-api-key": secret},
    ):  # fmt: skip
        assert httpx.get(server.url + "/v1/models", headers=headers).status_code == 200


def test_a_revoked_or_expired_key_stops_working_at_once(guarded) -> None:
    server, path, _ = guarded
    secret = keys.create_key(path, "brief")
    url = server.url + "/v1/models"
    assert httpx.get(url, headers=bearer(secret)).status_code == 200
    keys.revoke_key(path, "brief")
    assert httpx.get(url, headers=bearer(secret)).status_code == 401
    over = keys.create_key(path, "over", expires=int(time.time()) - 1)
    answer = httpx.get(url, headers=bearer(over))
    assert answer.status_code == 401
    assert "expired" in answer.json()["error"]["message"]
    keys.revoke_key(path, "over")


def test_a_key_sees_and_reaches_its_models_only(guarded) -> None:
    server, path, everything = guarded
    secret = keys.create_key(path, "some", models=("t*",))
    listed = httpx.get(server.url + "/v1/models", headers=bearer(secret)).json()["data"]
    assert [model["id"] for model in listed] == ["two", "three"]
    listed = httpx.get(server.url + "/v1/models", headers=bearer(everything)).json()["data"]
    assert len(listed) == 3
    assert httpx.get(server.url + "/v1/models/one", headers=bearer(secret)).status_code == 404
    body = {"model": "one", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    url = server.url + "/v1/chat/completions"
    answer = httpx.post(url, json=body, headers=bearer(secret))
    assert answer.status_code == 404
    nobody = httpx.post(url, json={**body, "model": "nobody"}, headers=bearer(secret))
    # The same words for a model that is hidden and for one that is not there.
    assert answer.text.replace("'one'", "'nobody'") == nobody.text
    assert '"one"' not in answer.text
    answer = httpx.post(url, json={**body, "model": "two"}, headers=bearer(secret))
    assert answer.status_code == 200
    keys.revoke_key(path, "some")


def test_without_keys_loopback_is_open_until_there_is_one(file: Path) -> None:
    with live_server(replace(SETTINGS, key_file=file)) as server:
        url = server.url + "/v1/models"
        assert httpx.get(url).status_code == 200
        assert httpx.get(url, headers=bearer("unused")).status_code == 200
        keys.create_key(file, "first")
        assert httpx.get(url).status_code == 401
        keys.revoke_key(file, "first")
        assert httpx.get(url).status_code == 401  # a door that was shut stays shut
        file.unlink()
        assert httpx.get(url).status_code == 401


def test_an_application_for_the_world_is_shut_even_without_a_file() -> None:
    with live_server(replace(SETTINGS, host="0.0.0.0")) as server:
        assert httpx.get(server.url + "/v1/models").status_code == 401


def test_a_broken_file_keeps_the_server_from_starting(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("nonsense")
    file.chmod(0o600)
    with pytest.raises(FreeholdError):
        keys.KeyRing(file)
