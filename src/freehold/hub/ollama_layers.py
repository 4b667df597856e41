# SPDX-License-Identifier: Apache-2.0
"""What the layers of an Ollama model are called as files of a store, fetched or adopted alike.

Knows kinds of layers (the end of their media type) and names, not manifests. The file names of
Hugging Face mean other things, so what is Ollama's own says so.
"""

from __future__ import annotations

from collections import Counter

PREFIX = "application/vnd.ollama.image."
WEIGHTS = "model.gguf"
_NAMES = {
    "model": WEIGHTS,
    "projector": "mmproj.gguf",
    "adapter": "adapter.gguf",
    "template": "ollama.template",
    "system": "ollama.system",
    "params": "ollama.params.json",
    "messages": "ollama.messages.json",
    "license": "LICENSE",
}


class LayerNames:
    """Names for the layers of one model in their order, numbered where a kind comes again."""

    def __init__(self) -> None:
        self._counts = Counter[str]()

    def of(self, kind: str) -> str | None:
        """The name of the next layer, of this kind; None for kinds that no store keeps."""
        name = _NAMES.get(kind)
        if name is None:
            return None
        self._counts[kind] += 1
        if (number := self._counts[kind]) > 1:
            stem, dot, ending = name.partition(".")
            name = f"{stem}-{number}{dot}{ending}"
        return name
