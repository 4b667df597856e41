# SPDX-License-Identifier: Apache-2.0
"""Models of the store behind a server, and fetching them through Ollama's own client."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
from live_server import LiveServer, live_server

import tiny_chat
from freehold.catalogue import catalogue
from freehold.cli.main import run as freehold
from freehold.errors import PolicyError
from freehold.hub.sources import ollama as registry_source
from freehold.hub.store import Store
from freehold.server.models.references import fetchable, reference_of
from freehold.server.models.registry import ModelRegistry, ServedModel
from freehold.server.security.keys import create_key
from freehold.server.settings import ServerSettings
from model_server import ModelServer, Repo

ENGINE = {"threads": 1, "max_num_seqs": 4, "context_length": 256}
HELLO = [{"role": "user", "content": "Hi"}]
SHORT = {"num_predict": 2}
LICENCE = b"Apache License\nVersion 2.0, January 2004\n"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_chat.write(tmp_path_factory.mktemp("weights") / "m.gguf").read_bytes()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("FREEHOLD_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("FREEHOLD_POLICY", raising=False)
    return Store()


@pytest.fixture
def hosts(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """Stands for Hugging Face and for Ollama's registry."""
    with ModelServer() as running:
        running.repos["org/repo"] = Repo(
            {"m-Q4_K_M.gguf": weights, "LICENSE": LICENCE}, {"license": "apache-2.0"}
        )
        running.add_ollama(
            "library/tinychat:1b", {"model": weights, "license": LICENCE, "params": b"{}"}
        )
        running.add_ollama("library/tinychat:latest", {"model": weights})
        running.add_ollama("ada/other:latest", {"model": weights})
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr(registry_source, "endpoint_of", lambda ref: running.url)
        yield running


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[LiveServer, ollama.Client]]:
    given = {"store": True, "allow_pull": True, "engine": ENGINE, **settings}
    with live_server(ServerSettings(**given)) as running, ollama.Client(running.url) as client:
        yield running, client


def listed(client: ollama.Client) -> list[str | None]:
    return [model.model for model in client.list().models]


def answered(client: ollama.Client, model: str) -> str | None:
    return client.chat(model, HELLO, options=SHORT).done_reason


def served(server: LiveServer, name: str) -> ServedModel:
    async def find() -> ServedModel:
        return server.services.registry.find(name)

    return server.on_loop(find())


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refused(ask: Any, status: int, words: str) -> None:
    with pytest.raises(ollama.ResponseError, match=words) as caught:
        ask()
    assert caught.value.status_code == status, caught.value.error


# -- the way of a model ----------------------------------------------------------------------------


def test_pull_list_chat_copy_delete(hosts: ModelServer, store: Store, weights: bytes) -> None:
    with serving() as (server, client):
        assert listed(client) == []
        lines = list(client.pull("tinychat:1b", stream=True))
        assert lines[0].status == "pulling manifest"
        assert [line.status for line in lines[-2:]] == ["writing manifest", "success"]
        digests = {line.digest: line for line in lines if line.digest}
        manifest_digests = {f"sha256:{f.sha256}" for f in store.models()[0].files}
        assert set(digests) == manifest_digests
        for line in lines:
            if line.digest:
                assert line.status == f"pulling {line.digest.removeprefix('sha256:')[:12]}"
                assert 0 <= line.completed <= line.total
        assert all(last.completed == last.total for last in digests.values())
        assert len(weights) in [line.total for line in digests.values()]

        assert listed(client) == ["tinychat:1b"]
        assert client.show("tinychat:1b").details.family == "llama"
        assert client.ps().models == []  # nothing is loaded before it is asked for
        for name in ("tinychat:1b", "ollama:tinychat:1b"):
            assert answered(client, name) in ("length", "stop")
        assert [model.model for model in client.ps().models] == ["tinychat:1b"]
        with openai.OpenAI(base_url=server.url + "/v1", api_key="unused") as other:
            assert [model.id for model in other.models.list()] == ["tinychat:1b"]
            done = other.chat.completions.create(model="tinychat:1b", messages=HELLO, max_tokens=2)
            assert done.usage.completion_tokens > 0

        assert client.copy("tinychat:1b", "gpt-mine").status == "success"
        assert client.copy("tinychat:1b", "gpt-mine").status == "success"
        assert sorted(listed(client)) == ["gpt-mine:latest", "tinychat:1b"]
        assert client.delete("tinychat:1b").status == "success"
        assert listed(client) == ["gpt-mine:latest"]
        assert client.ps().models == []
        refused(lambda: answered(client, "tinychat:1b"), 404, "no model is served")
        assert answered(client, "gpt-mine") in ("length", "stop")
        client.delete("gpt-mine:latest")
    assert store.models() == []
    assert not list((store.root / "blobs").iterdir())


