# SPDX-License-Identifier: Apache-2.0
"""The store: whole things under their digests, whatever ends, breaks or races in between."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from store_files import add, model_of, put, sha256

from freehold.errors import CapacityError, IntegrityError, StoreError
from freehold.hub.store import Store, StoredFile


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_an_empty_store_is_no_error_and_makes_no_folder(store: Store) -> None:
    assert store.models() == []
    assert store.find("anything") is None
    assert store.blob("0" * 64) is None
    assert not store.root.exists()


def test_a_model_comes_back_as_it_was_added(store: Store) -> None:
    model = add(store, "hf:org/repo:Q4_K_M", {"model.gguf": b"GGUF", "LICENSE": b"free"})
    assert store.models() == [model]
    assert model.path().name == "model.gguf"
    assert model.path().read_bytes() == b"GGUF"
    assert (model.path().parent / "LICENSE").read_bytes() == b"free"
    assert model.size == 8


def test_a_directory_model_opens_its_folder(store: Store) -> None:
    model = add(store, "hf:o/r", {"config.json": b"{}", "sub/x.safetensors": b"x"}, entry="")
    assert {p.name for p in model.path().iterdir()} == {"config.json", "sub"}
    assert (model.path() / "sub" / "x.safetensors").read_bytes() == b"x"


def test_a_store_can_be_moved(store: Store, tmp_path: Path) -> None:
    add(store, "m", {"a/model.gguf": b"bytes"})
    store.root.rename(tmp_path / "elsewhere")
    moved = Store(tmp_path / "elsewhere").find("m")
    assert moved is not None
    assert moved.path().read_bytes() == b"bytes"
    assert moved.path().resolve().is_relative_to(tmp_path / "elsewhere")


def test_views_are_made_again(store: Store) -> None:
    model = add(store, "m", {"model.gguf": b"bytes"})
    link = model.path()
    link.unlink()
    link.symlink_to("/etc/passwd")
    assert model.path().read_bytes() == b"bytes"


def test_equal_files_lie_there_once(store: Store) -> None:
    add(store, "one", {"a.gguf": b"same"})
    add(store, "two", {"b.gguf": b"same"})
    assert [p.name for p in (store.root / "blobs").iterdir()] == [f"sha256-{sha256(b'same')}"]
    assert store.remove("one") == 0
    two = store.find("two")
    assert two is not None
    assert two.path().read_bytes() == b"same"
    assert store.remove("two") == 4
    assert list((store.root / "blobs").iterdir()) == []
    assert list((store.root / "views").iterdir()) == []


def test_aliases_find_a_model_and_belong_to_the_last(store: Store) -> None:
    first = add(store, "hf:o/a:Q4", {"a.gguf": b"a"}, aliases=("small", "old"))
    assert store.find("small") == first
    second = add(store, "hf:o/b:Q4", {"b.gguf": b"b"}, aliases=("small",))
    assert store.find("small") == second
    assert store.find("old") == replace(first, aliases=("old",))
    store.remove("small")
    assert store.find("hf:o/b:Q4") is None


def test_a_partial_file_is_never_listed(store: Store) -> None:
    store.partial("0" * 64).write_bytes(b"half")
    store.partial("https://example.org/a b").write_bytes(b"half")
    assert store.models() == []
    assert store.blob("0" * 64) is None
    assert {p.parent.name for p in (store.root / "partial").iterdir()} == {"partial"}


@pytest.mark.parametrize(
    ("data", "size"), [(b"wrong", 5), (b"right and more", 5), (b"rig", 5)], ids="abc"
)
def test_wrong_bytes_never_become_a_blob(store: Store, data: bytes, size: int) -> None:
    digest = sha256(b"right")
    partial = store.partial(digest)
    partial.write_bytes(data)
    with pytest.raises(IntegrityError):
        store.commit_blob(partial, digest, size)
    assert store.blob(digest) is None
    assert not partial.exists()


@pytest.mark.parametrize(
    "digest", ["../" * 5 + "etc", "A" * 64, "0" * 63, "0" * 64 + "\n", "", "sha256:" + "0" * 57]
)
def test_only_digests_name_blobs(store: Store, digest: str) -> None:
    with pytest.raises(StoreError):
        store.blob(digest)
    with pytest.raises(StoreError):
        store.commit_blob(store.partial("x"), digest, 0)
    assert store.partial(digest).parent == store.root / "partial"


def test_a_link_is_no_blob_and_cannot_be_committed(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    partial = store.partial("x")
    partial.symlink_to(secret)
    with pytest.raises(StoreError):
        store.commit_blob(partial, sha256(b"secret"), 6)
    (store.root / "blobs" / f"sha256-{sha256(b'secret')}").symlink_to(secret)
    assert store.blob(sha256(b"secret")) is None


@pytest.mark.parametrize(
    "name",
    [
        "../x", "/etc/passwd", "a/../../x", "a//b", "a\\..\\x", "C:x", "con.gguf", "x\0", "", ".",
        "a/", "x.", "x ", "a\u202eb", "e\u0301", "\ud800", "a/" * 9 + "b", "n" * 250, "a\nb", "x|y",
    ],
)  # fmt: skip
def test_files_stay_in_their_folder(store: Store, name: str) -> None:
    blob = put(store, "x", b"data")
    with pytest.raises(StoreError):
        store.add(model_of((replace(blob, name=name),)))
    assert store.models() == []


@pytest.mark.parametrize("names", [("a", "a"), ("A", "a"), ("a", "a/b"), ("ß", "SS")])
def test_two_names_are_never_one_file(store: Store, names: tuple[str, str]) -> None:
    blob = put(store, "x", b"data")
    with pytest.raises(StoreError):
        store.add(model_of(tuple(replace(blob, name=name) for name in names)))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""}, {"name": "a\nb"}, {"name": "-x"}, {"name": "n" * 513}, {"name": " x"},
        {"aliases": ("a\x1b[2J",)}, {"files": ()}, {"entry": "other"}, {"source": "somewhere"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_what_no_record_may_hold_is_refused(store: Store, changes: dict[str, object]) -> None:
    with pytest.raises(StoreError):
        store.add(replace(model_of((put(store, "x", b"data"),)), **changes))  # type: ignore[arg-type]
    assert store.models() == []


def test_files_must_be_there_when_a_model_is_added(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        store.add(model_of((StoredFile("x", "0" * 64, 4, tmp_path / "gone"),)))
    assert store.models() == []


RECORDS = {
    "empty": b"", "half": b'{"version": 1, "name": "bro', "list": b"[]",
    "binary": bytes(range(256)), "version": b'{"version": 2}', "deep": b"[" * 100_000,
    "twice": b'{"version": 1, "version": 1}',
    "huge": b" " * ((16 << 20) + 1),
}  # fmt: skip


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_stands_for_one_model(store: Store, record: bytes) -> None:
    good = add(store, "good", {"good.gguf": b"good"})
    add(store, "bad", {"bad.gguf": b"bad"})
    (path,) = [p for p in (store.root / "models").iterdir() if p.name.startswith("bad")]
    path.write_bytes(record)
    assert store.models() == [good]
    assert store.find("good") == good
    assert [d.path for d in store.damaged()] == [path]
    with pytest.raises(StoreError, match=str(path)):
        store.find("bad")
    store.remove("bad")
    assert store.damaged() == []
    assert store.models() == [good]


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1}, {"name": "other"}, {"files": {}}, {"files": [1]}, {"files": []},
        {"files": [{"name": "../x", "sha256": "0" * 64, "size": 1}]},
        {"files": [{"name": "x", "sha256": "../x", "size": 1}]},
        {"files": [{"name": "x", "sha256": "0" * 64, "size": -1}]},
        {"files": [{"name": "x", "sha256": "0" * 64, "size": True}]},
        {"files": [{"name": "x", "sha256": "0" * 64, "size": 1, "path": "relative"}]},
        {"files": [{"name": "x", "sha256": "0" * 64, "size": 1, "path": "/a\0"}]},
        {"aliases": "x"}, {"aliases": [1]}, {"adopted": 1}, {"entry": None}, {"quant": 4},
        {"base_models": ["x"] * 1001}, {"repository": "x" * 5000},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_with_a_wrong_field_is_damaged(store: Store, change: dict[str, object]) -> None:
    add(store, "model", {"x": b"data"})
    (path,) = (store.root / "models").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert store.models() == []
    assert len(store.damaged()) == 1


def test_the_blobs_of_a_damaged_record_stay(store: Store) -> None:
    add(store, "one", {"a.gguf": b"shared"})
    add(store, "two", {"b.gguf": b"shared"})
    (path,) = (store.root / "models").glob("two*.json")
    path.write_bytes(path.read_bytes()[:-20])
    assert store.remove("one") == 0
    assert store.blob(sha256(b"shared")) is not None


def test_a_lost_blob_is_told_and_not_opened(store: Store) -> None:
    model = add(store, "m", {"a.gguf": b"data"})
    blob = store.blob(sha256(b"data"))
    assert blob is not None
    assert model.problem() is None
    blob.unlink()
    assert store.models() == [model]
    assert "a.gguf" in (model.problem() or "")
    with pytest.raises(StoreError, match=r"a\.gguf"):
        model.path()


def test_a_file_of_another_program_is_told_when_it_changed(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.gguf"
    theirs.write_bytes(b"data")
    file = StoredFile("m.gguf", sha256(b"data"), 4, theirs, theirs.stat().st_mtime_ns)
    store.add(model_of((file,), "m", adopted=True))
    model = store.find("m")
    assert model is not None
    assert model.path().read_bytes() == b"data"
    theirs.write_bytes(b"atad")
    os.utime(theirs, ns=(1, 1))
    with pytest.raises(StoreError, match="written to"):
        model.path()
    assert store.remove("m") == 0
    assert theirs.exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_half(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    old = add(store, "m", {"a.gguf": b"old"})
    new = model_of((put(store, "a.gguf", b"new"),), "m")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    partial = store.partial("x")
    partial.write_bytes(b"more")
    with monkeypatch.context() as patched:
        patched.setattr(*((os, "fsync", full) if call == "fsync" else (Path, "replace", full)))
        with pytest.raises(CapacityError, match="full"):
            store.add(new)
        with pytest.raises(CapacityError, match="full"):
            store.commit_blob(partial, sha256(b"more"), 4)
    assert store.models() == [old]
    assert store.blob(sha256(b"more")) is None
    assert partial.read_bytes() == b"more"
    assert store.commit_blob(partial, sha256(b"more"), 4).read_bytes() == b"more"


def test_a_store_nobody_may_write_to_is_a_sentence(store: Store, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file, not a folder")
    with pytest.raises(StoreError):
        store.partial("x")
    with pytest.raises(StoreError):
        store.models()


WORKER = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from store_files import add
from freehold.hub.store import Store
store = Store(Path({root!r}))
for turn in range(8):
    with store.transfer():
        add(store, f"{{sys.argv[1]}}-{{turn}}", {{"a": b"shared", "b": sys.argv[1].encode()}})
    if turn % 2:
        store.remove(f"{{sys.argv[1]}}-{{turn}}")
    assert not store.damaged()
"""


def test_two_processes_share_a_store(store: Store) -> None:
    code = WORKER.format(paths=[str(Path(__file__).parent)], root=str(store.root))
    workers = [subprocess.Popen([sys.executable, "-c", code, who]) for who in ("x", "y")]
    assert [worker.wait() for worker in workers] == [0, 0]
    names = {f"{who}-{turn}" for who in "xy" for turn in range(0, 8, 2)}
    assert {model.name for model in store.models()} == names
    assert all(model.problem() is None for model in store.models())
    for name in names:
        store.remove(name)
    assert list((store.root / "blobs").iterdir()) == []


def test_a_partial_belongs_to_one_process_at_a_time(store: Store) -> None:
    partial = store.partial("x")
    with store.lock_of(partial) as first, store.lock_of(partial, wait=False) as second:
        assert (first, second) == (True, False)
    with store.lock_of(partial, wait=False) as third:
        assert third
