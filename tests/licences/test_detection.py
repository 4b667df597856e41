# SPDX-License-Identifier: Apache-2.0
"""Texts, names and links of licences: known word for word, or not at all."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from freehold.licences import detection
from freehold.licences.lineage import trace
from freehold.licences.metadata import Claims

APACHE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")


def mit() -> str:
    """The text as a package that the tests need anyhow carries it."""
    for name in ("attrs", "pluggy", "typer"):
        for file in metadata.files(name) or ():
            if "licen" in file.name.lower() and file.suffix in ("", ".txt"):
                return file.read_text("utf-8")
    raise AssertionError("no package with an MIT text is installed")


def test_standard_texts_are_known() -> None:
    assert detection.by_text(APACHE) == "apache-2.0"
    assert detection.by_text(mit()) == "mit"


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n".join("> " + line for line in text.splitlines()),
        lambda text: text.replace('"', "“"),
        lambda text: "  " + text.replace(" ", "  "),
        lambda text: "Copyright (c) 2031 Somebody Else, Inc. All rights reserved.\n" + text,
    ],
)
def test_layout_and_owner_do_not_count(change) -> None:
    assert detection.by_text(change(mit())) == "mit"
    assert detection.by_text(change(APACHE)) == "apache-2.0"


@pytest.mark.parametrize(
    "more",
    [
        "\nThis grant ends where monthly revenue exceeds $20 million.",
        "\nCopyright (c) 2025 X. You may not use this commercially.",
        "\n(c) Research use only",
        "\nCopyright holders must be told of every use.",
    ],
)
def test_one_sentence_more_is_another_text(more: str) -> None:
    for text in (mit(), APACHE):
        assert detection.by_text(text + more) is None
        assert detection.by_text(more + "\n" + text) is None
        found = trace(Claims(licences=("mit",)), texts=[text + more])
        assert "unknown" in found.licences
        assert found.notes


def test_a_word_less_is_another_text() -> None:
    assert detection.by_text(mit().replace("free of charge", "of charge")) is None


@pytest.mark.parametrize("text", ["", "\0", "Apache License", "x" * 1_000_000, "©" * 1000])
def test_other_texts_are_nobodys(text: str) -> None:
    assert detection.by_text(text) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("apache-2.0", "apache-2.0"),
        ("Apache 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("llama3.1", "llama3.1"),
        ("Llama 3.1", "llama3.1"),
        ("LLAMA-3.2", "llama3.2"),
        ("gemma", "gemma"),
        ("mrl", "mrl-0.1"),
        ("MNPL", "mnpl-0.1"),
        ("qwen-research", "qwen-research"),
        ("tongyi-qianwen", "tongyi-qianwen"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("LicenseRef-llama3", "llama3"),
        ("other", None),
        ("proprietary", None),
        ("", None),
        ("mit" * 100, None),
    ],
)
def test_names_people_write(written: str, meant: str | None) -> None:
    assert detection.by_name(written) == meant


@pytest.mark.parametrize(
    ("link", "meant"),
    [
        ("https://mistral.ai/licenses/MNPL-0.1.md", "mnpl-0.1"),
        ("https://mistral.ai/licenses/MRL-0.1.md", "mrl-0.1"),
        ("https://huggingface.co/Qwen/Qwen2.5-3B-Instruct/blob/main/LICENSE", "qwen-research"),
        ("https://huggingface.co/Qwen/Qwen2.5-72B/raw/main/LICENSE", "qwen"),
        ("https://ai.google.dev/gemma/terms", "gemma"),
        ("https://www.llama.com/llama3_2/license/", "llama3.2"),
        ("LICENSE", None),
        ("https://example.org/my-terms", None),
    ],
)
def test_addresses_of_licences(link: str, meant: str | None) -> None:
    assert detection.by_link(link) == meant


def test_a_title_is_a_claim_only() -> None:
    text = "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\nLlama 3.1 Version Release Date: July 23, 2024\n…"
    assert detection.by_title(text) == "llama3.1"
    assert detection.by_text(text) is None
    assert trace(Claims(), texts=[text]).licences == ("llama3.1", "unknown")
    mine = trace(Claims(licences=("llama3.1",)), texts=[text])
    assert "unknown" in mine.licences  # the uploader's word does not make the text the known one
