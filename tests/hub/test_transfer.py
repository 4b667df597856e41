# SPDX-License-Identifier: Apache-2.0
"""One file into the store while everything goes wrong that can: the right bytes, or an error and
nothing in the store."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.errors import CapacityError, DownloadError, IntegrityError
from freehold.hub.partial import journal_of
from freehold.hub.ranged_download import TransferLimits
from freehold.hub.remote import RemoteFile
from freehold.hub.store import Store
from freehold.hub.transfer import blob_key, fetch, present
from freehold.hub.web import Web, WebLimits
from model_server import (
    Fault,
    Handler,
    ModelServer,
    changed,
    claims_length,
    cut_after,
    endless,
    redirect,
    stall_after,
    status,
    zipped,
)

WEB = WebLimits(read_timeout=0.5, retries=3, first_pause=0.001, longest_pause=0.01)
PIECES = TransferLimits(connections=4, smallest_piece=64 << 10, write_size=8 << 10)
DATA = random.Random(1).randbytes(700_001)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        running.files["/m.gguf"] = (DATA, '"v1"')
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def remote(server: ModelServer, **changes: object) -> RemoteFile:
    values = {"name": "m.gguf", "size": len(DATA), "location": f"{server.url}/m.gguf",
              "sha256": SHA256} | changes  # fmt: skip
    return RemoteFile(**values)  # type: ignore[arg-type]


def get(file: RemoteFile, store: Store, limits: TransferLimits = PIECES) -> bytes:
    with Web(limits=WEB) as web:
        return fetch(file, store, web, limits=limits).path.read_bytes()


def nothing_is_listed(store: Store) -> bool:
    return not store.models() and not list((store.root / "blobs").glob("*"))


def test_pieces_come_by_several_connections(server: ModelServer, store: Store) -> None:
    seen: list[int] = []
    with Web(limits=WEB) as web:
        stored = fetch(remote(server), store, web, seen.append, PIECES)
    assert stored.path.read_bytes() == DATA
    assert stored.path == store.blob(SHA256)
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    asked = [r.headers["range"] for r in server.requests("m.gguf")]
    assert len(asked) == len(set(asked)) == -(-len(DATA) // (64 << 10))
    assert {p.suffix for p in (store.root / "partial").iterdir()} <= {".lock"}


def test_what_is_there_is_not_fetched_again(server: ModelServer, store: Store) -> None:
    assert get(remote(server), store) == get(remote(server, name="other.gguf"), store)
    count = len(server.requests("m.gguf"))
    get(remote(server), store)
    assert len(server.requests("m.gguf")) == count
    assert present(remote(server), store) == len(DATA)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537])
def test_files_of_any_length(server: ModelServer, store: Store, size: int) -> None:
    data = DATA[:size]
    server.files["/m.gguf"] = (data, '"v1"')
    file = remote(server, size=size, sha256=hashlib.sha256(data).hexdigest())
    assert get(file, store) == data


PASSING = {
    "resets": lambda: Fault("m.gguf", cut_after(40_000), times=20),
    "resets at once": lambda: Fault("m.gguf", cut_after(0), times=3),
    "stalls": lambda: Fault("m.gguf", stall_after(30_000, 0.8), times=2),
    "429": lambda: Fault("m.gguf", status(429, {"Retry-After": "0"}), times=3),
    "503": lambda: Fault("m.gguf", status(503), times=3),
    "retry at a date": lambda: Fault(
        "m.gguf", status(503, {"Retry-After": "Fri, 01 Jan 2021 00:00:00 GMT"}), times=2
    ),
    "retry nonsense": lambda: Fault("m.gguf", status(503, {"Retry-After": "soon"}), times=2),
    "bodies end early": lambda: Fault("m.gguf", changed(lambda b: b[: len(b) // 2]), times=6),
    "says more than it sends": lambda: Fault("m.gguf", claims_length(1 << 20), times=2, skip=1),
    "ranges go on beyond": lambda: Fault("m.gguf", changed(lambda b: b + bytes(999)), times=3),
    "ranges never end": lambda: Fault("m.gguf", endless(), times=3),
}


@pytest.mark.parametrize("fault", PASSING)
def test_faults_that_pass(server: ModelServer, store: Store, fault: str) -> None:
    server.faults.append(PASSING[fault]())
    assert get(remote(server), store) == DATA


def test_a_server_without_ranges(server: ModelServer, store: Store) -> None:
    server.ranges = False
    server.faults.append(Fault("m.gguf", cut_after(300_000), times=2, skip=1))
    assert get(remote(server), store) == DATA


def test_a_server_that_answers_with_other_ranges(server: ModelServer, store: Store) -> None:
    def shifted(handler: Handler, body: bytes, planned: int) -> bool:
        del planned
        part = DATA[7 : 7 + len(body)]
        span = f"bytes 7-{6 + len(part)}/{len(DATA)}"
        handler.head(206, len(part), {"Content-Range": span})
        handler.body(part)
        return True

    server.faults.append(Fault("m.gguf", shifted, times=1))
    assert get(remote(server), store) == DATA
    assert "range" not in server.seen[-1].headers  # after that, no range of it was asked for


def test_compression_is_named(server: ModelServer, store: Store) -> None:
    server.faults.append(Fault("m.gguf", zipped()))
    with pytest.raises(DownloadError, match="sends gzip"):
        get(remote(server), store)


FATAL = {
    "wrong bytes": (lambda: Fault("m.gguf", changed(lambda b: bytes(len(b)))), IntegrityError),
    "one wrong bit": (
        lambda: Fault("m.gguf", changed(lambda b: bytes([b[0] ^ 1]) + b[1:]), times=1),
        IntegrityError,
    ),
    "gzip": (lambda: Fault("m.gguf", zipped()), DownloadError),
    "416": (lambda: Fault("m.gguf", status(416), skip=1), IntegrityError),
    "404": (lambda: Fault("m.gguf", status(404)), DownloadError),
    "always 500": (lambda: Fault("m.gguf", status(500)), DownloadError),
    "always reset": (lambda: Fault("m.gguf", cut_after(100)), DownloadError),
    "no room to wait": (
        lambda: Fault("m.gguf", status(503, {"Retry-After": "86400"})),
        DownloadError,
    ),
    "redirect loop": (lambda: Fault("m.gguf", redirect("/m.gguf")), DownloadError),
    "redirect to a file": (
        lambda: Fault("m.gguf", redirect("file:///etc/passwd")),
        DownloadError,
    ),
    "redirect to nowhere": (lambda: Fault("m.gguf", redirect("http://")), DownloadError),
    "redirect with a password": (
        lambda: Fault("m.gguf", redirect("http://a:b@127.0.0.1/x")),
        DownloadError,
    ),
}


@pytest.mark.parametrize("fault", FATAL)
def test_faults_that_do_not_pass(server: ModelServer, store: Store, fault: str) -> None:
    make, kind = FATAL[fault]
    server.faults.append(make())
    with pytest.raises(kind) as caught:
        get(remote(server), store)
    assert "\n" not in caught.value.message
    assert nothing_is_listed(store)
    server.faults.clear()
    assert get(remote(server), store) == DATA


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_another_size_than_promised(server: ModelServer, store: Store, size: int) -> None:
    with pytest.raises(IntegrityError, match="promised"):
        get(remote(server, size=size), store)
    server.ranges = False
    with pytest.raises(IntegrityError, match="promised"):
        get(remote(server, size=size), store)
    assert nothing_is_listed(store)


def test_a_body_without_end(server: ModelServer, store: Store) -> None:
    server.ranges = False
    server.faults.append(Fault("m.gguf", endless()))
    with pytest.raises(IntegrityError, match="more bytes came"):
        get(remote(server), store)
    assert nothing_is_listed(store)
    assert sum(p.stat().st_size for p in (store.root / "partial").iterdir()) < 2 * len(DATA)


def interrupted(server: ModelServer, store: Store, file: RemoteFile) -> int:
    """Fetch until the server gives up for good; gives what is there then."""
    server.faults.append(Fault("m.gguf", status(500), skip=5))
    with pytest.raises(DownloadError):
        get(file, store)
    server.faults.clear()
    there = present(file, store)
    assert 0 < there < len(DATA)
    return there


def test_the_next_try_goes_on(server: ModelServer, store: Store) -> None:
    there = interrupted(server, store, remote(server))
    server.seen.clear()
    assert get(remote(server), store) == DATA
    spans = [r.headers["range"].removeprefix("bytes=").split("-") for r in server.seen]
    assert sum(int(end) - int(start) + 1 for start, end in spans) == len(DATA) - there


@pytest.mark.parametrize("damage", ["torn", "garbage", "other file", "beyond", "gone", "flipped"])
def test_a_damaged_rest_is_not_trusted(server: ModelServer, store: Store, damage: str) -> None:
    file = remote(server)
    interrupted(server, store, file)
    path = store.partial(blob_key(file))
    journal = journal_of(path)
    text = journal.read_text()
    if damage == "torn":
        journal.write_text(text + "0 6")
    elif damage == "garbage":
        journal.write_bytes(b"\xff\xfe{[" * 100)
    elif damage == "other file":
        journal.write_text(text.replace(SHA256, "0" * 64))
    elif damage == "beyond":
        journal.write_text(text + f"0 {len(DATA)}\n-5 3\n9 2\n")
        with path.open("r+b") as opened:
            opened.truncate(100)
    elif damage == "gone":
        path.unlink()
    else:
        with path.open("r+b") as opened:
            opened.write(bytes(5))
    assert get(file, store) == DATA


def test_lines_of_another_start_of_the_machine_count_as_far_as_they_were_flushed(
    server: ModelServer, store: Store
) -> None:
    file = remote(server)
    there = interrupted(server, store, file)
    journal = journal_of(store.partial(blob_key(file)))
    header, *lines = journal.read_text().splitlines()
    assert lines[0] == "flushed"
    header = header.replace('"boot": "', '"boot": "another')
    journal.write_text("\n".join([header, *lines]) + "\n")
    assert present(file, store) == 0
    journal.write_text("\n".join([header, *lines, "flushed"]) + "\n")
    assert present(file, store) == there
    assert get(file, store) == DATA


def test_a_file_that_changes_between_tries(server: ModelServer, store: Store) -> None:
    file = remote(server, sha256=None, validator='"v1"')
    interrupted(server, store, file)
    other = DATA[::-1]
    server.files["/m.gguf"] = (other, '"v2"')
    with pytest.raises(IntegrityError, match="another version"):
        get(file, store)
    assert nothing_is_listed(store)
    newer = remote(server, sha256=None, validator='"v2"')
    assert present(newer, store) == 0
    assert get(newer, store) == other


def test_git_digests_are_checked(server: ModelServer, store: Store) -> None:
    oid = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()
    with pytest.raises(IntegrityError, match="git digest"):
        get(remote(server, sha256=None, git_sha1="0" * 40), store)
    assert get(remote(server, sha256=None, git_sha1=oid), store) == DATA


def test_a_lie_about_the_size_of_a_known_digest(server: ModelServer, store: Store) -> None:
    get(remote(server), store)
    with pytest.raises(IntegrityError, match="promised"):
        get(remote(server, size=5), store)


def test_a_full_disk_keeps_what_came(
    server: ModelServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    written = 0
    pwrite = os.pwrite

    def limited(handle: int, data: bytes, offset: int) -> int:
        nonlocal written
        if written > 300_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written += len(data)
        return pwrite(handle, data, offset)

    monkeypatch.setattr("freehold.hub.partial.os.pwrite", limited)
    with pytest.raises(CapacityError, match="disk became full"):
        get(remote(server), store)
    monkeypatch.undo()
    assert present(remote(server), store) >= 300_000
    assert get(remote(server), store) == DATA


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a\\b", "", "a\0b", "c:x", "x/", "nul.gguf", "a/."]
)
def test_hostile_file_names(name: str) -> None:
    with pytest.raises(DownloadError):
        RemoteFile(name, 1, "https://h.example/x")


@pytest.mark.parametrize("digest", ["../../x", "A" * 64, "a" * 63, "sha256:" + "a" * 64, ""])
def test_hostile_digests(digest: str) -> None:
    with pytest.raises(DownloadError):
        RemoteFile("x", 1, "https://h.example/x", sha256=digest)


@pytest.mark.parametrize("size", [-1, 1 << 60])
def test_hostile_sizes(size: int) -> None:
    with pytest.raises(DownloadError):
        RemoteFile("x", size, "https://h.example/x")
