# SPDX-License-Identifier: Apache-2.0
"""What a person may call a model, and where that leads."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.errors import ModelNotFoundError, StoreError
from freehold.hub.store import Store, StoredFile, StoredModel
from freehold.model_names import find_among, find_stored, resolve_model


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("FREEHOLD_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return Store()


def put(store: Store, name: str, repository: str, quant: str | None, **more: object) -> Path:
    """A model of one file that holds its own name; gives where it opens."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    partial = store.partial(digest)
    partial.write_bytes(name.encode())
    size = len(name.encode())
    file = StoredFile("m.gguf", digest, size, store.commit_blob(partial, digest, size))
    store.add(
        StoredModel(
            name, "huggingface", repository, "a" * 40, quant, (file,), "m.gguf", None, (), None,
            "2026-01-01T00:00:00Z", False, **more,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    found = store.find(name)
    assert found is not None
    return found.path()


SPELLINGS = [
    "hf:org/repo:Q4_K_M", "hf:org/repo:q4_k_m", "hf:org/repo", "hf:Org/Repo",
    "hf.co/org/repo:Q4_K_M", "https://huggingface.co/org/repo", "mine", "llama3.2:3b",
]  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_finds_the_model(store: Store, name: str) -> None:
    path = put(store, "hf:org/repo:Q4_K_M", "org/repo", "Q4_K_M", aliases=("mine", "llama3.2:3b"))
    assert resolve_model(name) == path
    assert find_among(name, store.models()) == find_stored(name)
    assert find_among(f"{name}x", store.models()) is None


def test_the_tag_latest_need_not_be_said(store: Store) -> None:
    path = put(store, "ollama:small:latest", "library/small", None)
    assert resolve_model("ollama:small") == path


def test_a_file_of_the_working_folder_does_not_take_a_name(store: Store) -> None:
    path = put(store, "hf:org/repo:Q4_K_M", "org/repo", "Q4_K_M", aliases=("mine",))
    Path("mine").write_bytes(b"other")
    assert resolve_model("mine") == path
    assert resolve_model("./mine") == Path("mine")
    assert resolve_model(Path("mine")) == Path("mine")


def test_several_quants_are_asked_about(store: Store) -> None:
    put(store, "hf:org/repo:Q4_K_M", "org/repo", "Q4_K_M")
    put(store, "hf:org/repo:Q8_0", "org/repo", "Q8_0")
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model("hf:org/repo")
    assert "hf:org/repo:Q8_0" in (caught.value.hint or "")
    assert resolve_model("hf:org/repo:q8_0").read_bytes() == b"hf:org/repo:Q8_0"


def test_a_name_of_the_catalogue_finds_a_repository_it_knows(store: Store) -> None:
    from freehold.catalogue.catalogue import get

    (repository, *_) = get("llama3.2:3b").gguf_repos
    path = put(store, f"hf:{repository}:Q4_K_M", repository, "Q4_K_M")
    assert resolve_model("llama3.2:3b") == path
    assert find_stored("llama3.2:1b") is None


@pytest.mark.parametrize(
    "name", ["hf:org/repo:Q8_0", "ollama:small", "https://example.org/m.gguf", "llama3.2:3b"]
)
def test_what_could_be_fetched_says_so(store: Store, name: str) -> None:
    put(store, "hf:org/repo:Q4_K_M", "org/repo", "Q4_K_M")
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model(name)
    assert caught.value.hint == f"`freehold pull {name}` fetches it"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("seedlin", "seedling"), ("llama3.2:3", "llama3.2:3b"), ("own-modle", "own-model"),
     ("tiny:1", "ollama:tiny:1")],
)  # fmt: skip
def test_a_slip_is_guessed_at(store: Store, name: str, meant: str) -> None:
    put(store, "own-model", "x", None)
    put(store, "ollama:tiny:1", "library/tiny", None)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model(name)
    assert caught.value.hint == f"did you mean {meant}?"


def test_a_damaged_model_is_not_passed_over(store: Store) -> None:
    path = put(store, "mine", "x", None)
    path.resolve().unlink()
    with pytest.raises(StoreError, match=r"m\.gguf"):
        resolve_model("mine")
    (record,) = (store.root / "models").iterdir()
    record.write_bytes(b"{")
    with pytest.raises(StoreError, match=record.name):
        resolve_model("mine")


@pytest.mark.parametrize("name", ["models/x", "./x", "../x", "/x/y", "x.gguf", "a b/c", "a/b:c"])
def test_paths_stay_paths(name: str) -> None:
    assert resolve_model(name) == Path(name)


def test_a_path_costs_no_look_into_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "__init__", lambda *_: pytest.fail("the store was opened"))
    for name in ("./x", "/x", "x.gguf", "some/where/x.safetensors"):
        assert resolve_model(name) == Path(name)


def test_without_a_home_there_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FREEHOLD_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", "")

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert find_stored("anything") is None
    with pytest.raises(ModelNotFoundError):
        resolve_model("anything")


def test_copies_under_other_names_leave_no_choice(store: Store) -> None:
    put(store, "hf:org/repo:Q4_K_M", "bartowski/Llama-3.2-3B-Instruct-GGUF", "Q4_K_M")
    (model,) = store.models()
    store.add(replace(model, name="mine"))
    assert find_stored("llama3.2:3b") is not None
    put(store, "hf:org/repo:Q8_0", "bartowski/Llama-3.2-3B-Instruct-GGUF", "Q8_0")
    with pytest.raises(ModelNotFoundError, match="3 models"):
        find_stored("llama3.2:3b")
