# SPDX-License-Identifier: Apache-2.0
"""Lock files pin models to the byte; verification finds every byte that changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_files import add, model_of, sha256

from freehold.errors import MalformedFileError
from freehold.hub import lock_file, verification
from freehold.hub.lock_file import LockedModel
from freehold.hub.store import Store, StoredFile

FILE = StoredFile("m.gguf", sha256(b"data"), 4, Path("/m.gguf"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "b", {"b.gguf": b"b", "LICENSE": b"l"}, template_sha256="0" * 64)
    add(store, "a", {"a.gguf": b"a"}, revision=None, quant=None, licence_claim=None)
    licences: list[tuple[str, ...]] = [("apache-2.0", "llama3.2"), ()]
    pairs = zip(store.models(), licences, strict=True)
    locked = [lock_file.lock_of(model, ids) for model, ids in pairs]
    text = lock_file.write(reversed(locked))
    assert lock_file.read(text.encode(), "x") == locked
    assert lock_file.write(locked) == text
    assert str(tmp_path) not in text
    assert [lock_file.differences(each, each) for each in locked] == [[], []]


PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(PLAIN, PLAIN)
def test_any_text_survives(claim: str, repository: str) -> None:
    model = lock_file.lock_of(model_of((FILE,), licence_claim=claim, repository=repository))
    assert lock_file.read(lock_file.write([model]).encode(), "x") == [model]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"revision": "b" * 40}, "revision"), ({"template_sha256": "0" * 64}, "template_sha256"),
        ({"licence_claim": "other"}, "licence_claim"), ({"repository": "x/y"}, "repository"),
        ({"files": (replace(FILE, sha256="0" * 64),)}, "m.gguf has the digest"),
        ({"files": (replace(FILE, name="n.gguf"),)}, "m.gguf is missing"),
        ({"files": (FILE, replace(FILE, name="n.gguf"))}, "n.gguf is not in the lock file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_every_difference_is_told(change: dict[str, object], what: str) -> None:
    model = model_of((FILE,))
    other = replace(model, **change)  # type: ignore[arg-type]
    found = lock_file.differences(lock_file.lock_of(model), lock_file.lock_of(other))
    assert any(what in line for line in found)


def test_by_which_program_it_came_is_no_difference() -> None:
    model = model_of((FILE,))
    other = replace(model, source="llama.cpp", adopted=True, added_at="x", aliases=("y",))
    assert lock_file.differences(lock_file.lock_of(model), lock_file.lock_of(other)) == []


def test_a_licence_that_came_to_light_is_a_difference() -> None:
    before, now = (lock_file.lock_of(model_of((FILE,)), ids) for ids in ((), ("llama3.2",)))
    assert lock_file.differences(before, now) == ["licences are llama3.2, locked none"]


BAD = {
    "empty": "", "binary": "\0", "toml": "= 1", "version": "version = 2",
    "model": "version = 1\nmodel = 1",
    "no name": "version = 1\n[[model]]\n[[model.file]]\nname = 'x'\nsize = 1\nsha256 = 'y'",
    "no files": "version = 1\n[[model]]\nname = 'x'", "deep": "x = " + "[" * 100_000,
    "tables": "version = 1\nmodel = " + "{a=" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_lock_file_is_one_sentence(text: str) -> None:
    with pytest.raises(MalformedFileError, match=r"^lock:"):
        lock_file.read(text.encode(), "lock")


def good_text() -> str:
    return lock_file.write([LockedModel("m", "url", "r", "f", {"f": ("0" * 64, 1)})])


@pytest.mark.parametrize(
    ("old", "new"),
    [('"f"\nsha', '"../f"\nsha'), ("0" * 64, "../" + "0" * 61), ("size = 1", 'size = "1"'),
     ('name = "m"', 'name = "\\u001b"'), ("size = 1", "size = 1\nmore = 1\n[[model.file]]")],
    ids=["name", "digest", "size", "model", "second"],
)  # fmt: skip
def test_names_and_digests_are_checked(old: str, new: str) -> None:
    assert lock_file.read(good_text().encode(), "lock")
    assert old in good_text()
    with pytest.raises(MalformedFileError):
        lock_file.read(good_text().replace(old, new).encode(), "lock")


def test_a_model_twice_is_refused() -> None:
    text = good_text()
    with pytest.raises(MalformedFileError, match="twice"):
        lock_file.read((text + text[text.index("[[model]]") :]).encode(), "lock")


# -- verification ---------------------------------------------------------------------------------


def test_every_byte_is_read_and_shared_files_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "a", {"x": b"shared", "y": b"a"})
    add(store, "b", {"x": b"shared", "y": b"bb"})
    read: list[int] = []
    assert verification.verify(store.models(), read.append) == []
    assert sum(read) == verification.total_bytes(store.models()) == 6 + 1 + 2


@pytest.mark.parametrize("what", ["changed", "short", "gone", "folder"])
def test_a_fault_names_model_and_file(tmp_path: Path, what: str) -> None:
    store = Store(tmp_path)
    add(store, "good", {"x": b"good"})
    add(store, "bad", {"fine": b"fine", "x": b"data"})
    blob = store.blob(sha256(b"data"))
    assert blob is not None
    blob.chmod(0o644)
    if what in ("gone", "folder"):
        blob.unlink()
    if what == "folder":
        blob.mkdir()
    elif what != "gone":
        blob.write_bytes(b"dat!" if what == "changed" else b"d")
    (fault,) = verification.verify(store.models())
    assert (fault.model, fault.file) == ("bad", "x")
