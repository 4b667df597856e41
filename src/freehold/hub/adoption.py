# SPDX-License-Identifier: Apache-2.0
"""Adopting: a record in our store for files that another program, or the user, keeps.

Nothing is copied or moved. The record holds digest, size and time of change of every file, so that
a file which becomes another one is noticed before it is opened. Which programs there are is
`caches`' to know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from freehold.errors import FreeholdError, StoreError
from freehold.hub import caches, inspection, views
from freehold.hub.caches import (
    Find,
    FoundFile,
    FoundModel,
    Skipped,
    huggingface,
    llama_cpp,
    lmstudio,
    ollama,
)
from freehold.hub.disk import Watch, digest_of, open_regular
from freehold.hub.store import Gate, Store, StoredFile, StoredModel

SOURCE = "path"


def find(what: str | None) -> Iterator[Find]:
    """What there is to adopt: of all programs, of the one that is called `what`, or at that path.

    Raises StoreError where `what` is neither."""
    known = caches.tools()
    if what is not None and what not in known:
        path = Path(what).expanduser()
        if not path.exists():
            raise StoreError(
                f"{what!s:.200}: no such file or folder, and no program that is known",
                hint=f"programs: {', '.join(known)}",
            )
        yield from at_path(path.resolve())
        return
    for tool in known.values() if what is None else [known[what]]:
        for folder in tool.folders():
            yield from tool.scan(folder)


def at_path(path: Path) -> Iterator[Find]:
    """The models in a folder, whatever program's layout it has, or the one GGUF file."""
    if path.is_dir():
        for tool in (huggingface, ollama, llama_cpp):
            if tool.recognises(path):
                yield from tool.scan(path)
                return
        yield from lmstudio.models_in(path, SOURCE, SOURCE, path.name or "root")
        return
    wanted = list(lmstudio.models_in(path.parent, SOURCE, SOURCE, path.parent.name or "root"))
    for found in wanted:
        if isinstance(found, Skipped):
            if found.path == path:
                yield found
        elif any(file.path == path for file in found.files if file.name == found.entry):
            yield replace(found, name=f"{SOURCE}:{path.stem}")
            return
    if not any(isinstance(found, Skipped) and found.path == path for found in wanted):
        yield Skipped(SOURCE, path, "not a model file: give a .gguf file or a model's folder")


def unread_bytes(
    store: Store, found: FoundModel, *, name: str | None = None, rehash: bool = False
) -> int:
    """Bytes that `adopt` will read for digests."""
    old = _known(store, name or found.name)
    return sum(file.size for file in found.files if rehash or _digest(file, old) is None)


def adopt(
    store: Store,
    found: FoundModel,
    *,
    name: str | None = None,
    rehash: bool = False,
    watch: Watch | None = None,
    gate: Gate | None = None,
) -> tuple[StoredModel, bool]:
    """Write the record of a model another program holds; gives it, and whether it is new.

    Files that their program names by SHA-256 are taken at its word unless `rehash`; `verify` reads
    them any time. Raises StoreError, what opening the model raises and what `gate` does; nothing
    is recorded then.
    """
    name = name or found.name
    old = store.find(name)
    old = old if old is not None and old.name == name else None
    files = tuple(_stored(file, None if rehash else old, rehash, watch) for file in found.files)
    if old is not None:
        if {(f.name, f.sha256) for f in old.files} == {(f.name, f.sha256) for f in files}:
            if not old.adopted or (old.files == files and old.problem() is None):
                return old, False
        elif not (old.adopted and old.source == found.source):
            raise StoreError(
                f"{name}: the store has another model of this name",
                hint=f"`freehold remove {name}` first, or adopt one path with --name",
            )
    model = replace(_described(store, found, name, files), root=store.root)
    if gate is not None:
        gate(model)
    store.add(model)
    return model, True


def _described(
    store: Store, found: FoundModel, name: str, files: tuple[StoredFile, ...]
) -> StoredModel:
    """The model with what its headers say."""
    shown = {file.name: file.path for file in files}
    folder = views.ensure(store.root, shown)  # members of a split set are found by their names
    try:
        facts = inspection.inspect(folder / found.entry if found.entry else folder)
        if facts.kind != "model":
            raise StoreError(f"{found.name}: is no model but says it is of kind {facts.kind!r:.40}")
    except FreeholdError as error:
        views.discard(store.root, shown)
        # The view was a means; the file's name is what the user knows.
        error.message = error.message.replace(f"{folder}{os.sep}", "")
        raise
    return StoredModel(
        name=name,
        source=found.source,
        repository=found.repository,
        revision=found.revision,
        quant=found.quant or facts.quant,
        files=files,
        entry=found.entry,
        licence_claim=facts.licence_claim or found.licence_claim,
        base_models=facts.base_models,
        template_sha256=facts.template_sha256,
        added_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        adopted=True,
    )


def _known(store: Store, name: str) -> StoredModel | None:
    try:
        return store.find(name)
    except StoreError:
        return None


def _digest(file: FoundFile, old: StoredModel | None) -> str | None:
    """The file's digest without reading it: its program's word, or what was noted of the same
    unchanged file before."""
    if file.sha256 is not None:
        return file.sha256
    for known in old.files if old is not None else ():
        if known.path == file.path and known.mtime_ns is not None and known.problem() is None:
            return known.sha256
    return None


def _stored(
    file: FoundFile, old: StoredModel | None, rehash: bool, watch: Watch | None
) -> StoredFile:
    try:
        with open_regular(file.path) as opened:
            before = os.fstat(opened.fileno())
            sha256 = None if rehash else _digest(file, old)
            if sha256 is None:
                sha256, size = digest_of(opened, watch)
            else:
                size = before.st_size
            after = os.fstat(opened.fileno())
    except OSError as error:
        raise StoreError(f"{file.path}: cannot be read: {error.strerror}") from None
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, size):
        raise StoreError(f"{file.path}: was written to while it was read", hint="adopt it again")
    if file.sha256 not in (None, sha256):
        raise StoreError(
            f"{file.path}: its content has not the digest that it is named by",
            hint="it is damaged: let the program that keeps it fetch it again",
        )
    return StoredFile(file.name, sha256, size, file.path, before.st_mtime_ns)
