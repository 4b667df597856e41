# SPDX-License-Identifier: Apache-2.0
"""Lines of batch files: sound ones are read, everything else is told by name and harms nobody."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest

from freehold.formats.batch_requests import (
    MAX_ID,
    MAX_LINE_BYTES,
    BatchRequest,
    LineFault,
    raw_lines,
    read_line,
)

URLS = ("/v1/chat/completions", "/v1/completions")
LINE: dict[str, Any] = {
    "custom_id": "größe-1", "method": "POST", "url": "/v1/completions",
    "body": {"model": "m", "prompt": "Hello \u00e9 \U0001f600 \"x\" \\", "n": 1, "stop": ["a"]},
}  # fmt: skip


def raw(**changes: Any) -> bytes:
    line = {key: value for key, value in {**LINE, **changes}.items() if value is not ...}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def test_a_sound_line() -> None:
    assert read_line(raw(), URLS) == BatchRequest("größe-1", "/v1/completions", LINE["body"])
    assert isinstance(read_line(raw(method=...), URLS), BatchRequest)
    assert isinstance(read_line(b" " + raw().rstrip(), URLS), BatchRequest)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"custom_id": ...}, "invalid_custom_id"),
        ({"custom_id": 7}, "invalid_custom_id"),
        ({"custom_id": ""}, "invalid_custom_id"),
        ({"custom_id": "x" * (MAX_ID + 1)}, "invalid_custom_id"),
        ({"method": "GET"}, "invalid_method"),
        ({"url": ...}, "mismatched_url"),
        ({"url": "/v1/embeddings"}, "mismatched_url"),
        ({"url": ["/v1/completions"]}, "mismatched_url"),
        ({"body": ...}, "invalid_body"),
        ({"body": [1]}, "invalid_body"),
        ({"body": {"stream": True}}, "invalid_body"),
        ({"extra": 1}, "unknown_field"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(changes: dict[str, Any], code: str) -> None:
    fault = read_line(raw(**changes), URLS)
    assert isinstance(fault, LineFault)
    assert fault.code == code


def test_every_torn_line_is_a_fault() -> None:
    whole = raw().rstrip()
    for size in range(len(whole)):
        fault = read_line(whole[:size], URLS)
        assert isinstance(fault, LineFault), size
        assert fault.code == "invalid_json_line"


def test_changed_bytes_are_faults_or_requests() -> None:
    chance = random.Random(7)
    for _ in range(5000):
        data = bytearray(raw())
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        assert isinstance(read_line(bytes(data), URLS), LineFault | BatchRequest)


@pytest.mark.parametrize("depth", [129, 200_000])
def test_deep_lines_take_no_stack(depth: int) -> None:
    body = b'{"a":' * depth + b"1" + b"}" * depth
    line = raw(body={"a": "HERE"}).replace(b'"HERE"', body)
    fault = read_line(line, URLS)
    assert isinstance(fault, LineFault)
    assert "nests deeper" in fault.message


def test_long_lines_are_passed_over() -> None:
    class Endless(io.RawIOBase):
        """A line of 40 MB that is never held whole, and a sound one behind it."""

        def __init__(self) -> None:
            self.left = 40_000_000
            self.most = 0
            self.rest = io.BytesIO(b"\n" + raw() + b" \n" + raw()[:9])

        def readline(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= MAX_LINE_BYTES + 1
            self.most = max(self.most, size)
            if self.left:
                count = min(size, self.left)
                self.left -= count
                return b"x" * count
            return self.rest.readline(size)

    found = list(raw_lines(Endless()))  # type: ignore[arg-type]
    assert [(number, line is None) for number, line in found] == [
        (1, True), (2, False), (4, False),
    ]  # fmt: skip
    assert found[2][1] == raw()[:9]