def test_names_as_ollama_writes_them(hosts: ModelServer) -> None:
    with serving() as (_, client):
        assert client.pull("tinychat").status == "success"
        assert client.pull("ada/other").status == "success"
        assert client.pull("hf.co/org/repo:Q4_K_M").status == "success"
        assert sorted(listed(client)) == [
            "ada/other:latest", "hf:org/repo:Q4_K_M", "tinychat:latest"
        ]  # fmt: skip
        for name in ("tinychat", "tinychat:latest", "ada/other", "hf.co/org/repo", "hf:Org/Repo"):
            assert client.show(name).details.format == "gguf", name
        refused(lambda: client.show("tinychat:1b"), 404, "no model is served")


def test_a_name_of_the_catalogue_is_listed_as_it_was_asked_for(
    hosts: ModelServer, weights: bytes
) -> None:
    member = catalogue.get("llama3.2:3b")
    for repository in (*member.gguf_repos, member.repo):
        hosts.repos[repository] = Repo({"m-Q4_K_M.gguf": weights}, {"license": "apache-2.0"})
    with serving() as (_, client):
        client.pull("llama3.2:3b")
        assert listed(client) == ["llama3.2:3b"]
        assert answered(client, "llama3.2:3b") in ("length", "stop")
        client.delete("llama3.2:3b")
        assert listed(client) == []


def test_what_was_pulled_again_and_is_the_same_stays_loaded(hosts: ModelServer) -> None:
    with serving() as (server, client):
        client.pull("tinychat:1b")
        answered(client, "tinychat:1b")
        client.pull("tinychat:1b")
        answered(client, "tinychat:1b")
        assert served(server, "tinychat:1b").loads == 1


def test_another_content_under_the_name_is_what_answers(
    hosts: ModelServer, store: Store, tmp_path: Path
) -> None:
    with serving() as (server, client):
        client.pull("tinychat:1b")
        answered(client, "tinychat:1b")
        before = served(server, "tinychat:1b")
        newer = tiny_chat.write(tmp_path / "n.gguf", context=512).read_bytes()
        hosts.add_ollama("library/tinychat:1b", {"model": newer})
        client.pull("tinychat:1b")
        after = served(server, "tinychat:1b")
        assert after is not before
        answered(client, "tinychat:1b")
        assert client.show("tinychat:1b").modelinfo["llama.context_length"] == 512
        until(lambda: before.state == "unloaded")
        assert server.services.registry.memory_used == after.nbytes


def test_what_other_programs_do_to_the_store_is_seen(hosts: ModelServer, store: Store) -> None:
    with serving(allow_pull=False) as (_, client):
        assert listed(client) == []
        assert freehold(["pull", "hf:org/repo"]) == 0
        assert listed(client) == ["hf:org/repo:Q4_K_M"]
        assert answered(client, "hf:org/repo:Q4_K_M") in ("length", "stop")
        store.remove("hf:org/repo:Q4_K_M")
        assert listed(client) == []
        assert client.ps().models == []


