# SPDX-License-Identifier: Apache-2.0
"""Whatever a body holds, it is read or refused: forms, items of responses, lines of batches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from freehold.server.batches.lines import Journal, scan
from freehold.server.failures import RequestError
from freehold.server.files.disk import Quota
from freehold.server.files.multipart import Form, read_form
from freehold.server.files.store import FileStore
from freehold.server.openai.responses_request import ResponsesBody, read
from freehold.server.openai.responses_store import ResponseStore

PIECES = [b"", b"\0", b"\r\n", b"--b", b"\r\n\r\n", b'"', b"\xff"]
HEAD = "multipart/form-data; boundary=b"


def parse(body: bytes, cuts: list[int], limit: int = 10_000) -> tuple[Form, bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
        for start, end in pairwise(places):
            yield body[start:end]

    taken = bytearray()
    work = read_form(HEAD, chunks(), taken.extend, file_field="file", max_bytes=limit)
    return asyncio.run(work), bytes(taken)


def form(parts: list[tuple[str, bytes]]) -> bytes:
    body = b""
    for name, value in parts:
        more = '; filename="a.jsonl"' if name == "file" else ""
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
        body += head.encode() + value + b"\r\n"
    return body + b"--b--\r\n"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=20))
def test_a_form_is_the_same_however_it_is_cut(data, cuts):
    data = data.replace(b"\r\n--b", b"")
    read, taken = parse(form([("purpose", b"batch"), ("file", data), ("x", b"y")]), cuts)
    assert taken == data
    assert read.fields == {"purpose": "batch", "x": "y"}
    assert read.filename == "a.jsonl"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_broken_form_is_refused(data):
    whole = form([("purpose", b"batch"), ("file", b"content\r\n--"), ("x", b"y")])
    body = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(st.sampled_from(PIECES))
        body[at : at + data.draw(st.integers(0, 9))] = piece
    cuts = data.draw(st.lists(st.integers(0, 500), max_size=5))
    with suppress(RequestError):
        parse(bytes(body), cuts)


def test_a_form_without_end_is_not_read_on():
    seen = 0

    async def forever() -> AsyncIterator[bytes]:
        nonlocal seen
        yield form([("purpose", b"batch")])
        while True:  # behind the end, where a parser looks no more
            seen += 1000
            yield b"x" * 1000

    work = read_form(HEAD, forever(), lambda _: None, file_field="file", max_bytes=5000)
    with pytest.raises(RequestError, match="5,000 bytes"):
        asyncio.run(work)
    assert seen < 200_000


TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(
    ["message", "function_call", "function_call_output", "reasoning", "item_reference", "x", None]
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "refusal", "input_image", 3])},
    optional={"text": TEXT | JSON, "refusal": TEXT | JSON, "annotations": JSON, "more": JSON},
)
CONTENT = TEXT | st.lists(PART | JSON, max_size=3) | JSON
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": KINDS | JSON, "role": st.sampled_from(["user", "assistant", "system", 1, None]),
        "content": CONTENT, "id": TEXT | JSON, "call_id": TEXT | JSON, "name": TEXT | JSON,
        "arguments": st.sampled_from(["{}", "{", "[1]", '"x"']) | JSON, "output": CONTENT,
        "summary": st.lists(PART, max_size=2) | JSON, "status": JSON, "other": JSON,
    },
)  # fmt: skip
TOOL = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["function", "mcp"]) | JSON, "name": TEXT | JSON,
                  "parameters": JSON, "strict": JSON, "function": JSON},
)  # fmt: skip
BODY = st.fixed_dictionaries(
    {"model": st.just("m"), "input": TEXT | st.lists(ITEM, max_size=4) | JSON},
    optional={
        "instructions": TEXT | JSON, "tools": st.lists(TOOL, max_size=3) | JSON,
        "tool_choice": st.sampled_from(["auto", "none", "required", "x"]) | JSON
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["function", "allowed_tools", "x"])},
            optional={"name": TEXT | JSON, "tools": st.lists(TOOL, max_size=2) | JSON,
                      "mode": st.sampled_from(["auto", "required"]) | JSON}),
        "text": st.fixed_dictionaries({}, optional={"format": JSON, "verbosity": JSON}) | JSON,
        "reasoning": JSON, "metadata": st.dictionaries(TEXT, TEXT | JSON, max_size=2),
        "previous_response_id": TEXT, "include": JSON, "background": JSON, "store": JSON,
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(BODY)
def test_any_body_of_a_response_is_read_or_refused(raw: dict[str, Any]):
    store = ResponseStore(max_bytes=10_000, max_count=10, max_age=60.0)
    try:
        body = ResponsesBody.model_validate(raw)
        job = read(body, "", store, recommended=False)
    except (RequestError, ValidationError):
        return
    json.dumps(job.writer.response, allow_nan=False).encode()
    assert job.request.messages is not None
    for message in job.request.messages:
        assert isinstance(message["content"], str)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=30) | JSON.map(lambda v: json.dumps(v).encode()), max_size=6))
def test_any_file_is_scanned(tmp_path_factory, lines):
    path: Path = tmp_path_factory.mktemp("scan") / "lines"
    path.write_bytes(b"\n".join(lines))
    found = scan(path, "/v1/x")
    assert found.errors or len(found)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_journal_is_opened(tmp_path_factory, data):
    path: Path = tmp_path_factory.mktemp("journal") / "journal"
    whole = json.dumps({"line": 1, "status": 200, "body": {}}).encode() + b"\n"
    path.write_bytes(whole + data)
    journal = Journal(path)
    journal.append({"line": 2, "status": 200, "body": {}})
    assert {1, 2} <= set(journal.places)
    assert journal.read(2)["line"] == 2
    journal.close()


def test_leftovers_of_a_crash_are_swept_away(tmp_path):
    store = FileStore(tmp_path, Quota(1000))
    kept = store.begin("")
    kept.write(b"abc")
    record = kept.commit("a", "batch")
    broken = store.begin("")
    broken.write(b"half")
    (tmp_path / "file-000000000000000000000000.data").write_bytes(b"no record")
    (tmp_path / "file-111111111111111111111111.json").write_text("{}")
    (tmp_path / "file-222222222222222222222222.json").write_text('{"file_id": "../../x"}')
    broken._file.close()
    again = FileStore(tmp_path, Quota(1000))
    assert [file.file_id for file in again.of("")] == [record.file_id]
    assert again.quota.used == 3
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".data", ".json"]
