# SPDX-License-Identifier: Apache-2.0
"""Where the conformance data lies, and tokenizers built from it once."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from freehold.chat.tokenizer import Tokenizer, load_tokenizer
from freehold.formats.checkpoint import open_checkpoint

DATA = Path(__file__).parents[3] / "shared" / "data"
GGUF_NAMES = ("llama-spm", "phi-3", "gpt-2", "deepseek-coder")
DIRECTORY_NAMES = ("llama-spm", "phi-3", "qwen2")


def need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"conformance data is absent: {path}")
    return path


@functools.cache
def gguf_tokenizer(name: str) -> Tokenizer:
    path = need(DATA / "tokenizers" / name / f"ggml-vocab-{name}.gguf")
    with open_checkpoint(path) as checkpoint:
        return load_tokenizer(checkpoint)


@functools.cache
def directory_tokenizer(name: str) -> Tokenizer:
    return directory_checkpoint_tokenizer(need(DATA / "tokenizers" / name))


def directory_checkpoint_tokenizer(
    directory: Path, config: Any = None, **options: Any
) -> Tokenizer:
    """Tokenizer of a directory that holds tokenizer files but no weights."""
    checkpoint = SimpleNamespace(format="safetensors", metadata=config or {}, directory=directory)
    return load_tokenizer(checkpoint, **options)  # type: ignore[arg-type]


def gguf_metadata_tokenizer(metadata: dict[str, Any], **options: Any) -> Tokenizer:
    """Tokenizer of GGUF metadata given as a mapping."""
    checkpoint = SimpleNamespace(format="gguf", metadata=metadata, directory=Path())
    return load_tokenizer(checkpoint, **options)  # type: ignore[arg-type]


def vectors(name: str) -> list[tuple[str, list[int]]]:
    """(text, ids) of a vocabulary's `.inp` and `.out` files."""
    base = DATA / "tokenizers" / name / f"ggml-vocab-{name}.gguf"
    texts = need(base.with_suffix(".gguf.inp")).read_bytes().decode()
    lines = need(base.with_suffix(".gguf.out")).read_text().split("\n")
    cases = texts.split("\n__ggml_vocab_test__\n")
    assert len(cases) == len(lines) > 40
    return [(text, [int(i) for i in line.split()]) for text, line in zip(cases, lines, strict=True)]


def read_cases(name: str) -> Any:
    return json.loads(need(DATA / name).read_text(encoding="utf-8"))
