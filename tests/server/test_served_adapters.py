# SPDX-License-Identifier: Apache-2.0
"""`base:adapter` behind the endpoints: dialects know nothing of it, clients ask for a model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from live_server import LiveServer, live_server

import tiny_adapters
import tiny_chat
from freehold import LLM, SamplingParams
from freehold.async_llm import AsyncLLM
from freehold.cli.main import run
from freehold.errors import InvalidParameterError, MalformedFileError, ModelNotFoundError
from freehold.server.models.memory import memory_need
from freehold.server.models.registry import ModelRegistry
from freehold.server.settings import ServerSettings

ENGINE = {"threads": 1, "max_num_seqs": 8, "context_length": 256}
HELLO = [{"role": "user", "content": "Hello"}]
PARAMS = SamplingParams(temperature=0.0, max_tokens=12)
NAMES = ("tiny", "tiny:one", "tiny:two")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    model = tiny_chat.write(folder / "tiny.gguf")
    return {
        "tiny": model,
        "one": tiny_adapters.write_for(model, folder / "one.gguf", seed=1),
        "two": tiny_adapters.write_for(model, folder / "two.gguf", seed=2, rank=3),
    }


@pytest.fixture(scope="module")
def expected(files) -> dict[str, str]:
    adapters = {name: files[name] for name in ("one", "two")}
    with LLM(files["tiny"], adapters=adapters, **ENGINE) as llm:
        answers = llm.chat([HELLO] * 3, PARAMS, adapter=[None, "one", "two"])
        alone = [llm.chat(HELLO, PARAMS, adapter=name).text for name in (None, "one", "two")]
    texts = dict(zip(NAMES, (answer.text for answer in answers), strict=True))
    assert list(texts.values()) == alone
    assert len(set(alone)) == 3
    return texts


def settings_of(files: dict[str, Path], **more: Any) -> ServerSettings:
    adapters = (f"one={files['one']}", f"tiny:two={files['two']}")
    fields = {"models": (str(files["tiny"]),), "adapters": adapters, "engine": ENGINE, **more}
    return ServerSettings(**fields)


@pytest.fixture(scope="module")
def served(files) -> Iterator[LiveServer]:
    with live_server(settings_of(files)) as running:
        yield running


def test_every_name_is_listed_and_found(served) -> None:
    with openai.OpenAI(base_url=served.url + "/v1", api_key="unused") as client:
        assert tuple(model.id for model in client.models.list()) == NAMES
        assert client.models.retrieve("tiny:two").id == "tiny:two"


def test_answers_are_the_library_s_in_every_company(served, expected) -> None:
    """All names at once, streamed and not, in three dialects."""

    async def ask() -> list[tuple[str, str, str]]:
        client = openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="unused", max_retries=0)
        chat = client.chat.completions
        llama = ollama.AsyncClient(host=served.url)
        claude = anthropic.AsyncAnthropic(base_url=served.url, api_key="unused", max_retries=0)

        async def whole(name: str) -> tuple[str, str, str]:
            answer = await chat.create(model=name, messages=HELLO, temperature=0, max_tokens=12)
            return name, answer.model, answer.choices[0].message.content

        async def streamed(name: str) -> tuple[str, str, str]:
            stream = await chat.create(
                model=name, messages=HELLO, temperature=0, max_tokens=12, stream=True
            )
            chunks = [chunk async for chunk in stream]
            return name, chunks[0].model, "".join(c.choices[0].delta.content or "" for c in chunks)

        async def other(name: str) -> tuple[str, str, str]:
            answer = await claude.messages.create(
                model=name, messages=HELLO, max_tokens=12, extra_body={"temperature": 0}
            )
            return name, answer.model, answer.content[0].text

        async def third(name: str) -> tuple[str, str, str]:
            options = {"temperature": 0, "num_predict": 12}
            answer = await llama.chat(name, HELLO, options=options)
            return name, answer.model, answer.message.content

        asked = [way(name) for way in (whole, streamed, other, third) for name in NAMES]
        async with client, claude, llama._client:
            return await asyncio.gather(*asked)

    for name, model, text in asyncio.run(ask()):
        assert (model, text) == (name, expected[name])


def test_completions_scores_and_vectors_are_the_adapter_s(served, files) -> None:
    with LLM(files["tiny"], adapters={"one": files["one"]}, **ENGINE) as llm:
        text = llm.generate("Once", PARAMS, adapter="one").text
        scores = llm.score("Once upon", adapter="one")
        vector = llm.embed("Once", adapter="one")[0]
        assert (vector != llm.embed("Once")[0]).any()
    with openai.OpenAI(base_url=served.url + "/v1", api_key="unused", max_retries=0) as client:
        answer = client.completions.create(
            model="tiny:one", prompt="Once", temperature=0, max_tokens=12
        )
        assert (answer.model, answer.choices[0].text) == ("tiny:one", text)
        echo = client.completions.create(
            model="tiny:one", prompt="Once upon", echo=True, logprobs=0, max_tokens=0
        )
        assert echo.choices[0].logprobs.token_logprobs[1:] == pytest.approx(scores.tolist())
        found = client.embeddings.create(model="tiny:one", input="Once", encoding_format="float")
        assert found.data[0].embedding == pytest.approx(vector.tolist())


def test_an_adapter_that_is_not_there(served) -> None:
    body = {"model": "tiny:three", "messages": HELLO}
    answer = httpx.post(served.url + "/v1/chat/completions", json=body)
    assert answer.status_code == 404
    assert "tiny, tiny:one, tiny:two" in answer.json()["error"]["message"]


def test_metrics_tell_answers_by_adapter_and_memory_once(served, expected) -> None:
    body = {"model": "tiny:one", "messages": HELLO, "max_tokens": 1}
    assert httpx.post(served.url + "/v1/chat/completions", json=body).status_code == 200
    text = httpx.get(served.url + "/metrics").text
    assert 'freehold_generated_tokens_total{key="",model="tiny:one"}' in text
    assert 'freehold_model_bytes{model="tiny"}' in text
    assert 'freehold_model_bytes{model="tiny:one"}' not in text


# -- the registry ------------------------------------------------------------------------------


def test_adapters_come_and_go_with_their_model_and_count_to_its_memory(files) -> None:
    async def work() -> None:
        registry = ModelRegistry(settings_of(files))
        plain = memory_need(str(files["tiny"]), ENGINE)
        need = plain.with_adapters([str(files["one"]), str(files["two"])])
        for _ in range(2):
            async with registry.lease("tiny:one") as model:
                assert (model.name, model.state, model.base.name) == ("tiny:one", "loaded", "tiny")
                assert model.base.users == model.users == 1
                llm = model.loaded.llm
                assert llm.adapters == ("one", "two")
                own = llm.nbytes - llm.model.weight_bytes() - llm.engine.kv_bytes
                assert own == need.weights - plain.weights > 0
                assert registry.memory_used == llm.nbytes
            assert await registry.unload("tiny:two")
            assert registry.find("tiny:one").state == "unloaded"
        assert registry.find("tiny").loads == 2
        await registry.close()

    asyncio.run(work())


def test_names_are_looked_at_before_anything_is_loaded(files) -> None:
    def refused(adapters: tuple[str, ...], **more: Any) -> str:
        with pytest.raises((InvalidParameterError, ModelNotFoundError)) as info:
            ModelRegistry(settings_of(files, adapters=adapters, **more))
        return str(info.value)

    path = str(files["one"])
    assert "NAME=PATH" in refused((path,))
    assert "NAME=PATH" in refused((f"one={''}",))
    assert "another meaning" in refused((f"one={path}", f"tiny:one={path}"))
    assert "another meaning" in refused((f"latest={path}",))
    assert "letters" in refused((f"o/ne={path}",))
    assert "'large'" in refused((f"large:one={path}",))
    two = {"models": (f"a={files['tiny']}", f"b={files['tiny']}")}
    assert "MODEL:NAME=PATH" in refused((f"one={path}",), **two)
    registry = ModelRegistry(settings_of(files, adapters=(f"b:one={path}",), **two))
    assert [model.name for model in registry.models()] == ["a", "b", "b:one"]
    pinned = ModelRegistry(settings_of(files, pinned=("tiny:one",)))
    assert pinned.find("tiny").pinned


def test_a_broken_adapter_is_told_to_whoever_asks(files, tmp_path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(files["one"].read_bytes()[:-5000])

    async def work() -> None:
        registry = ModelRegistry(settings_of(files, adapters=(f"bad={broken}",)))
        with pytest.raises(MalformedFileError, match="broken"):
            async with registry.lease("tiny:bad"):
                pass
        assert registry.memory_used == 0
        await registry.close()

    asyncio.run(work())


# -- the library -------------------------------------------------------------------------------


def test_adapters_are_loaded_and_taken_away_while_requests_run(files, expected) -> None:
    async def text(model: AsyncLLM, ids: list[int], adapter: str | None) -> str:
        async for event in model.stream(ids, PARAMS, adapter=adapter):
            if event.completion is not None:
                return event.completion.text
        raise AssertionError

    async def work() -> None:
        model = AsyncLLM(LLM(files["tiny"], **ENGINE))
        ids = model.llm.chat_ids(HELLO)
        with pytest.raises(InvalidParameterError, match="there are: none"):
            await text(model, ids, "one")
        running = asyncio.create_task(text(model, ids, None))
        await model.load_adapter("one", files["one"])
        adapted = model.under("one")
        answers = [asyncio.create_task(text(adapted, ids, None)) for _ in range(2)]
        await asyncio.sleep(0)  # they have been handed over
        await model.unload_adapter("one")
        assert await running == expected["tiny"]
        assert [await answer for answer in answers] == [expected["tiny:one"]] * 2
        assert model.llm.adapters == ()
        with pytest.raises(InvalidParameterError, match="'one'"):
            await model.unload_adapter("one")
        await model.load_adapter("one", files["two"])
        assert await text(adapted, ids, None) == expected["tiny:two"]
        scores = [await m.score(ids) for m in (model, adapted)]
        vectors = [await m.embed([ids]) for m in (model, adapted)]
        assert (scores[0] != scores[1]).all()
        assert (vectors[0] != vectors[1]).any()
        model.close()

    asyncio.run(work())


def test_prompts_under_an_adapter_are_not_kept_on_disk(files, tmp_path) -> None:
    ids = [5 + i % 90 for i in range(400)]
    options = {**ENGINE, "context_length": 512, "snapshot_dir": tmp_path}

    def ask(adapter: str | None) -> tuple[tuple[int, ...], int, int]:
        with LLM(files["tiny"], adapters={"one": files["one"]}, **options) as llm:
            answer = llm.generate(ids, PARAMS, adapter=adapter)
        kept = sum(path.is_file() for path in tmp_path.rglob("*"))
        return answer.token_ids, answer.cached_tokens, kept

    first, cached, empty = ask("one")
    assert cached == 0
    plain, cached, kept = ask(None)
    assert (cached, kept > empty) == (0, True)
    assert ask(None)[:2] == (plain, 384)
    assert ask("one") == (first, 0, kept)
    assert first != plain


def test_names_of_adapters_in_the_library(files) -> None:
    with LLM(files["tiny"], adapters={"one": files["one"]}, **ENGINE) as llm:
        before = llm.nbytes
        llm.load_adapter("two", files["two"])
        assert llm.nbytes > before
        for wrong in ("one", "", "a:b", "-x", "é", "x" * 65):
            with pytest.raises(InvalidParameterError):
                llm.load_adapter(wrong, files["two"])
        with pytest.raises(InvalidParameterError, match="2 adapters for 3 prompts"):
            llm.generate(["a", "b", "c"], PARAMS, adapter=["one", "two"])
        with pytest.raises(InvalidParameterError, match="'three'"):
            llm.chat(HELLO, PARAMS, adapter="three")
        answers = llm.generate(["a", "a"], PARAMS, adapter=["one", None])
        assert answers[0].token_ids != answers[1].token_ids
        assert (llm.logits([1, 2], adapter="one") != llm.logits([1, 2])).all()


def test_freehold_run(files, expected, capsys) -> None:
    args = ["run", str(files["tiny"]), "Hello", "--temperature", "0", "--max-tokens", "12"]
    args += ["--threads", "1"]
    assert run([*args, "--adapter", str(files["one"])]) == 0
    assert capsys.readouterr().out.rstrip("\n") == expected["tiny:one"].rstrip("\n")
    assert run([*args, "--adapter", str(files["tiny"])]) == 2
    assert "is no adapter" in capsys.readouterr().err
    assert run(["run", str(files["one"]), "Hello"]) == 2
    assert "is an adapter and no model" in capsys.readouterr().err
