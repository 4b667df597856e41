# SPDX-License-Identifier: Apache-2.0
"""What tells one model from every other: a digest over its files, quick for large ones too.

Knows files, no model: nothing has to be loaded for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from freehold.formats.checkpoint import Checkpoint

if TYPE_CHECKING:
    from freehold.llm import LLM

_WHOLE = 64 << 20  # bytes of a file that are hashed all of them
_SAMPLES = 1024  # places of 4 KiB looked at in a longer one
_SAMPLE = 4096


def model_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over the files of a model, in hexadecimal; the same wherever they lie.

    Of a file of more than 64 MiB its size and 1,024 places all over it are hashed: another
    quantisation or another training changes most of them, and a job need not wait.
    """
    paths = list(checkpoint.files)
    if checkpoint.format != "gguf":
        paths += [p for p in sorted(checkpoint.directory.glob("*.json")) if p not in paths]
    return _digest(paths)


def loaded_digest(llm: LLM, adapter: str | None = None) -> str:
    """The same for a model that is loaded, under the adapter of that name where one is given."""
    digest, under = model_digest(llm.checkpoint), llm.adapter(adapter)
    if under is None:
        return digest
    return hashlib.sha256(digest.encode() + under.identity).hexdigest()


def adapter_digest(path: Path) -> str:
    """The same for an adapter: a file, or a directory of PEFT's."""
    if not path.is_dir():
        return _digest([path])
    kinds = ("adapter_config.json", "*.safetensors")
    return _digest(sorted(found for kind in kinds for found in path.glob(kind)))


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(file_digest(path))
    return digest.hexdigest()


def file_digest(path: Path) -> bytes:
    """SHA-256 over a file, or over samples of it where it is large."""
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        if size <= _WHOLE:
            while piece := file.read(1 << 20):
                digest.update(piece)
            return digest.digest()
        digest.update(file.read(1 << 20))  # names, shapes and settings
        for part in range(_SAMPLES):
            file.seek((size - _SAMPLE) * part // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.digest()
