# SPDX-License-Identifier: Apache-2.0
"""`freehold adopt`: use models that other programs have on this disk, without copying them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import _policy_gate, console, options
from freehold.errors import FreeholdError, InvalidParameterError, ModelNotFoundError

if TYPE_CHECKING:
    from freehold.hub.caches import FoundModel, Skipped
    from freehold.hub.store import Store, StoredModel


def command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROGRAM|PATH]",
            help="huggingface, ollama, lmstudio or llama.cpp; or a file or folder. Default: what "
            "all of these programs have.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Call it this; for a path with one model.")
    ] = None,
    rehash: Annotated[
        bool,
        typer.Option("--rehash", help="Read every file, also where its program names its digest."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what there is and change nothing.")
    ] = False,
    policy_override: _policy_gate.Override = None,
    as_json: options.Json = False,
) -> None:
    """Use models that other programs have on this disk, uncopied."""
    from freehold.hub import adoption
    from freehold.hub.caches import FoundModel, Skipped
    from freehold.hub.store import Store

    finds = list(adoption.find(what))
    found = [each for each in finds if isinstance(each, FoundModel)]
    skipped = [each for each in finds if isinstance(each, Skipped)]
    if name is not None and len(found) != 1:
        raise InvalidParameterError(
            f"--name is for one model, and there are {len(found)}", hint="give the path of one"
        )
    if dry_run:
        _show_found(found, skipped, as_json)
        return
    adopted, refused = _adopt(Store(), found, name, rehash, policy_override)
    for each, error in refused:
        skipped.append(Skipped(each.tool, each.files[0].path, error.message))
    if as_json:
        console.data_json({"adopted": adopted, "skipped": [_skip(each) for each in skipped]})
    else:
        _tell(adopted, skipped)
    if what is not None and not adopted:
        hint = skipped[0].why if skipped else None
        raise ModelNotFoundError(f"{what}: nothing there could be adopted", hint=hint)


def _adopt(
    store: Store,
    found: Sequence[FoundModel],
    name: str | None,
    rehash: bool,
    override: str | None,
) -> tuple[list[dict[str, Any]], list[tuple[FoundModel, FreeholdError]]]:
    from freehold.hub import adoption

    total = sum(adoption.unread_bytes(store, each, name=name, rehash=rehash) for each in found)
    adopted: list[dict[str, Any]] = []
    refused: list[tuple[FoundModel, FreeholdError]] = []
    gate = _policy_gate.gate(override)
    read = 0
    with console.progress_bar("reading") as progress:
        for each in found:

            def watch(count: int, label: str = each.name) -> None:
                nonlocal read
                read += count
                progress(read, total, label)

            try:
                model, new = adoption.adopt(
                    store, each, name=name, rehash=rehash, watch=watch, gate=gate
                )
            except FreeholdError as error:
                refused.append((each, error))
            else:
                adopted.append({"tool": each.tool, "new": new, **_model(model)})
    return adopted, refused


def _model(model: StoredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "bytes": model.size,
        "quant": model.quant,
        "licence_claim": model.licence_claim,
    }


def _skip(skipped: Skipped) -> dict[str, str]:
    return {"tool": skipped.tool, "path": str(skipped.path), "why": skipped.why}


def _show_found(found: Sequence[FoundModel], skipped: Sequence[Skipped], as_json: bool) -> None:
    if as_json:
        listed = [
            {"tool": f.tool, "name": f.name, "bytes": f.size, "quant": f.quant} for f in found
        ]
        console.data_json({"found": listed, "skipped": [_skip(each) for each in skipped]})
        return
    rows = [("NAME", "SIZE", "KEPT BY")]
    rows += [(each.name, console.size(each.size), each.tool) for each in found]
    if found:
        console.data(console.table(rows, right=(1,)))
    _tell_skipped(skipped)
    console.note(f"{len(found)} models could be adopted")


def _tell(adopted: Sequence[dict[str, Any]], skipped: Sequence[Skipped]) -> None:
    rows = [("NAME", "SIZE", "QUANT", "LICENCE (CLAIMED)", "KEPT BY")]
    for each in adopted:
        kept = each["tool"] if each["new"] else f"{each['tool']} (as before)"
        claim = console.one_line(each["licence_claim"] or "none", 32)
        rows.append((each["name"], console.size(each["bytes"]), each["quant"] or "-", claim, kept))
    if adopted:
        console.data(console.table(rows, right=(1,)))
    _tell_skipped(skipped)
    if not adopted and not skipped:
        console.note("there is nothing to adopt")


def _tell_skipped(skipped: Sequence[Skipped]) -> None:
    for each in skipped:
        console.note(f"skipped {each.path}: {each.why}")
