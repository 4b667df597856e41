# SPDX-License-Identifier: Apache-2.0
"""What `show` tells about the tokenizer, without building it.

Knows where GGUF metadata and Hugging Face side files keep it; judges nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint


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
