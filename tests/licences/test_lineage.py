# SPDX-License-Identifier: Apache-2.0
"""Which licences bind: texts, origins, parents and claims against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from freehold.licences.lineage import trace
from freehold.licences.metadata import Claims, claims_of, repository_of
from freehold.licences.model_card import front_matter
from freehold.licences.origins import origin_by_name, origin_of
from freehold.licensing import facts_of

APACHE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
LLAMA31 = "meta-llama/Llama-3.1-8B-Instruct"


def card(**keys) -> Claims:
    return claims_of(keys)


@pytest.mark.parametrize(
    ("repository", "claims", "bound"),
    [
        # the publisher's own: what is known counts, whatever the card says
        ("meta-llama/Llama-3.1-8B", card(license="mit"), {"llama3.1"}),
        ("mistralai/Codestral-22B-v0.1", card(license="apache-2.0"), {"mnpl-0.1"}),
        # copies under another name
        ("x/Codestral-22B-v0.1-GGUF", card(license="apache-2.0"), {"mnpl-0.1"}),
        ("x/mistralai_Codestral-22B-v0.1-i1-GGUF", card(), {"mnpl-0.1"}),
        ("x/codestral-q4", card(license="apache-2.0", base_model="mistralai/Codestral-22B-v0.1",
                                base_model_relation="quantized"), {"mnpl-0.1"}),
        ("x/Qwen2.5-3B-Instruct-Q4_K_M-GGUF", card(license="apache-2.0"), {"qwen-research"}),
        # a link that says more than the word beside it
        ("x/coder", card(license="apache-2.0",
                         license_link="https://mistral.ai/licenses/MNPL-0.1.md"),
         {"apache-2.0", "mnpl-0.1"}),
        # an older word on what was made from a later version
        ("x/tuned", card(license="llama3", base_model=LLAMA31), {"llama3.1"}),
        ("x/tuned", card(license="llama3", base_model=[LLAMA31, "meta-llama/Llama-2-7b-hf"]),
         {"llama3.1", "llama2"}),
        # own terms on top of the parent's
        ("x/tuned", card(license="mit", base_model=LLAMA31), {"mit", "llama3.1"}),
        ("x/tuned", card(license="cc-by-nc-4.0", base_model="Qwen/Qwen3-8B"),
         {"cc-by-nc-4.0", "apache-2.0"}),
        ("x/merge", card(license="apache-2.0", base_model=["Qwen/Qwen3-8B", "google/gemma-3-4b-it"],
                         base_model_relation="merge"), {"apache-2.0", "gemma"}),
        ("x/adapter", card(base_model=LLAMA31, base_model_relation="adapter"), {"llama3.1"}),
        ("x/tuned", card(license="apache-2.0", base_model="x/unheard-of"),
         {"apache-2.0", "unknown"}),
        ("x/tuned", card(license="apache-2.0", base_model="y/Llama-3.1-8B-abliterated"),
         {"apache-2.0", "llama3.1"}),
        # words that mean nothing
        ("x/y", card(license="other"), {"unknown"}),
        ("x/y", card(license="other", license_name="my-own-terms"), {"unknown"}),
        ("x/y", card(license="other", license_name="mrl"), {"mrl-0.1"}),
        ("x/y", card(license="other", license_link="https://ai.google.dev/gemma/terms"), {"gemma"}),
        ("x/y", card(license=["mit", "apache-2.0"]), {"mit", "apache-2.0"}),
        ("x/y", card(), {"unknown"}),
        (None, card(license="apache-2.0"), {"apache-2.0"}),
    ],
)  # fmt: skip
def test_who_is_believed(repository, claims, bound) -> None:
    assert set(trace(claims, repository=repository).licences) == bound


def test_a_claim_that_contradicts_is_told() -> None:
    found = trace(card(license="apache-2.0"), repository="x/Codestral-22B-v0.1-GGUF")
    assert found.claims == ("apache-2.0",)
    assert any("claims Apache License 2.0" in note for note in found.notes)
    assert found.source == "metadata-claim"


def test_the_text_counts_before_the_claim() -> None:
    found = trace(card(license="mit"), texts=[APACHE])
    assert (found.licences, found.source) == (("apache-2.0",), "text")


def test_a_text_that_contradicts_the_origin_adds_to_it() -> None:
    found = trace(Claims(), repository="deepseek-ai/DeepSeek-V3", texts=[APACHE])
    assert set(found.licences) == {"apache-2.0", "deepseek"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"general.license": "apache-2.0"}, {"licences": ("apache-2.0",)}),
        ({"general.license": "other", "general.license.name": "mrl",
          "general.license.link": "https://mistral.ai/licenses/MRL-0.1.md"},
         {"licences": ("mrl",), "links": ("https://mistral.ai/licenses/MRL-0.1.md",)}),
        ({"general.base_model.count": 1,
          "general.base_model.0.repo_url": "https://huggingface.co/" + LLAMA31},
         {"parents": (LLAMA31,)}),
        ({"general.base_model.count": 1, "general.base_model.0.name": "Llama 3.1 8B Instruct",
          "general.base_model.0.organization": "Meta Llama"},
         {"parents": ("Meta-Llama/Llama-3.1-8B-Instruct",)}),
        ({"general.name": "Codestral 22B v0.1"}, {"names": ("Codestral 22B v0.1",)}),
        ({"general.license": 5, "general.base_model.count": "x", "general.name": ["a"]}, {}),
        ({"general.base_model.count": 2**40, "general.license": "x" * 10_000}, {}),
    ],
)  # fmt: skip
def test_keys_of_gguf(keys, expected) -> None:
    assert claims_of({"general.architecture": "llama", **keys}) == Claims(**expected)


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("https://huggingface.co/a/b", "a/b"),
        ("https://huggingface.co/a/b/tree/main", "a/b"),
        ("hf.co/a/b", None),
        ("a/b", "a/b"),
        ("a", None),
        ("https://evil.example/a/b", None),
        ("../../etc/passwd", None),
        ("a/b\nc/d", None),
        (None, None),
        ("x" * 1000 + "/y", None),
    ],
)
def test_addresses_of_repositories(text, repository) -> None:
    assert repository_of(text) == repository


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("license: mit", {"license": "mit"}),
        ("license: 'mit' \nbase_model: \"a/b\"", {"license": "mit", "base_model": "a/b"}),
        ("base_model:\n- a/b\n- c/d\nlicense: mit", {"base_model": ["a/b", "c/d"],
                                                    "license": "mit"}),
        ("base_model: [a/b, c/d]", {"base_model": ["a/b", "c/d"]}),
        ("tags:\n- license\nlicense: mit # short", {"license": "mit"}),
        ("tags:\n  license: mit", {}),
        ("widget:\n- text: license", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_heads_of_cards(body, expected) -> None:
    assert front_matter(f"---\n{body}\n---\n# Title\nlicense: gpl") == expected
    assert front_matter(body) == {}


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("bartowski/Llama-3.2-3B-Instruct-GGUF", "Llama 3.2"),
        ("unsloth/Llama-3.2-11B-Vision-Instruct-bnb-4bit", "Llama 3.2 Vision"),
        ("TheBloke/Mistral-7B-Instruct-v0.2-AWQ", "Mistral 7B"),
        ("x/Devstral-Small-2-24B-Instruct-2512-GGUF", "Devstral Small"),
        ("x/Devstral-2-123B-Instruct-2512-FP8", "Devstral 2 123B"),
        ("x/gemma-4-12b-it-UD-Q4_K_XL.gguf", "Gemma 4"),
        ("x/my-own-model", None),
        ("", None),
        ("a/" + "-q4" * 10_000, None),
    ],
)
def test_copies_are_known_by_name(name, title) -> None:
    found = origin_by_name(name)
    assert (found.title if found else None) == title


def test_versions_of_a_family_are_told_apart() -> None:
    for repository, licence in {
        "mistralai/Mistral-Small-Instruct-2409": "mrl-0.1",
        "mistralai/Mistral-Small-24B-Instruct-2501": "apache-2.0",
        "mistralai/Mistral-Large-Instruct-2411": "mrl-0.1",
        "mistralai/Mistral-Large-3-675B-Instruct-2512": "apache-2.0",
        "Qwen/Qwen2.5-3B": "qwen-research",
        "Qwen/Qwen2.5-32B": "apache-2.0",
        "google/gemma-3n-E4B-it": "gemma",
        "google/gemma-4-E4B-it": "apache-2.0",
        "deepseek-ai/DeepSeek-V3": "deepseek",
        "deepseek-ai/DeepSeek-V3.1": "mit",
    }.items():
        origin = origin_of(repository)
        assert origin is not None
        assert origin.licences == (licence,), repository


def test_a_directory_is_read_with_its_card_and_its_texts(tmp_path) -> None:
    import json

    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    facts = facts_of(tmp_path)
    assert facts.licences == ("unknown",)
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\nbase_model: {LLAMA31}\n---\n")
    facts = facts_of(str(tmp_path))
    assert facts.licences == ("mit", "llama3.1")
    assert facts.upstream == (LLAMA31,)
    (tmp_path / "LICENSE").write_text(APACHE)
    facts = facts_of(tmp_path)
    assert facts.licences == ("apache-2.0", "llama3.1")
    assert facts.licence_source == "text"


POLICY = "Llama 3.2 Acceptable Use Policy\n\nMeta is committed to promoting safe and fair use …"


def test_a_policy_beside_a_licence_that_speaks_of_one_is_no_riddle() -> None:
    title = "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n\nLlama 3.2 Version Release Date: …"
    found = trace(Claims(), repository="meta-llama/Llama-3.2-3B", texts=[title, POLICY])
    assert found.licences == ("llama3.2",)


def test_a_policy_beside_a_licence_that_restricts_nothing_is_one() -> None:
    found = trace(Claims(), texts=[APACHE, POLICY])
    assert found.licences == ("apache-2.0", "unknown")
    assert any("policy on use" in note for note in found.notes)


@pytest.mark.parametrize(
    ("repository", "parents"),
    [
        ("someone/NVIDIA-Nemotron-3-Nano-30B-A3B-GGUF", ()),
        ("someone/mine", ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",)),
    ],
)
def test_what_nobody_read_is_unknown_in_copies_too(repository, parents) -> None:
    """The publisher is known, its licence is not; an uploader's word does not make up for it."""
    claims = Claims(licences=("apache-2.0",), parents=parents)
    assert "unknown" in trace(claims, repository=repository).licences
