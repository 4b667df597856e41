# SPDX-License-Identifier: Apache-2.0
"""`freehold lock`: write down which models, to the byte, a project is made with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import console
from freehold.errors import StoreError

if TYPE_CHECKING:
    from freehold.hub.lock_file import LockedModel
    from freehold.hub.store import StoredModel


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME …]", help="Models; default: all.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The lock file; - for stdout.")] = Path(
        "freehold.lock"
    ),
) -> None:
    """Write a lock file: digests, revisions, templates, licences."""
    from freehold.formats.atomic_files import atomic_files
    from freehold.hub import lock_file
    from freehold.hub.store import Store
    from freehold.model_names import get_stored

    models = [get_stored(name) for name in names] if names else Store().models()
    if not models:
        raise StoreError("the store has no models", hint="`freehold pull NAME` fetches one")
    for model in models:
        if why := model.problem():
            raise StoreError(f"{model.name}: {why}", hint="see `freehold verify`")
    text = lock_file.write(locked(model) for model in models)
    if out == Path("-"):
        console.data(text, end="")
        return
    with atomic_files() as create:
        create(out).write(text.encode())
    console.note(f"{out}: {len(models)} models; `freehold verify --lock {out}` compares")


def locked(model: StoredModel) -> LockedModel:
    """What a lock file pins of a stored model, the licences that bind it among that."""
    from freehold.hub import lock_file
    from freehold.licensing import facts_of

    return lock_file.lock_of(model, facts_of(model).licences)
