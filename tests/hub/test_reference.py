# SPDX-License-Identifier: Apache-2.0
"""Names of models: what they mean, their canonical spelling, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from freehold.errors import InvalidParameterError
from freehold.hub.reference import Reference, parse, with_choice

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llama3.2:3b", Reference("catalogue", "llama3.2:3b")),
        ("Llama3.2:3B", Reference("catalogue", "llama3.2:3b")),
        ("hf:org/repo", Reference("huggingface", "org/repo")),
        ("hf:org/repo:Q4_K_M", Reference("huggingface", "org/repo", "Q4_K_M")),
        (f"hf:o/r:Q8_0@{COMMIT}", Reference("huggingface", "o/r", "Q8_0", COMMIT)),
        ("hf:o/r@refs/pr/3", Reference("huggingface", "o/r", revision="refs/pr/3")),
        ("hf:o/r/sub/a.gguf", Reference("huggingface", "o/r", file="sub/a.gguf")),
        ("hf.co/org/repo:Q6_K", Reference("huggingface", "org/repo", "Q6_K")),
        ("https://huggingface.co/org/repo", Reference("huggingface", "org/repo")),
        ("https://huggingface.co/o/r/tree/v1", Reference("huggingface", "o/r", revision="v1")),
        (
            "https://huggingface.co/o/r/blob/main/a.gguf",
            Reference("huggingface", "o/r", file="a.gguf"),
        ),
        (
            "https://hf.co/o/r/resolve/v2/a%20b.gguf?download=true",
            Reference("huggingface", "o/r", file="a b.gguf", revision="v2"),
        ),
        ("ollama:llama3.2", Reference("ollama", "library/llama3.2", revision="latest")),
        ("ollama:me/mine:1b", Reference("ollama", "me/mine", revision="1b")),
        (
            "ollama:reg.example:5000/me/mine:1b",
            Reference("ollama", "me/mine", revision="1b", host="reg.example:5000"),
        ),
        (
            "ollama:registry.ollama.ai/library/llama3.2:3b",
            Reference("ollama", "library/llama3.2", revision="3b"),
        ),
        ("https://h.example/a/m.gguf", Reference("url", "https://h.example/a/m.gguf")),
        (
            f"https://h.example/m.gguf?k=1#sha256={DIGEST}",
            Reference("url", "https://h.example/m.gguf?k=1", sha256=DIGEST),
        ),
        ("./repo", Reference("path", "./repo")),
        ("/models/x", Reference("path", "/models/x")),
        ("models/x.gguf", Reference("path", "models/x.gguf")),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_names_mean(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["hf:org/repo:Q4_K_M@v1", "hf:o/r/sub/a.gguf@v1", "ollama:llama3.2:3b", "ollama:me/x:latest",
     "ollama:reg.example:5000/me/mine:1b", "https://h.example/m.gguf", "llama3.2:3b"],
)  # fmt: skip
def test_the_canonical_name_means_the_same(text: str) -> None:
    assert parse(text).name == text
    assert parse(parse(text).name) == parse(text)


HOSTILE = [
    "", " ", "hf:", "hf:org", "hf:../..", "hf:org/..", "hf:org/.", "hf:/etc/passwd", "hf:a//b",
    "hf:a/b/../../c.gguf", "hf:a/b/c.bin", "hf:a/b/c.py", "hf:a/b@../x", "hf:a/b@a..b",
    "hf:a/b@", "hf:a/b:", "hf:a/b:../q", "hf:a/b:Q4/K", "hf:a/b?x=1", "hf:a/b#x", "hf:a b/c",
    "hf:a/b%2f..", "hf:org/repo.git", "hf:a/b@x/", "hf:a/b@x.lock", "hf:a/b\n", "hf:a\0/b",
    "hf:аpple/repo", "hf:a/b/.gguf/..", "hf:a/con/x", "ollama:", "ollama:../x", "ollama:a/../b",
    "ollama:x:../y", "ollama:x:", "ollama:a/b/c/d", "ollama:h@evil/a/b", "ollama:ev il/a/b",
    "ollama:a/b:c/d", "ollama:x:y:z", "file:///etc/passwd", "FILE:/etc/passwd", "ftp://h/x.gguf",
    "gopher://h/x.gguf", "javascript:/x", "https://", "https:///x.gguf", "https://h/x.bin",
    "https://h/", "https://u:p@h/x.gguf", "https://h:99999/x.gguf", "https://h/x.gguf#sha256=zz",
    "https://h/..%2fx.gguf", "https://h/a%00.gguf", "https://[::1/x.gguf",
    "https://huggingface.co/o/r/settings", "https://huggingface.co/o", "org/repo", "a/b/c",
    "-rf", "--help", "con:", "llama3:", ":3b", "a:b:c", "\u202egguf.x", "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[f"{i}" for i in range(len(HOSTILE))])
def test_hostile_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse(text)


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("hf:ollama/.@#%gu-_ \\\0Q4~", max_size=40))
@example("hf:a/b/c\\..\\d.gguf")
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        ref = parse(text)
    except InvalidParameterError:
        return
    if ref.kind in ("huggingface", "ollama"):
        for part in [*ref.repository.split("/"), *(ref.file or "x").split("/"), ref.revision or ""]:
            assert part not in (".", "..")
            assert not set(part) & set('\\:*?"<>|\0\n')
        assert parse(ref.name) == ref


def test_flags_beside_the_name() -> None:
    assert with_choice(parse("hf:o/r"), "Q8_0", "v1").name == "hf:o/r:Q8_0@v1"
    assert with_choice(parse("hf:o/r:q8_0"), "Q8_0", None).quant == "Q8_0"
    with pytest.raises(InvalidParameterError, match="the name says"):
        with_choice(parse("hf:o/r:Q4_0"), "Q8_0", None)
    with pytest.raises(InvalidParameterError, match="from Hugging Face"):
        with_choice(parse("ollama:x"), "Q8_0", None)
    with pytest.raises(InvalidParameterError):
        with_choice(parse("hf:o/r"), "../x", None)
