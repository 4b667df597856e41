# SPDX-License-Identifier: Apache-2.0
"""Half a file and its journal: what is believed of them, whatever they hold."""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.hub.partial import Partial, boot_id, journal_of, merge, read_spans

SIZE = 1000
numbers = st.integers(0, 2 * SIZE)
lines = st.lists(st.tuples(numbers, numbers).map(lambda pair: b"%d %d\n" % pair), max_size=8)
journals = st.binary(max_size=300) | lines.map(b"".join)
spans = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, 200)).map(lambda s: (s[0], s[0] + s[1]))
)


@settings(deadline=None)
@given(spans)
def test_merging_keeps_every_byte_and_adds_none(found: list[tuple[int, int]]) -> None:
    merged = merge(found)
    assert {b for s, e in merged for b in range(s, e)} == {b for s, e in found for b in range(s, e)}
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(journal=journals, length=st.integers(0, 2 * SIZE))
def test_any_journal_is_survived(tmp_path: Path, journal: bytes, length: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(length))
    header = b'{"identity": "a", "size": 1000, "boot": "%s"}\n' % (boot_id() or "").encode()
    for text in (journal, header + journal, header + b"9" * 5000 + b" 1\n" + journal):
        journal_of(path).write_bytes(text)
        for start, end in read_spans(path, SIZE, "a"):
            assert 0 <= start < end <= min(SIZE, length)


def test_reopened_anywhere_it_goes_on(tmp_path: Path) -> None:
    rng = random.Random(3)
    data = rng.randbytes(SIZE)
    path = tmp_path / "x"
    for _ in range(60):
        with Partial(path, SIZE, "a") as part:
            for start, end in part.missing()[:2]:
                at = rng.randrange(start, end)
                part.write(at, data[at : min(at + rng.randrange(1, 40), end)])
    with Partial(path, SIZE, "a") as part:
        for start, end in part.missing():
            part.write(start, data[start:end])
        assert part.done == SIZE
    assert path.read_bytes() == data
    assert read_spans(path, SIZE, "b") == []
    assert read_spans(path, SIZE - 1, "a") == []


def test_threads_write_side_by_side(tmp_path: Path) -> None:
    data = random.Random(4).randbytes(64 * 100)
    with Partial(tmp_path / "x", len(data), "a") as part:

        def write(number: int) -> None:
            for at in range(number * 100, len(data), 800):
                part.write(at, data[at : at + 100])

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert part.missing() == []
    assert (tmp_path / "x").read_bytes() == data


def test_who_comes_after_it_was_closed_writes_nothing(tmp_path: Path) -> None:
    part = Partial(tmp_path / "x", 10, "a")
    part.close()
    with pytest.raises(OSError):
        part.write(0, b"late")
    assert (tmp_path / "x").read_bytes() == b""


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "x").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        Partial(tmp_path / "x", 10, "a")
    assert (tmp_path / "victim").read_bytes() == b"precious"