def test_copies_of_files_of_this_machine_are_served_without_their_paths(
    hosts: ModelServer, weights: bytes, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "secret.gguf"
        path.write_bytes(
            tiny_chat.write(path, context=256 if folder == "one" else 512).read_bytes()
        )
        assert freehold(["pull", str(path)]) == 0
        path.unlink()  # the store has its own
    with serving() as (_, client):
        first, second = listed(client)
        assert first == "secret:latest"
        assert second is not None
        assert second.startswith("secret-")
        assert str(tmp_path) not in str(client.list())
        assert answered(client, "secret") in ("length", "stop")
        client.delete("secret")
        assert listed(client) == ["secret:latest"]


def test_a_model_named_at_the_start_is_not_served_twice(hosts: ModelServer) -> None:
    assert freehold(["pull", "hf:org/repo"]) == 0
    with serving(models=("mine=hf:org/repo",)) as (server, client):
        assert listed(client) == ["mine:latest"]
        assert answered(client, "hf:org/repo:Q4_K_M") in ("length", "stop")
        assert [model.name for model in server.services.registry.bases()] == ["mine"]
        assert client.pull("mine").status == "success"
        refused(lambda: client.delete("mine"), 400, "served since the server was started")
        refused(lambda: client.copy("mine", "yours"), 400, "served since the server was started")


# -- what is refused -------------------------------------------------------------------------------


def test_nothing_is_fetched_where_the_operator_does_not_say_so(hosts: ModelServer) -> None:
    assert freehold(["pull", "hf:org/repo"]) == 0
    asked = len(hosts.requests("."))
    with serving(allow_pull=False) as (_, client):
        assert client.pull("hf:org/repo").status == "success"  # it is there
        for ask in (
            lambda: client.pull("tinychat:1b"),
            lambda: list(client.pull("tinychat:1b", stream=True)),
            lambda: client.copy("hf:org/repo", "mine"),
            lambda: client.delete("hf:org/repo"),
        ):
            refused(ask, 403, "--allow-pull")
        assert listed(client) == ["hf:org/repo:Q4_K_M"]
    assert len(hosts.requests(".")) == asked


def test_keys_that_may_and_keys_that_may_not(hosts: ModelServer, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = {
        "user": create_key(file, "user"),
        "admin": create_key(file, "admin", manage_models=True),
        "some": create_key(file, "some", manage_models=True, models=("tiny*", "gpt-*")),
    }
    with serving(key_file=file) as (server, _):
        user, admin, some = (
            ollama.Client(server.url, headers={"Authorization": f"Bearer {keys[name]}"})
            for name in keys
        )
        with user, admin, some:
            refused(lambda: user.pull("tinychat:1b"), 403, "with the key user models are used")
            refused(lambda: some.pull("hf:org/repo"), 403, "not among the models of this key")
            assert not hosts.seen
            admin.pull("hf:org/repo")
            some.pull("tinychat:1b")
            assert user.pull("tinychat:1b").status == "success"  # it is there
            refused(lambda: user.delete("tinychat:1b"), 403, "used, not fetched")
            refused(lambda: user.copy("tinychat:1b", "gpt-x"), 403, "used, not fetched")
            # what a key does not see is not there
            refused(lambda: some.delete("hf:org/repo"), 404, "no model is served")
            refused(lambda: some.copy("hf:org/repo", "gpt-x"), 404, "no model is served")
            refused(lambda: some.copy("tinychat:1b", "mine"), 400, "cannot be the name")
            some.copy("tinychat:1b", "gpt-x")
            assert sorted(listed(some)) == ["gpt-x:latest", "tinychat:1b"]
            refused(lambda: answered(some, "hf:org/repo"), 404, "no model is served")


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("http://127.0.0.1:1/m.gguf", 403, "fetches nothing from 127.0.0.1:1"),
        ("http://169.254.169.254/latest/m.gguf", 403, "fetches nothing from 169.254"),
        ("http://[::ffff:7f00:1]/m.gguf", 403, "fetches nothing from"),
        ("registry.example/library/x:1b", 403, "fetches nothing from registry.example"),
        ("ollama:127.0.0.1:5000/library/x:1b", 403, "fetches nothing from 127.0.0.1:5000"),
        ("file:///etc/passwd", 400, "not file"),
        ("/etc/passwd", 403, "paths of the server's machine"),
        ("~/secret.gguf", 403, "paths of the server's machine"),
        ("../../x.gguf", 403, "paths of the server's machine"),
        ("ollama:../../../x", 400, "cannot be|too many parts"),
        ("hf:org/../../x", 400, "cannot be|no repository|must be"),
        ("hf:org/repo@../../x", 400, "revision"),
        ("x" * 5000, 400, "at most"),
        ("a\nb", 400, "one line"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, str) else None,
)
def test_hostile_names_reach_nobody(
    name: str, status: int, words: str, open_server: tuple[LiveServer, ollama.Client]
) -> None:
    _, client = open_server
    refused(lambda: client.pull(name), status, words)
    refused(lambda: list(client.pull(name, stream=True)), status, words)


@pytest.fixture(scope="module")
def open_server() -> Iterator[tuple[LiveServer, ollama.Client]]:
    with serving() as running:
        yield running


def test_insecure_and_unknown_fields_are_refused(open_server) -> None:
    server, client = open_server
    refused(lambda: client.pull("tinychat", insecure=True), 400, "insecure")
    answer = httpx.post(server.url + "/api/pull", json={"model": "x", "username": "y"})
    assert answer.status_code == 400
    assert "username" in answer.json()["error"]
    refused(lambda: client.push("x"), 400, "neither publishes nor makes")
    refused(lambda: client.create("new", from_="x"), 400, "neither publishes nor makes")


def test_pages_of_strangers_change_nothing(open_server) -> None:
    server, _ = open_server
    for method, path in (("POST", "pull"), ("POST", "copy"), ("DELETE", "delete")):
        answer = httpx.request(
            method, f"{server.url}/api/{path}", json={"model": "x"},
            headers={"Origin": "https://evil.example"},
        )  # fmt: skip
        assert answer.status_code == 403
        assert "may not ask" in answer.json()["error"]


def test_copies_pretend_to_be_nobody(hosts: ModelServer, store: Store) -> None:
    with serving() as (_, client):
        client.pull("tinychat:1b")
        client.pull("hf:org/repo")
        for name, words in (
            ("seedling", "published"),
            ("llama3.2:3b", "published"),
            ("hf:org/other", "cannot be|begins like"),
            ("ollama:x", "begins like"),
            ("../x", "cannot be"),
            ("a/b/c/d", "cannot be"),
            ("", "cannot be"),
            ("x" * 300, "cannot be"),
        ):
            refused(lambda name=name: client.copy("tinychat:1b", name), 400, words)
        # another model has the name; these two hold the same weights under other names of files
        refused(lambda: client.copy("tinychat:1b", "hf.co/org/repo"), 400, "cannot be|name of")
    assert len(store.models()) == 2


def test_a_copy_is_not_fetched_and_not_mixed_up(
    hosts: ModelServer, store: Store, weights: bytes, tmp_path: Path
) -> None:
    with serving() as (server, client):
        client.pull("tinychat:1b")
        client.copy("tinychat:1b", "other")
        asked = len(hosts.requests("."))
        assert client.pull("other").status == "success"  # it is there, and known here alone
        assert client.pull("other:latest").status == "success"
        assert len(hosts.requests(".")) == asked
        # Another model, which the registry calls so.
        newer = tiny_chat.write(tmp_path / "n.gguf", context=512).read_bytes()
        hosts.add_ollama("library/other:latest", {"model": newer})
        assert freehold(["pull", "ollama:other", "--endpoint", hosts.url]) == 0
        assert sorted(listed(client)) == ["ollama:other:latest", "other:latest", "tinychat:1b"]
        for name, context in (("other", 2048), ("other:latest", 2048), ("ollama:other", 512)):
            assert client.show(name).modelinfo["llama.context_length"] == context
        assert served(server, "other").stored.name == "other"


def test_allowed_hosts_are_asked(hosts: ModelServer, weights: bytes) -> None:
    hosts.files["/m.gguf"] = (weights, '"a"')
    with serving(pull_hosts=(hosts.host,)) as (_, client):
        client.pull(f"{hosts.url}/m.gguf")
        assert listed(client) == [f"{hosts.url}/m.gguf"]
        assert answered(client, f"{hosts.url}/m.gguf") in ("length", "stop")
        refused(lambda: client.pull(f"{hosts.cdn}/m.gguf"), 403, "fetches nothing from")


def test_failures_of_sources_have_words_and_a_status(hosts: ModelServer, weights: bytes) -> None:
    hosts.add_ollama("library/cloud:1b", {"adapter": b"x"})
    with serving() as (_, client):
        refused(lambda: client.pull("nobody:1b"), 404, "no such model")
        refused(lambda: list(client.pull("nobody:1b", stream=True)), 404, "no such model")
        refused(lambda: client.pull("cloud:1b"), 400, "not one GGUF file")
        manifest = hosts.add_ollama("library/lies:1b", {"model": weights[:-1]})
        hosts.blobs[manifest["layers"][0]["digest"]] = bytes(len(weights) - 1)
        refused(lambda: client.pull("lies:1b"), 502, "not what was promised")
        with pytest.raises(ollama.ResponseError, match="not what was promised"):
            list(client.pull("lies:1b", stream=True))
        assert listed(client) == []


def test_the_policy_is_asked_before_anything_comes(
    hosts: ModelServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('deny = ["apache-2.0"]\n')
    assert freehold(["pull", "hf:org/repo"]) == 0
    monkeypatch.setenv("FREEHOLD_POLICY", str(policy))
    store.remove("hf:org/repo:Q4_K_M")
    with serving() as (_, client):
        refused(lambda: client.pull("hf:org/repo"), 403, "policy forbids to pull")
        refused(lambda: list(client.pull("hf:org/repo", stream=True)), 403, "policy forbids")
        assert store.models() == []
        monkeypatch.delenv("FREEHOLD_POLICY")
        client.pull("hf:org/repo")
        monkeypatch.setenv("FREEHOLD_POLICY", str(policy))
        refused(lambda: answered(client, "hf:org/repo"), 403, "policy forbids to (serve|load)")


# -- while it comes --------------------------------------------------------------------------------


BIG = bytes(3 << 20)  # so large that it is cut into pieces and written before all has come


def slowly(hosts: ModelServer) -> threading.Event:
    """A model that comes slowly; set once some of it did."""
    weights = next(data for data in hosts.blobs.values() if data.startswith(b"GGUF"))
    hosts.add_ollama("library/big:1b", {"params": BIG, "model": weights})
    hosts.step, hosts.pause = 1 << 16, 0.1
    begun = threading.Event()
    hosts.tick = lambda count: begun.set() if count == 1 << 16 else None
    return begun


def coming(client: ollama.Client) -> Any:
    """The lines of a fetch of which some has come."""
    lines = client.pull("big:1b", stream=True)
    while not next(lines).completed:  # type: ignore[call-overload]
        pass
    return lines


def test_who_leaves_ends_it_and_who_comes_goes_on(
    hosts: ModelServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "freehold.server")
    logging.getLogger("freehold").propagate = True
    begun = slowly(hosts)
    with serving() as (_, client):
        coming(client).close()
        until(lambda: "pull stopped" in caplog.messages)
        assert begun.is_set()
        assert store.models() == []
        kept = list((store.root / "partial").iterdir())
        assert kept
        hosts.pause = 0
        ranges = len(hosts.requests("/cdn/"))
        assert client.pull("big:1b").status == "success"
        assert any(
            not seen.headers.get("range", "bytes=0-").startswith("bytes=0-")
            for seen in hosts.requests("/cdn/")[ranges:]
        )
        assert listed(client) == ["big:1b"]
        told = [r for r in caplog.records if r.getMessage() == "pulled"]
        assert told[-1].fields["stored"] == "ollama:big:1b"  # type: ignore[attr-defined]


def test_two_who_want_the_same_wait_for_one_fetch(hosts: ModelServer) -> None:
    begun = slowly(hosts)

    async def both(url: str) -> list[Any]:
        async with ollama.AsyncClient(url) as client:
            first = asyncio.create_task(client.pull("big:1b"))
            await asyncio.to_thread(begun.wait, 20)
            second = asyncio.create_task(client.pull("ollama:big:1b"))
            leaver = asyncio.create_task(client.pull("big:1b"))
            await asyncio.sleep(0.1)
            leaver.cancel()
            return await asyncio.gather(first, second)

    with serving() as (server, _):
        results = asyncio.run(both(server.url))
        assert [each.status for each in results] == ["success", "success"]
    assert len(hosts.requests("/manifests/")) == 1


def test_no_more_than_some_at_a_time(hosts: ModelServer) -> None:
    begun = slowly(hosts)
    with serving(max_pulls=1) as (server, client):
        waiting = threading.Thread(target=lambda: client.pull("big:1b"))
        waiting.start()
        assert begun.wait(20)
        answer = httpx.post(server.url + "/api/pull", json={"model": "ada/other"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "being fetched already" in answer.json()["error"]
        hosts.pause = 0
        waiting.join(30)
        assert client.pull("ada/other").status == "success"


def test_a_server_that_stops_lets_go(hosts: ModelServer, store: Store) -> None:
    slowly(hosts)
    with serving() as (server, client):
        lines = coming(client)
        server.services.draining = True
        with pytest.raises(ollama.ResponseError, match="shutting down"):
            list(lines)
    assert store.models() == []


def test_a_model_in_use_is_not_deleted(hosts: ModelServer, store: Store) -> None:
    with serving() as (server, client):
        client.pull("tinychat:1b")
        registry = server.services.registry

        async def hold(held: asyncio.Event, enough: asyncio.Event) -> None:
            async with registry.lease("tinychat:1b"):
                held.set()
                await enough.wait()

        async def begin() -> tuple[asyncio.Event, asyncio.Task[None]]:
            held, enough = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(hold(held, enough))
            await held.wait()
            return enough, task

        async def end(enough: asyncio.Event, task: asyncio.Task[None]) -> None:
            enough.set()
            await task

        enough, task = server.on_loop(begin())
        refused(lambda: client.delete("tinychat:1b"), 409, "is answering 1 requests")
        assert listed(client) == ["tinychat:1b"]
        # Somebody else takes it from the store: whoever uses it may finish.
        store.remove("ollama:tinychat:1b")
        assert listed(client) == []
        assert registry.memory_used > 0
        server.on_loop(end(enough, task))
        until(lambda: registry.memory_used == 0)


def test_pinned_models_of_the_store_stay(hosts: ModelServer) -> None:
    assert freehold(["pull", "hf:org/repo"]) == 0
    with serving(pinned=("hf:org/repo:Q4_K_M",)) as (_, client):
        refused(lambda: client.delete("hf:org/repo"), 400, "pinned")


# -- names and the command -------------------------------------------------------------------------


def test_which_model_a_name_means() -> None:
    assert reference_of("llama3.2:3b").kind == "catalogue"
    assert reference_of("nobody-has-this").name == "ollama:nobody-has-this:latest"
    assert reference_of("who/what").name == "ollama:who/what:latest"
    assert reference_of("registry.ollama.ai/library/x:1b").name == "ollama:x:1b"
    assert reference_of("hf.co/a/b:Q6_K").name == "hf:a/b:Q6_K"
    assert fetchable("reg.example:5000/a/b:1", {"reg.example:5000"}).host == "reg.example:5000"


def test_adapters_are_for_models_that_are_named(hosts: ModelServer, tmp_path: Path) -> None:
    assert freehold(["pull", "hf:org/repo"]) == 0
    settings = ServerSettings(
        store=True, adapters=(f"hf:org/repo:Q4_K_M:x={tmp_path}",), engine=ENGINE
    )
    with pytest.raises(Exception, match="has no adapters here"):
        ModelRegistry(settings)


def test_serve_without_models_needs_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert freehold(["serve"]) == 2
    shown = capsys.readouterr().err
    assert "no model is named, and the store has none" in shown
    assert "--allow-pull" in shown


@pytest.mark.parametrize(
    ("words", "store", "pull", "hosts"),
    [
        (("seedling",), False, False, ()),
        (("seedling", "--store"), True, False, ()),
        (("--allow-pull", "--allow-pull-from", "Reg.Example:5000"), True, True,
         ("reg.example:5000",)),
    ],
    ids=("named", "both", "pulling"),
)  # fmt: skip
def test_what_the_command_line_turns_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], store: bool,
    pull: bool, hosts: tuple[str, ...],
) -> None:  # fmt: skip
    taken: list[ServerSettings] = []
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("freehold.server.run.serve", lambda settings, ready: taken.append(settings))
    assert freehold(["serve", *words]) == 0
    assert (taken[0].store, taken[0].allow_pull, taken[0].pull_hosts) == (store, pull, hosts)


def test_a_policy_that_forbids_a_named_model_is_told_at_the_start(
    hosts: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert freehold(["pull", "hf:org/repo"]) == 0
    policy = tmp_path / "policy.toml"
    policy.write_text('deny = ["apache-2.0"]\n')
    monkeypatch.setenv("FREEHOLD_POLICY", str(policy))
    with pytest.raises(PolicyError):
        ModelRegistry(ServerSettings(models=("hf:org/repo",), store=True))
