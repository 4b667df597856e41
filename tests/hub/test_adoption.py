# SPDX-License-Identifier: Apache-2.0
"""Models that other programs keep: recorded without copying, and noticed when they change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import caches_on_disk as disk
import pytest
from caches_on_disk import COMMIT, MODEL, OLDER
from store_files import add, gguf, sha256, write_json

from freehold.errors import FreeholdError, MalformedFileError, StoreError
from freehold.hub import adoption, caches
from freehold.hub.caches import FoundModel, Skipped
from freehold.hub.store import Store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS",
        "LLAMA_CACHE", "FREEHOLD_MODELS", "XDG_DATA_HOME",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def store(home: Path) -> Store:
    return Store()


def found(what: str | None = None) -> list[FoundModel]:
    return [item for item in adoption.find(what) if isinstance(item, FoundModel)]


def skipped(what: str | None = None) -> list[Skipped]:
    return [item for item in adoption.find(what) if isinstance(item, Skipped)]


def fill(home: Path) -> None:
    """One model of every program, each another one."""
    disk.huggingface(
        home / ".cache/huggingface/hub", "org/hf-GGUF",
        {"hf-Q4_K_M.gguf": MODEL + b"hf", "README.md": b"---\nlicense: mit\n---\n"},
    )  # fmt: skip
    disk.ollama(home / ".ollama/models", "small:3b", {"model": MODEL + b"ol", "license": b"text"})
    lmstudio = home / ".lmstudio/models/pub/repo/model-Q8_0.gguf"
    lmstudio.parent.mkdir(parents=True)
    lmstudio.write_bytes(MODEL + b"lm")
    disk.llama_cpp(
        home / ".cache/llama.cpp", "org/cpp-GGUF", "latest", "cpp-Q5_K_M.gguf", MODEL + b"lc"
    )


NAMES = {
    "hf:org/hf-GGUF:Q4_K_M", "ollama:small:3b", "lmstudio:pub/repo:Q8_0", "hf:org/cpp-GGUF:Q5_K_M"
}  # fmt: skip


def test_nothing_is_there_on_a_bare_machine() -> None:
    assert list(adoption.find(None)) == []
    assert set(caches.tools()) == {"huggingface", "ollama", "lmstudio", "llama.cpp"}


def test_all_programs_models_are_adopted_and_nothing_is_touched(home: Path, store: Store) -> None:
    fill(home)
    before = {name: disk.everything_under(home / name) for name in (".cache", ".ollama")}
    models = [adoption.adopt(store, item)[0] for item in found()]
    assert {model.name for model in models} == NAMES
    assert store.models() == sorted(models, key=lambda model: model.name)
    for model in models:
        assert model.adopted
        assert model.path().read_bytes().startswith(b"GGUF")
        assert model.problem() is None
        assert all(file.sha256 == sha256(file.path.read_bytes()) for file in model.files)
        assert (model.licence_claim, model.size) == ("apache-2.0", sum(f.size for f in model.files))
    assert not (store.root / "blobs").exists()
    assert {name: disk.everything_under(home / name) for name in before} == before
    for model in models:
        assert store.remove(model.name) == 0
    assert {name: disk.everything_under(home / name) for name in before} == before


def test_adopting_twice_is_adopting_once(home: Path, store: Store) -> None:
    fill(home)
    assert [adoption.adopt(store, item)[1] for item in found()] == [True] * 4
    assert [adoption.unread_bytes(store, item) for item in found()] == [0] * 4
    assert [adoption.adopt(store, item)[1] for item in found()] == [False] * 4
    assert len(store.models()) == 4


def test_places_that_variables_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = home / "elsewhere"
    disk.huggingface(elsewhere / "hub", "o/a", {"a-Q4_0.gguf": MODEL})
    disk.ollama(elsewhere / "ollama", "b:c", {"model": MODEL})
    disk.llama_cpp(elsewhere / "llama", "o/d", "latest", "d.gguf", MODEL)
    monkeypatch.setenv("HF_HOME", str(elsewhere))
    monkeypatch.setenv("OLLAMA_MODELS", str(elsewhere / "ollama"))
    monkeypatch.setenv("LLAMA_CACHE", str(elsewhere / "llama"))
    assert {item.name for item in found()} == {"hf:o/a:Q4_0", "ollama:b:c", "hf:o/d/d.gguf"}
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "nowhere"))
    assert found("huggingface") == []


# -- Hugging Face -----------------------------------------------------------------------------


def test_every_quant_and_snapshot_of_a_repository(home: Path) -> None:
    cache = home / ".cache/huggingface/hub"
    names = ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "BF16/m-BF16-00001-of-00002.gguf",
             "BF16/m-BF16-00002-of-00002.gguf", "mmproj-F16.gguf", "imatrix.dat"]  # fmt: skip
    disk.huggingface(cache, "o/r", {name: MODEL + name.encode() for name in names})
    disk.huggingface(cache, "o/r", {"m-Q4_K_M.gguf": MODEL}, OLDER, ref="v1")
    models = {item.name: item for item in found("huggingface")}
    assert set(models) == {"hf:o/r:Q4_K_M", "hf:o/r:Q8_0", "hf:o/r:BF16", "hf:o/r:Q4_K_M@v1"}
    assert models["hf:o/r:BF16"].entry == "BF16/m-BF16-00001-of-00002.gguf"
    assert len(models["hf:o/r:BF16"].files) == 2
    assert models["hf:o/r:Q4_K_M@v1"].revision == OLDER
    assert models["hf:o/r:Q4_K_M"].revision == COMMIT


def test_a_directory_model_with_its_card(home: Path, store: Store) -> None:
    card = b"---\nlicense: other\nlicense_name: gemma\nbase_model:\n- google/base\n---\n# Card\n"
    files = {
        "config.json": b'{"model_type": "llama"}', "model.safetensors": disk.safetensors(),
        "README.md": card, "LICENSE": b"text", "modeling_custom.py": b"import os",
        "pytorch_model.bin": b"pickle", "tokenizer_config.json": b'{"chat_template": "{{ x }}"}',
    }  # fmt: skip
    disk.huggingface(home / ".cache/huggingface/hub", "o/dir", files)
    (item,) = found()
    model, _ = adoption.adopt(store, item)
    assert model.name == "hf:o/dir"
    assert model.entry == ""
    assert model.licence_claim == "other, gemma"
    assert model.base_models == ("google/base",)
    assert model.template_sha256 == sha256(b"{{ x }}")
    assert model.quant == "F32"
    shown = {path.name for path in model.path().iterdir()}
    assert shown == set(files) - {"modeling_custom.py", "pytorch_model.bin"}


@pytest.mark.parametrize("lost", ["shard", "split", "blob"])
def test_half_fetched_models_are_told_and_not_adopted(home: Path, lost: str) -> None:
    cache = home / ".cache/huggingface/hub"
    if lost == "shard":
        index = json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}).encode()
        disk.huggingface(cache, "o/r", {
            "config.json": b"{}", "a.safetensors": disk.safetensors(),
            "model.safetensors.index.json": index,
        })  # fmt: skip
    elif lost == "split":
        disk.huggingface(cache, "o/r", {"m-00001-of-00003.gguf": MODEL})
    else:
        folder = disk.huggingface(cache, "o/r", {"m.gguf": MODEL})
        (folder / "blobs" / sha256(MODEL)).rename(folder / "blobs" / f"{sha256(MODEL)}.incomplete")
    assert found() == []
    assert "not there" in skipped()[0].why


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../outside.gguf", "../../../other"])
def test_links_out_of_a_repository_are_not_followed(home: Path, target: str) -> None:
    cache = home / ".cache/huggingface/hub"
    folder = disk.huggingface(cache, "o/r", {"good.gguf": MODEL})
    (cache / "outside.gguf").write_bytes(MODEL)
    (folder / "snapshots" / COMMIT / "m.gguf").symlink_to(target)
    assert [item.entry for item in found()] == ["good.gguf"]
    assert [item.path.name for item in skipped()] == ["m.gguf"]


def test_loops_odd_names_and_strange_refs_do_no_harm(home: Path) -> None:
    cache = home / ".cache/huggingface/hub"
    folder = disk.huggingface(cache, "o/r", {"m.gguf": MODEL})
    snapshot = folder / "snapshots" / COMMIT
    (snapshot / "loop").symlink_to("..")
    (snapshot / "self.gguf").symlink_to("self.gguf")
    (snapshot / "con.gguf").symlink_to(f"../../blobs/{sha256(MODEL)}")
    (folder / "refs" / "evil").write_text("../../../etc")
    (folder / "refs" / "long").write_text("x" * 10_000)
    os.mkfifo(folder / "refs" / "pipe")
    (cache / "models--..--..").mkdir()
    (cache / "models--a--b" / "snapshots" / "..evil").mkdir(parents=True)
    assert [item.name for item in found()] == ["hf:o/r/m.gguf"]
    assert {item.path.name for item in skipped()} == {"self.gguf", "con.gguf"}


# -- Ollama -----------------------------------------------------------------------------------


def test_names_as_ollama_says_them(home: Path, store: Store) -> None:
    models = home / ".ollama/models"
    layers = {"model": MODEL, "template": b"{{ }}", "license": b"one", "license2": b"two"}
    disk.ollama(models, "llama3.2:3b", layers)
    disk.ollama(models, "mine:latest", {"model": MODEL}, namespace="me")
    disk.ollama(models, "repo:Q4_K_M", {"model": MODEL}, host="hf.co", namespace="org")
    names = {item.name: item for item in found()}
    assert set(names) == {
        "ollama:llama3.2:3b", "ollama:me/mine:latest", "ollama:hf.co/org/repo:Q4_K_M"
    }  # fmt: skip
    model, _ = adoption.adopt(store, names["ollama:llama3.2:3b"])
    stored = [file.name for file in model.files]
    assert stored == ["model.gguf", "ollama.template", "LICENSE", "LICENSE-2"]
    assert model.path().name == "model.gguf"


WEIGHTS = {"mediaType": disk.IMAGE + "model", "digest": "sha256:" + "0" * 64}
BAD_MANIFESTS: dict[str, object] = {
    "no layers": {}, "layers": {"layers": 1}, "layer": {"layers": [1]}, "none": {"layers": []},
    "digest": {"layers": [WEIGHTS | {"digest": "sha256:../../x", "size": 1}]},
    "size": {"layers": [WEIGHTS]},
    "gone": {"layers": [WEIGHTS | {"size": 1}]},
    "many": {"layers": [{}] * 65},
}  # fmt: skip


@pytest.mark.parametrize("content", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_bad_manifest_is_told_and_the_others_are_there(home: Path, content: object) -> None:
    models = home / ".ollama/models"
    disk.ollama(models, "good:1", {"model": MODEL})
    write_json(models / "manifests/registry.ollama.ai/library/bad/1", content)
    assert [item.name for item in found()] == ["ollama:good:1"]
    assert len(skipped()) == 1


def test_a_huge_manifest_is_not_read(home: Path) -> None:
    path = disk.ollama(home / ".ollama/models", "big:1", {"model": MODEL})
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert [item.path for item in skipped()] == [path]


@pytest.mark.parametrize("fault", ["gone", "short", "link", "adapter", "tensor"])
def test_blobs_that_are_not_what_the_manifest_says(home: Path, fault: str) -> None:
    models = home / ".ollama/models"
    more = {fault: b"x"} if fault in ("adapter", "tensor") else {}
    disk.ollama(models, "m:1", {"model": MODEL} | more)
    blob = models / "blobs" / f"sha256-{sha256(MODEL)}"
    if fault == "gone":
        blob.rename(blob.with_name(blob.name + "-partial"))
    elif fault == "short":
        blob.write_bytes(MODEL[:-1])
    elif fault == "link":
        blob.rename(home / "secret")
        blob.symlink_to(home / "secret")
    assert found() == []
    assert len(skipped()) == 1


# -- LM Studio, llama.cpp, plain paths -----------------------------------------------------------


@pytest.mark.parametrize("how", ["pointer", "settings", "older"])
def test_where_lmstudio_was_moved_to(home: Path, how: str) -> None:
    moved = home / "moved"
    models = moved / "models" if how == "pointer" else moved
    if how == "pointer":
        (home / ".lmstudio-home-pointer").write_text(f"{moved}\n")
    elif how == "settings":
        write_json(home / ".lmstudio/settings.json", {"downloadsFolder": str(moved)})
    else:
        models = home / ".cache/lm-studio/models"
    model = models / "pub/repo/m-Q4_0.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(MODEL)
    assert [item.name for item in found("lmstudio")] == ["lmstudio:pub/repo:Q4_0"]


def test_the_layout_of_newer_llama_cpp(home: Path) -> None:
    disk.huggingface(home / ".cache/llama.cpp", "o/r", {"r-Q4_0.gguf": MODEL})
    (item,) = found("llama.cpp")
    assert (item.name, item.tool, item.source) == ("hf:o/r:Q4_0", "llama.cpp", "huggingface")


def test_older_notes_and_unfinished_files_of_llama_cpp(home: Path) -> None:
    cache = home / ".cache/llama.cpp"
    cache.mkdir(parents=True)
    (cache / "a.gguf").write_bytes(MODEL)
    url = "https://huggingface.co/o/r/resolve/main/sub/a-Q6_K.gguf"
    write_json(cache / "a.gguf.json", {"url": url, "etag": "x"})
    (cache / "b.gguf").write_bytes(MODEL)
    (cache / "c.gguf.downloadInProgress").write_bytes(b"GG")
    short = disk.llama_cpp(cache, "o/d", "latest", "d.gguf", MODEL)
    short.write_bytes(MODEL[:-1])
    assert {item.name for item in found()} == {"hf:o/r:Q6_K", "llama.cpp:b"}
    assert [item.path for item in skipped()] == [short]


def test_a_path_of_ones_own(home: Path, store: Store) -> None:
    folder = home / "mine"
    folder.mkdir()
    (folder / "one-Q4_0.gguf").write_bytes(MODEL + b"1")
    (folder / "two-Q4_0.gguf").write_bytes(MODEL + b"2")
    (folder / "LICENSE").write_bytes(b"text")
    assert {item.name for item in found(str(folder))} == {
        "path:mine:Q4_0", "path:mine/two-Q4_0.gguf"
    }  # fmt: skip
    (item,) = found(str(folder / "two-Q4_0.gguf"))
    model, _ = adoption.adopt(store, item, name="second")
    assert store.find("second") == model
    assert model.path().read_bytes() == MODEL + b"2"
    (folder / "notes.txt").write_bytes(b"x")
    assert len(skipped(str(folder / "notes.txt"))) == 1
    with pytest.raises(StoreError, match="programs"):
        list(adoption.find("no-such-thing"))


def test_weights_may_be_linked_to_but_nothing_else(home: Path) -> None:
    folder = home / "mine"
    folder.mkdir()
    (home / "far.gguf").write_bytes(MODEL)
    (folder / "near.gguf").symlink_to(home / "far.gguf")
    (folder / "LICENSE").symlink_to("/etc/passwd")
    (item,) = found(str(folder))
    assert [file.path for file in item.files] == [home / "far.gguf"]


def test_another_programs_layout_is_seen_at_a_path(home: Path) -> None:
    disk.ollama(home / "disk/ollama", "m:1", {"model": MODEL})
    disk.huggingface(home / "disk/hub", "o/r", {"r-Q4_0.gguf": MODEL})
    disk.llama_cpp(home / "disk/llama", "o/c", "latest", "c-Q4_0.gguf", MODEL)
    names = [found(str(home / "disk" / part))[0].name for part in ("ollama", "hub", "llama")]
    assert names == ["ollama:m:1", "hf:o/r:Q4_0", "hf:o/c:Q4_0"]


# -- what goes wrong when adopting ---------------------------------------------------------------


def test_a_changed_or_lost_blob_is_noticed(home: Path, store: Store) -> None:
    disk.ollama(home / ".ollama/models", "m:1", {"model": MODEL})
    (item,) = found()
    adoption.adopt(store, item)
    blob = home / ".ollama/models/blobs" / f"sha256-{sha256(MODEL)}"
    blob.unlink()
    (model,) = store.models()
    assert "model.gguf" in (model.problem() or "")
    with pytest.raises(StoreError, match="adopt it again"):
        model.path()


def test_a_digest_that_lies_is_noticed_when_the_file_is_read(home: Path, store: Store) -> None:
    disk.ollama(home / ".ollama/models", "m:1", {"model": MODEL})
    blob = home / ".ollama/models/blobs" / f"sha256-{sha256(MODEL)}"
    blob.write_bytes(MODEL[:-1] + b"!")
    (item,) = found()
    with pytest.raises(StoreError, match="damaged"):
        adoption.adopt(store, item, rehash=True)
    assert store.models() == []


@pytest.mark.parametrize("data", [b"", b"GG", b"not a model at all", MODEL[:40]])
def test_what_is_no_model_is_not_adopted(home: Path, store: Store, data: bytes) -> None:
    (home / "m.gguf").write_bytes(data)
    (item,) = found(str(home / "m.gguf"))
    with pytest.raises(MalformedFileError):
        adoption.adopt(store, item)
    assert store.models() == []
    assert not any((store.root / "views").iterdir())


def test_an_adapter_is_no_model(home: Path, store: Store) -> None:
    data = gguf({"general.architecture": "llama", "general.type": "adapter"})
    (home / "lora.gguf").write_bytes(data)
    (item,) = found(str(home / "lora.gguf"))
    with pytest.raises(FreeholdError, match="adapter"):
        adoption.adopt(store, item)


def test_a_name_is_not_taken_from_another_model(home: Path, store: Store) -> None:
    add(store, "hf:org/cpp-GGUF:Q5_K_M", {"m.gguf": b"our own"})
    fill(home)
    (item,) = found("llama.cpp")
    with pytest.raises(StoreError, match="another model"):
        adoption.adopt(store, item)


def test_our_own_copy_of_the_same_files_is_kept(home: Path, store: Store) -> None:
    disk.llama_cpp(home / ".cache/llama.cpp", "o/r", "latest", "r-Q4_0.gguf", MODEL)
    own = add(store, "hf:o/r:Q4_0", {"o_r_r-Q4_0.gguf": MODEL})
    (item,) = found()
    assert adoption.adopt(store, item) == (own, False)


def test_what_the_program_fetched_anew_takes_the_place(home: Path, store: Store) -> None:
    models = home / ".ollama/models"
    disk.ollama(models, "m:1", {"model": MODEL})
    adoption.adopt(store, found()[0])
    disk.ollama(models, "m:1", {"model": MODEL + b"newer"})
    model, new = adoption.adopt(store, found()[0])
    assert new
    assert store.models() == [model]
    assert model.path().read_bytes() == MODEL + b"newer"
