# SPDX-License-Identifier: Apache-2.0
"""Models of the store: their records, their cards and texts, and the policy before they load."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import tiny_chat
from freehold import LLM
from freehold.cli.main import run
from freehold.errors import PolicyError
from freehold.hub.store import Store, StoredFile, StoredModel
from freehold.licensing import facts_of

APACHE = (Path(__file__).parents[2] / "LICENSE").read_bytes()
OSI = 'allow = ["osi"]'


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> bytes:
    return tiny_chat.write(tmp_path_factory.mktemp("weights") / "m.gguf").read_bytes()


def stored(name: str, contents: dict[str, bytes], **changes) -> StoredModel:
    """A model in the store of this test's home."""
    store = Store()
    files = []
    for file, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        partial = store.partial(digest)
        with store.lock_of(partial):
            partial.write_bytes(data)
            files.append(
                StoredFile(file, digest, len(data), store.commit_blob(partial, digest, len(data)))
            )
    fields = {
        "source": "huggingface", "repository": "org/repo", "revision": "a" * 40, "quant": "F32",
        "entry": "m.gguf", "licence_claim": None, "base_models": (), "template_sha256": None,
        "added_at": "2026-12-01T00:00:00Z", "adopted": False,
    }  # fmt: skip
    store.add(StoredModel(name=name, files=tuple(files), **(fields | changes)))
    found = store.find(name)
    assert found is not None
    return found


def test_the_record_counts_where_the_file_is_silent(weights, policy) -> None:
    model = stored("hf:org/repo", {"m.gguf": weights}, licence_claim="llama3.2")
    assert facts_of(model).licences == ("llama3.2",)
    assert facts_of("hf:org/repo").licences == ("llama3.2",)
    policy(OSI)
    # By name and by the path that the name leads to.
    for target in (model.path(), str(model.path())):
        with pytest.raises(PolicyError) as caught:
            LLM(target, backend="null")
        assert caught.value.reason["claims"] == ["llama3.2"]


def test_base_models_of_the_record_bind(weights) -> None:
    model = stored(
        "hf:org/repo", {"m.gguf": weights}, licence_claim="mit",
        base_models=("meta-llama/Llama-3.1-8B",),
    )  # fmt: skip
    assert facts_of(model).licences == ("mit", "llama3.1")


def test_the_place_it_came_from_counts(weights) -> None:
    model = stored(
        "hf:mistralai/Codestral-22B-v0.1", {"m.gguf": weights}, licence_claim="apache-2.0",
        repository="mistralai/Codestral-22B-v0.1",
    )  # fmt: skip
    facts = facts_of(model)
    assert facts.licences == ("mnpl-0.1",)
    assert facts.licence_source == "catalogue"
    assert any("claims Apache" in note for note in facts.notes)


def test_names_of_another_registry_are_copies_of_what_they_name(weights, capsys) -> None:
    model = stored(
        "ollama:llama3.2:3b", {"m.gguf": weights}, source="ollama", repository="library/llama3.2",
        revision="sha256:" + "b" * 64, aliases=("llama3.2:3b",),
    )  # fmt: skip
    facts = facts_of(model)
    assert facts.licences == ("llama3.2",)
    assert facts.licence_source == "metadata-claim"
    assert facts.family == "llama"
    assert run(["notice", "ollama:llama3.2:3b", "--json"]) == 0
    (component,) = json.loads(capsys.readouterr().out)["components"]
    assert "externalReferences" not in component  # Ollama's names are no addresses of the Hub


def test_texts_and_cards_beside_a_stored_file_are_read(weights) -> None:
    card = b"---\nlicense: apache-2.0\nbase_model: google/gemma-3-4b-it\n---\n"
    model = stored(
        "hf:org/repo", {"m.gguf": weights, "LICENSE": APACHE, "README.md": card},
        licence_claim="apache-2.0",
    )  # fmt: skip
    facts = facts_of(model)
    assert facts.licences == ("apache-2.0", "gemma")
    assert facts.licence_source == "text"


def test_notice_is_about_the_whole_store_unless_told(weights, capsys, tmp_path) -> None:
    stored("hf:org/a", {"m.gguf": weights, "LICENSE": APACHE}, repository="org/a")
    stored("hf:org/b", {"m.gguf": weights}, repository="org/b", licence_claim="llama3.3")
    assert run(["notice", "-o", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    assert "Llama 3.3" in err
    assert "Apache" not in err  # its text came along
    bill = (tmp_path / "out" / "bom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    components = {each["name"]: each for each in json.loads(bill)["components"]}
    assert set(components) == {"hf:org/a", "hf:org/b"}
    assert components["hf:org/b"]["version"] == "a" * 40
    assert components["hf:org/b"]["hashes"][0]["content"] == hashlib.sha256(weights).hexdigest()
    assert {each["name"] for each in components["hf:org/a"]["components"]} == {"m.gguf", "LICENSE"}
    assert (tmp_path / "out" / "LICENSE.a.apache-2.0.txt").read_bytes() == APACHE
