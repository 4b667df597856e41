# SPDX-License-Identifier: Apache-2.0
"""What `show` tells about licence, tokenizer and chat template, without building any of them.

Knows where GGUF metadata and Hugging Face side files keep these; judges none of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.formats.strict_json import parse_json_object

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint

_MAX_SIDE_FILE = 16_000_000  # the largest tokenizer_config.json in the wild is under 2 MB
_FRONT_MATTER_BYTES = 8192


def _read(path: Path, limit: int = _MAX_SIDE_FILE) -> bytes | None:
    """The first `limit` bytes, or None where there is no such readable file."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError:
        return None


def _json(path: Path) -> dict[str, Any]:
    raw = _read(path)
    return {} if raw is None else parse_json_object(raw, str(path))


def licence(checkpoint: Checkpoint) -> str | None:
    """The licence field: GGUF metadata, or the front matter of a model card."""
    if checkpoint.format == "gguf":
        keys = ("general.license", "general.license.name", "general.license.link")
        values = [checkpoint.metadata.get(key) for key in keys]
        return ", ".join(v for v in values if isinstance(v, str) and v) or None
    card = (_read(checkpoint.directory / "README.md", _FRONT_MATTER_BYTES) or b"").decode(
        "utf-8", "replace"
    )
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    if front is None:
        return None
    found = re.findall(r"^(?:license|license_name|license_link):\s*(\S.*?)\s*$", front[1], re.M)
    return ", ".join(found) or None


def tokenizer(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Kind and vocabulary size as declared, or None when there is no tokenizer."""
    if checkpoint.format == "gguf":
        kind = checkpoint.metadata.get("tokenizer.ggml.model")
        if not isinstance(kind, str) or kind in ("none", "no_vocab"):
            return None
        pre = checkpoint.metadata.get("tokenizer.ggml.pre")
        tokens: Any = checkpoint.metadata.get("tokenizer.ggml.tokens")
        return {
            "kind": f"{kind}, pre-tokenizer {pre}" if isinstance(pre, str) else kind,
            "vocab_size": len(tokens) if hasattr(tokens, "__len__") else None,
        }
    vocab_size = checkpoint.metadata.get("vocab_size")
    for name in ("tokenizer.json", "tokenizer.model", "tekken.json"):
        if (checkpoint.directory / name).is_file():
            return {
                "kind": name,
                "vocab_size": vocab_size if isinstance(vocab_size, int) else None,
            }
    return None


def chat_template(checkpoint: Checkpoint) -> str | None:
    """Source of the default chat template."""
    if checkpoint.format == "gguf":
        source = checkpoint.metadata.get("tokenizer.chat_template")
        return source if isinstance(source, str) else None
    raw = _read(checkpoint.directory / "chat_template.jinja")
    if raw is not None:
        return raw.decode("utf-8", "replace")
    source = _json(checkpoint.directory / "tokenizer_config.json").get("chat_template")
    if isinstance(source, list):
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default")
    return source if isinstance(source, str) else None
