# SPDX-License-Identifier: Apache-2.0
"""A model as it is deployed: its facts, its header and its files joined for NOTICE and bill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from freehold.cli import console
from freehold.errors import ModelNotFoundError

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint
    from freehold.hub.store import StoredModel
    from freehold.licences.bill import Deployed, DeployedFile


def deployed(name: str, digests: bool) -> Deployed:
    """The model of a name or path, which must lie on this disk. `digests`: whether files whose
    digest is not recorded are read for it."""
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.licences.bill import Deployed
    from freehold.licences.metadata import claims_of
    from freehold.licensing import facts_of, stored_model

    stored = stored_model(name)
    path = stored.path() if stored is not None else _path(name)
    facts = facts_of(stored if stored is not None else name)
    elsewhere = stored is not None and stored.source != "huggingface"
    with open_checkpoint(path) as checkpoint:
        types = {tensor.qtype for tensor in checkpoint.tensors.values() if len(tensor.shape) > 1}
        return Deployed(
            name=name,
            licences=facts.licences,
            licence_source=facts.licence_source,
            files=_files(checkpoint, stored, digests),
            family=facts.family,
            version=stored.revision if stored is not None else None,
            repository=None if elsewhere else facts.repository,
            architecture=checkpoint.architecture or None,
            quantisation=" ".join(sorted(types)) or None,
            parameters=sum(tensor.num_elements for tensor in checkpoint.tensors.values()),
            claims=facts.claims,
            upstream=facts.upstream,
            datasets=claims_of(checkpoint.metadata).datasets,
            documents=facts.documents,
            notes=facts.notes,
            texts=facts.texts,
            openness=facts.openness.level,
            osaid=facts.openness.osaid,
        )


def _path(name: str) -> Path:
    from freehold.model_names import resolve_model

    path = resolve_model(name)
    if not path.exists():
        raise ModelNotFoundError(
            f"{name}: is not on this disk", hint=f"`freehold pull {name}` fetches it"
        )
    return path


def _files(
    checkpoint: Checkpoint, stored: StoredModel | None, digests: bool
) -> tuple[DeployedFile, ...]:
    from freehold.licences.bill import DeployedFile

    if stored is not None:
        return tuple(DeployedFile(each.name, each.size, each.sha256) for each in stored.files)
    return tuple(
        DeployedFile(path.name, path.stat().st_size, _digest(path) if digests else None)
        for path in checkpoint.files
    )


def _digest(path: Path) -> str:
    from freehold.hub.disk import digest_of

    size, done = path.stat().st_size, 0
    with path.open("rb") as file, console.progress_bar("digest") as progress:

        def watch(count: int) -> None:
            nonlocal done
            done += count
            progress(done, size, path.name)

        return digest_of(file, watch)[0]
