# SPDX-License-Identifier: Apache-2.0
"""Bundles: what goes in comes out, and whatever is not exactly a bundle is refused whole."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_files import add, model_of, sha256

from freehold.errors import CapacityError, FreeholdError, IntegrityError, StoreError
from freehold.hub import bundle
from freehold.hub.bundle_archive import archive_bytes
from freehold.hub.store import Store, StoredFile

FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000, "LICENSE": b"text"}


@pytest.fixture
def source(tmp_path: Path) -> Store:
    store = Store(tmp_path / "source")
    add(store, "hf:o/r", FILES, entry="", aliases=("small",))
    add(store, "other", {"m.gguf": b"GGUF", "LICENSE": b"text"}, licence_claim="mit")
    return store


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target")


@pytest.fixture
def packed(source: Store, tmp_path: Path) -> Path:
    bundle.export(source.models(), tmp_path / "b.tar")
    return tmp_path / "b.tar"


def nothing_in(store: Store) -> bool:
    """No model, no blob, no unfinished file."""
    parts = (store.root / part for part in ("blobs", "partial"))
    return store.models() == [] and not any(any(p.iterdir()) for p in parts if p.exists())


def test_models_come_out_as_they_went_in(source: Store, target: Store, packed: Path) -> None:
    added = bundle.read_into(target, packed)
    assert target.models() == added
    for model, before in zip(target.models(), source.models(), strict=True):
        assert (model.name, model.digest) == (before.name, before.digest)
        assert (model.licence_claim, model.aliases) == (before.licence_claim, before.aliases)
        assert model.problem() is None
        assert not model.adopted
    for name, data in FILES.items():
        assert (target.models()[0].path() / name).read_bytes() == data
    assert bundle.read_into(target, packed) == []


def test_the_same_models_make_the_same_bundle(source: Store, packed: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    again = bundle.export(source.models()[::-1], tmp_path / "again.tar", seen.append)
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()
    assert sum(seen) == again.size
    contents = json.dumps(json.loads(bundle_contents(packed)), ensure_ascii=False, indent=1) + "\n"
    assert packed.stat().st_size == archive_bytes(contents.encode(), again.blobs)


def bundle_contents(path: Path) -> bytes:
    with tarfile.open(path) as archive:
        member = archive.extractfile("freehold-bundle.json")
        assert member is not None
        return member.read()


def test_other_tools_read_it(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        names = archive.getnames()
        assert names[0] == "freehold-bundle.json"
        for name in names[1:]:
            member = archive.extractfile(name)
            assert member is not None
            assert sha256(member.read()) == name.removeprefix("blobs/")


def test_an_adopted_model_travels_with_its_files(tmp_path: Path, target: Store) -> None:
    theirs = tmp_path / "theirs.gguf"
    theirs.write_bytes(b"data")
    store = Store(tmp_path / "source")
    file = StoredFile("m.gguf", sha256(b"data"), 4, theirs, theirs.stat().st_mtime_ns)
    store.add(model_of((file,), "m", adopted=True))
    bundle.export(store.models(), tmp_path / "b.tar")
    assert str(theirs) not in bundle_contents(tmp_path / "b.tar").decode()
    (model,) = bundle.read_into(target, tmp_path / "b.tar")
    assert target.models()[0].path().read_bytes() == b"data"
    assert not model.adopted


def test_a_file_that_is_not_its_digest_is_not_exported(source: Store, tmp_path: Path) -> None:
    blob = source.blob(sha256(FILES["model.safetensors"]))
    assert blob is not None
    blob.chmod(0o644)
    blob.write_bytes(b"x" * 7000)
    with pytest.raises(StoreError, match="content"):
        bundle.export(source.models(), tmp_path / "b.tar")
    assert not list(tmp_path.glob("*.tar*"))
    assert not list(tmp_path.glob(".*"))


def test_the_digest_that_was_told_is_asked_for(target: Store, packed: Path) -> None:
    with pytest.raises(StoreError, match="digest"):
        bundle.read_into(target, packed, expected="0" * 64)
    assert nothing_in(target)
    assert bundle.read_into(target, packed, expected=bundle.look_into(packed).digest)


def test_another_model_of_the_name_is_not_replaced_unasked(target: Store, packed: Path) -> None:
    own = add(target, "other", {"m.gguf": b"mine"})
    alias = add(target, "mine", {"a.gguf": b"a"}, aliases=("small",))
    with pytest.raises(StoreError, match="another model"):
        bundle.read_into(target, packed)
    assert target.models() == [alias, own]
    target.remove("other")
    bundle.read_into(target, packed)
    assert target.find("small") == alias
    target.remove("other")
    add(target, "other", {"m.gguf": b"mine"})
    bundle.read_into(target, packed, replace_models=True)
    other = target.find("other")
    assert other is not None
    assert other.path().read_bytes() == b"GGUF"


@pytest.mark.parametrize("share", [0, 100, 512, 600, 3000, 0.5, 0.9, 0.9999])
def test_a_bundle_that_is_cut_off(target: Store, packed: Path, share: float) -> None:
    size = packed.stat().st_size
    os.truncate(packed, int(share * size) if 0 < share < 1 else int(share))
    with pytest.raises(FreeholdError):
        bundle.read_into(target, packed)
    assert target.models() == []
    assert not list(target.root.glob("partial/*"))


def test_wrong_bytes_in_a_file(target: Store, packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = data.index(b"weightsweights")
    data[at] ^= 1
    packed.write_bytes(data)
    with pytest.raises(IntegrityError):
        bundle.read_into(target, packed)
    assert target.models() == []
    assert target.blob(sha256(FILES["model.safetensors"])) is None


# -- archives that somebody made on purpose --------------------------------------------------------


def members(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as archive:
        found = []
        for info in archive.getmembers():
            member = archive.extractfile(info)
            assert member is not None
            found.append((info, member.read()))
        return found


def write(
    path: Path, listed: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT
) -> None:
    with tarfile.open(path, "w", format=form) as archive:
        for info, data in listed:
            archive.addfile(info, io.BytesIO(data))


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> Any:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    return info, data


def link(name: str, target: str, kind: bytes) -> Any:
    info, data = entry(name, kind=kind)
    info.linkname = target
    return info, data


HOSTILE: dict[str, Callable[[list[Any]], list[Any]]] = {
    "traversal": lambda m: [m[0], entry("../../evil", b"x"), *m[1:]],
    "absolute": lambda m: [m[0], entry("/etc/evil", b"x"), *m[1:]],
    "link": lambda m: [m[0], link(m[1][0].name, "/etc/passwd", tarfile.SYMTYPE), *m[2:]],
    "hard link": lambda m: [m[0], link(m[1][0].name, m[0][0].name, tarfile.LNKTYPE), *m[2:]],
    "device": lambda m: [m[0], entry(m[1][0].name, kind=tarfile.CHRTYPE), *m[2:]],
    "pipe": lambda m: [m[0], entry(m[1][0].name, kind=tarfile.FIFOTYPE), *m[2:]],
    "folder": lambda m: [m[0], entry("blobs", kind=tarfile.DIRTYPE), *m[1:]],
    "sparse": lambda m: [m[0], entry(m[1][0].name, m[1][1], tarfile.GNUTYPE_SPARSE), *m[2:]],
    "twice": lambda m: [*m[:2], *m[1:]],
    "contents twice": lambda m: [m[0], *m],
    "more": lambda m: [*m, entry("blobs/" + "0" * 64, b"x")],
    "missing": lambda m: [m[0], *m[2:]],
    "order": lambda m: [m[0], *m[:0:-1]],
    "no contents": lambda m: m[1:],
    "long name": lambda m: [m[0], entry("x" * 5000, b"x"), *m[1:]],
    "longer file": lambda m: [m[0], entry(m[1][0].name, m[1][1] + b"x"), *m[2:]],
    "empty": lambda m: [],
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_archives_of_another_make_are_refused(
    target: Store, packed: Path, change: Callable[[list[Any]], list[Any]]
) -> None:
    write(packed, change(members(packed)))
    before = set(packed.parent.iterdir())
    with pytest.raises(FreeholdError):
        bundle.read_into(target, packed)
    assert target.models() == []
    assert set(packed.parent.iterdir()) - before <= {target.root}


def test_pax_headers_are_not_read(target: Store, packed: Path) -> None:
    listed = members(packed)
    listed[1][0].pax_headers = {"comment": "x" * 10_000_000}
    write(packed, listed, tarfile.PAX_FORMAT)
    with pytest.raises(FreeholdError, match="should follow"):
        bundle.read_into(target, packed)


@pytest.mark.parametrize("how", ["gz", "xz", "zip", "text", "zeros", "nothing"])
def test_what_is_no_bundle(target: Store, packed: Path, how: str, tmp_path: Path) -> None:
    if how in ("gz", "xz"):
        with tarfile.open(packed, f"w:{how}") as archive:
            info, data = entry("freehold-bundle.json", bytes(1 << 20))
            archive.addfile(info, io.BytesIO(data))
    elif how == "zip":
        shutil.make_archive(str(tmp_path / "z"), "zip", target.root.parent / "source")
        packed = tmp_path / "z.zip"
    else:
        packed.write_bytes({"text": b"hello" * 1000, "zeros": bytes(10_240), "nothing": b""}[how])
    with pytest.raises(FreeholdError):
        bundle.read_into(target, packed)
    assert nothing_in(target)


def test_a_pipe_or_folder_is_no_bundle(target: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError):
            bundle.read_into(target, path)


def test_a_size_that_no_disk_has(target: Store, packed: Path) -> None:
    data = bundle_contents(packed).replace(b'"size": 7000', b'"size": 7000000000000000')
    write(packed, [entry("freehold-bundle.json", data)])
    with pytest.raises(CapacityError, match="free"):
        bundle.read_into(target, packed)
    assert nothing_in(target)


def test_contents_that_are_too_large_are_not_read(target: Store, packed: Path) -> None:
    info = tarfile.TarInfo("freehold-bundle.json")
    info.size = 1 << 40
    packed.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(FreeholdError, match="larger"):
        bundle.read_into(target, packed)


CONTENTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "format": lambda c: c.update(format="other"),
    "version": lambda c: c.update(version=2),
    "models": lambda c: c.update(models={}),
    "no models": lambda c: c.update(models=[]),
    "blobs": lambda c: c.update(blobs=None),
    "blob missing": lambda c: c["blobs"].pop(),
    "blob more": lambda c: c["blobs"].append({"sha256": "0" * 64, "size": 1}),
    "blob twice": lambda c: c["blobs"].append(c["blobs"][0]),
    "blob size": lambda c: c["blobs"][0].update(size=1),
    "blob form": lambda c: c["blobs"].append(1),
    "model form": lambda c: c["models"].append(1),
    "model twice": lambda c: c["models"].append(c["models"][0]),
    "alias twice": lambda c: c["models"][1].update(aliases=["hf:o/r"]),
    "file name": lambda c: c["models"][0]["files"][0].update(name="../../x"),
    "file absolute": lambda c: c["models"][0]["files"][0].update(name="/etc/passwd"),
    "file twice": lambda c: c["models"][0]["files"].append(c["models"][0]["files"][0]),
    "file case": lambda c: c["models"][0]["files"][1].update(name="CONFIG.JSON"),
    "file digest": lambda c: c["models"][0]["files"][0].update(sha256="../x"),
    "file path": lambda c: c["models"][0]["files"][0].update(path="/etc/passwd"),
    "adopted": lambda c: c["models"][0].update(adopted=True),
    "model name": lambda c: c["models"][0].update(name="a\u001b[2Jb"),
    "entry": lambda c: c["models"][0].update(entry="../x"),
}


@pytest.mark.parametrize("change", CONTENTS.values(), ids=CONTENTS)
def test_contents_that_lie_are_refused_before_any_file_is_read(
    target: Store, packed: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    listed = members(packed)
    content = json.loads(listed[0][1])
    change(content)
    write(packed, [entry("freehold-bundle.json", json.dumps(content).encode()), *listed[1:]])
    with pytest.raises(FreeholdError):
        bundle.look_into(packed)
    with pytest.raises(FreeholdError):
        bundle.read_into(target, packed)
    assert nothing_in(target)


def test_a_disk_that_fills_up(
    source: Store, target: Store, packed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CapacityError):
            bundle.read_into(target, packed)
        with pytest.raises(CapacityError):
            bundle.export(source.models(), tmp_path / "new.tar")
    assert target.models() == []
    assert not list(tmp_path.glob("*new.tar*"))
    assert len(bundle.read_into(target, packed)) == 2


def test_no_room_is_told_before_anything_is_written(
    target: Store, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    with pytest.raises(CapacityError, match="are free"):
        bundle.read_into(target, packed)
    assert nothing_in(target)
