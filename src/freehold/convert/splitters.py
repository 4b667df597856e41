# SPDX-License-Identifier: Apache-2.0
"""Which named splitter of GGUF a `tokenizer.json` describes.

Knows how that file writes its pre-tokenizer; the names and their expressions are
`freehold.chat.pretokenizers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from freehold.chat.pretokenizers import PRE_SPLITTERS, PreSplitter

# Several names mean one splitter; these are what converters write, and what readers know best.
_PREFERRED = (
    "llama-bpe", "qwen2", "deepseek-r1-qwen", "tekken", "gpt-4o", "deepseek-v3", "deepseek-llm",
    "deepseek-coder", "smollm", "gpt-2", "dbrx", "qwen35",
)  # fmt: skip
_GPT2 = PRE_SPLITTERS["gpt-2"].passes


def splitter_names(data: Mapping[str, Any] | None) -> list[str]:
    """Names that fit the content of a tokenizer.json, best first; without one, the usual ones."""
    if data is None:
        return list(_PREFERRED)
    passes = tuple(_passes(data.get("pre_tokenizer")))
    model = data.get("model")
    ignore_merges = bool(isinstance(model, Mapping) and model.get("ignore_merges", False))
    nfc = _has_nfc(data.get("normalizer"))

    def distance(splitter: PreSplitter) -> int:
        return (splitter.ignore_merges != ignore_merges) + (splitter.nfc != nfc)

    order = [*_PREFERRED, *(name for name in PRE_SPLITTERS if name not in _PREFERRED)]
    fitting = [name for name in order if PRE_SPLITTERS[name].passes == passes]
    first: dict[PreSplitter, str] = {}
    for name in fitting:
        first.setdefault(PRE_SPLITTERS[name], name)
    return sorted(first.values(), key=lambda name: distance(PRE_SPLITTERS[name]))


def _steps(node: Any) -> Iterator[Mapping[str, Any]]:
    """The pre-tokenizer's steps in order, sequences opened up."""
    if not isinstance(node, Mapping):
        return
    inner = node.get("pretokenizers", node.get("normalizers"))
    if node.get("type") == "Sequence" and isinstance(inner, list):
        for item in inner[:64]:
            # Nobody nests them; one level keeps a hostile file from deep recursion.
            if isinstance(item, Mapping) and item.get("type") != "Sequence":
                yield item
        return
    yield node


def _passes(node: Any) -> Iterator[str]:
    """Regular expressions of the steps; "?" for one that is not understood, so nothing fits."""
    for step in _steps(node):
        kind = step.get("type")
        if kind == "Split":
            pattern = step.get("pattern")
            text = pattern.get("Regex") if isinstance(pattern, Mapping) else None
            whole = step.get("behavior") == "Isolated" or (
                step.get("behavior") == "Removed" and step.get("invert") is True
            )
            yield text if isinstance(text, str) and whole else "?"
        elif kind == "Digits":
            yield r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
        elif kind == "ByteLevel":
            if step.get("use_regex", True):
                yield from _GPT2
        else:
            yield "?"


def _has_nfc(node: Any) -> bool:
    return any(step.get("type") == "NFC" for step in _steps(node))
