# SPDX-License-Identifier: Apache-2.0
"""Stores and the models in them, made for tests: bytes go the way a transfer takes."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from freehold.hub.store import Store, StoredFile, StoredModel


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: Store, name: str, data: bytes) -> StoredFile:
    """Bytes as a blob of the store, through the door of transfers."""
    digest = sha256(data)
    partial = store.partial(digest)
    with store.lock_of(partial):
        blob = store.blob(digest)
        if blob is None:
            partial.write_bytes(data)
            blob = store.commit_blob(partial, digest, len(data))
    return StoredFile(name, digest, len(data), blob)


def model_of(
    files: tuple[StoredFile, ...], name: str = "hf:org/repo:Q4_K_M", **changes: object
) -> StoredModel:
    fields: dict[str, object] = {
        "source": "huggingface", "repository": "org/repo", "revision": "a" * 40,
        "quant": "Q4_K_M", "entry": files[0].name, "licence_claim": "apache-2.0",
        "base_models": ("org/base",), "template_sha256": None,
        "added_at": "2026-01-02T03:04:05Z", "adopted": False,
    }  # fmt: skip
    return StoredModel(name=name, files=files, **(fields | changes))  # type: ignore[arg-type]


def add(store: Store, name: str, contents: Mapping[str, bytes], **changes: object) -> StoredModel:
    """A model of these files, added."""
    model = model_of(tuple(put(store, *item) for item in contents.items()), name, **changes)
    store.add(model)
    found = store.find(name)
    assert found is not None
    return found


def gguf(metadata: Mapping[str, str | int | list[str]], tail: bytes = b"") -> bytes:
    """A GGUF file without tensors: enough for everything that reads headers."""

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    body = b""
    for key, value in metadata.items():
        body += text(key)
        if isinstance(value, str):
            body += struct.pack("<I", 8) + text(value)
        elif isinstance(value, int):
            body += struct.pack("<II", 4, value)
        else:
            body += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + body + tail


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
