# SPDX-License-Identifier: Apache-2.0
"""What nobody needs is found, told, and freed; what somebody may need stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from store_files import add, model_of, put, sha256

from freehold.errors import StoreError
from freehold.hub import garbage
from freehold.hub.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def littered(store: Store) -> None:
    """A model, and one thing of every kind that nobody needs."""
    add(store, "kept", {"kept.gguf": b"kept"})
    put(store, "orphan", b"orphan")
    store.partial("0" * 64).write_bytes(b"half")
    (store.root / "models" / ".kept.json.abcd.partial").write_bytes(b"{")
    view = store.root / "views" / "gone"
    view.mkdir()
    (view / "x").symlink_to("/nowhere")


def test_an_absent_store_has_no_garbage(store: Store) -> None:
    assert garbage.find(store) == []
    assert not store.root.exists()


def test_what_is_found_goes_and_nothing_else(store: Store) -> None:
    littered(store)
    found = garbage.find(store)
    assert sorted((item.kind, item.size) for item in found) == [
        ("blob", 6), ("left over", 1), ("unfinished transfer", 4), ("view", 0)
    ]  # fmt: skip
    assert garbage.collect(store, found) == 11
    assert garbage.find(store) == []
    (kept,) = store.models()
    assert kept.path().read_bytes() == b"kept"


def test_unfinished_transfers_can_be_kept(store: Store) -> None:
    littered(store)
    found = garbage.find(store, keep_unfinished=True)
    assert "unfinished transfer" not in {item.kind for item in found}
    garbage.collect(store, found)
    assert store.partial("0" * 64).read_bytes() == b"half"


def test_nothing_is_freed_while_somebody_fetches(store: Store) -> None:
    littered(store)
    found = garbage.find(store)
    with store.transfer(), pytest.raises(StoreError, match="fetched"):
        garbage.collect(store, found)
    assert store.blob(sha256(b"orphan")) is not None


def test_what_came_into_use_since_it_was_found_stays(store: Store) -> None:
    file = put(store, "late.gguf", b"late")
    found = garbage.find(store)
    store.add(model_of((file,), "late"))
    assert garbage.collect(store, found) == 0
    assert store.blob(file.sha256) is not None


def test_removing_while_somebody_fetches_leaves_blobs_to_gc(store: Store) -> None:
    add(store, "m", {"m.gguf": b"data"})
    with store.transfer():
        assert store.remove("m") == 0
        assert store.blob(sha256(b"data")) is not None
    assert garbage.collect(store, garbage.find(store)) == 4


def test_a_damaged_record_keeps_what_it_names(store: Store) -> None:
    add(store, "m", {"m.gguf": b"data"})
    (record,) = (store.root / "models").glob("*.json")
    record.write_bytes(record.read_bytes()[:-30])
    assert [item for item in garbage.find(store) if item.kind == "blob"] == []
    record.write_bytes(b"\0" * ((16 << 20) + 1))
    with pytest.raises(StoreError, match="too large"):
        garbage.find(store)
    store.remove(record.stem)
    assert {item.kind for item in garbage.find(store)} == {"blob", "view"}


def test_a_view_that_is_being_made_stays_for_an_hour(store: Store) -> None:
    add(store, "m", {"m.gguf": b"data"})
    view = store.root / "views" / ".abc.1234.partial"
    view.mkdir()
    assert garbage.find(store) == []
    past = time.time() - 4000
    os.utime(view, (past, past))
    assert [item.path for item in garbage.find(store)] == [view]


def test_links_in_the_store_are_unlinked_and_not_followed(store: Store, tmp_path: Path) -> None:
    add(store, "m", {"m.gguf": b"data"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    (store.root / "partial" / "link").symlink_to(outside)
    (store.root / "views" / "link").symlink_to(outside)
    (store.root / "blobs" / "link").symlink_to(outside / "precious")
    assert garbage.collect(store, garbage.find(store)) == 0
    assert (outside / "precious").exists()
    assert garbage.find(store) == []
