# SPDX-License-Identifier: Apache-2.0
"""`freehold verify`: are the models, to the byte, what they were? For people and for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import console, options
from freehold.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from freehold.hub.store import Store, StoredModel
    from freehold.hub.verification import Fault


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME …]", help="Models; default: all.", show_default=False),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option("--lock", help="Also compare with this lock file, and look at its models."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Read every byte of models again and compare digests.

    Exit code 1 where one differs."""
    from freehold.hub import verification
    from freehold.hub.store import Store
    from freehold.hub.verification import Fault
    from freehold.model_names import get_stored

    store = Store()
    faults: list[Fault] = []
    if lock is not None:
        models, faults = _locked(store, lock, names or [])
    elif names:
        models = [get_stored(name) for name in names]
    else:
        models, damaged = store.scan()
        faults = [Fault(each.key, each.path.name, each.error.message) for each in damaged]
    total, read = verification.total_bytes(models), 0
    with console.progress_bar("reading") as progress:

        def watch(count: int) -> None:
            nonlocal read
            read += count
            progress(read, total)

        faults += verification.verify(models, watch)
    _tell(models, faults, total, as_json)
    if faults:
        raise typer.Exit(1)


def _locked(
    store: Store, path: Path, names: Sequence[str]
) -> tuple[list[StoredModel], list[Fault]]:
    """The models of a lock file that are there, and in what they and the others differ."""
    from freehold.cli.lock import locked as locked_now
    from freehold.hub import lock_file
    from freehold.hub.disk import read_small, store_errors
    from freehold.hub.verification import Fault

    with store_errors(path):
        data = read_small(path, lock_file.MAX_BYTES)
    locked = lock_file.read(b"" if data is None else data, str(path))
    if unknown := sorted(set(names) - {each.name for each in locked}):
        raise StoreError(f"{unknown[0]}: is not in {path}", hint="names are those of the lock file")
    models: list[StoredModel] = []
    faults: list[Fault] = []
    for each in locked:
        if names and each.name not in names:
            continue
        try:
            found = store.find(each.name)
        except StoreError as error:
            faults.append(Fault(each.name, "", error.message))
            continue
        if found is None:
            faults.append(Fault(each.name, "", "is not in the store"))
            continue
        if why := found.problem():
            faults.append(Fault(each.name, "", why))
            continue
        models.append(found)
        found_now = locked_now(found)
        faults += [Fault(each.name, "", what) for what in lock_file.differences(each, found_now)]
    return models, faults


def _tell(
    models: Sequence[StoredModel], faults: Sequence[Fault], total: int, as_json: bool
) -> None:
    bad = {fault.model for fault in faults}
    good = [model.name for model in models if model.name not in bad]
    if as_json:
        listed = [{"model": f.model, "file": f.file or None, "fault": f.what} for f in faults]
        console.data_json({"sound": good, "faults": listed, "bytes": total})
        return
    for name in good:
        console.data(f"sound   {name}")
    for fault in faults:
        console.data(f"FAULTY  {fault.model}: {fault.what}")
    what = f"{len(bad)} of {len(bad) + len(good)} models are faulty" if bad else "all is sound"
    console.note(f"{console.size(total)} read; {what}")
