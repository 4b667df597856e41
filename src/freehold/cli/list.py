# SPDX-License-Identifier: Apache-2.0
"""`freehold list`: the models of the store, their sizes and what is claimed of their licences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from freehold.cli import console, options

if TYPE_CHECKING:
    from freehold.hub.store import DamagedRecord, StoredModel


def command(as_json: options.Json = False) -> None:
    """List the models of the store: what can be named."""
    from freehold.hub.store import Store

    store = Store()
    models, damaged = store.scan()
    if as_json:
        console.data_json(
            {
                "store": str(store.root),
                "models": [describe(model) for model in models],
                "damaged": [{"key": each.key, "error": each.error.message} for each in damaged],
            }
        )
        return
    if models:
        console.data(render(models))
        console.note(_total(models))
    elif not damaged:
        console.note("there are none; `freehold pull NAME` fetches one, `freehold adopt` uses what")
        console.note("other programs have on this disk")
    tell_damaged(damaged)


def describe(model: StoredModel) -> dict[str, Any]:
    """Everything the store knows of a model, as plain values."""
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "bytes": model.size,
        "quant": model.quant,
        "licence_claim": model.licence_claim,
        "base_models": list(model.base_models),
        "source": model.source,
        "repository": model.repository,
        "revision": model.revision,
        "adopted": model.adopted,
        "digest": model.digest,
        "template_sha256": model.template_sha256,
        "added_at": model.added_at,
        "entry": model.entry,
        "files": [
            {"name": f.name, "bytes": f.size, "sha256": f.sha256, "path": str(f.path)}
            for f in model.files
        ],
        "problem": model.problem(),
    }


def render(models: Sequence[StoredModel]) -> str:
    """The models as a table; what is wrong with one stands below it."""
    rows = [("NAME", "SIZE", "QUANT", "LICENCE (CLAIMED)", "SOURCE", "ADDED")]
    below: dict[int, str] = {}
    for number, model in enumerate(models, start=1):
        source = f"{model.source}, adopted" if model.adopted else model.source
        claim = console.one_line(model.licence_claim or "none", 32)
        rows.append(
            (
                model.name,
                console.size(model.size),
                model.quant or "-",
                claim,
                source,
                model.added_at[:10],
            )
        )
        if model.aliases:
            below[number] = f"  also {', '.join(model.aliases)}"
        if why := model.problem():
            below[number] = f"{below.get(number, '')}\n  cannot be used: {why}".strip("\n")
    lines = console.table(rows, right=(1,)).splitlines()
    shown = [
        line + (f"\n{below[number]}" if number in below else "")
        for number, line in enumerate(lines)
    ]
    return "\n".join(shown)


def _total(models: Sequence[StoredModel]) -> str:
    own = {f.sha256: f.size for model in models if not model.adopted for f in model.files}
    theirs = sum(model.size for model in models if model.adopted)
    count = f"{len(models)} model" + "s" * (len(models) != 1)
    text = f"{count}, {console.size(sum(own.values()))} in the store"
    return text + (f", {console.size(theirs)} kept by other programs" if theirs else "")


def tell_damaged(damaged: Sequence[DamagedRecord]) -> None:
    """One sentence for each record that cannot be read."""
    for each in damaged:
        console.note(f"warning: {each.error.message}")
        console.note(f"hint: `freehold remove {each.key}`, then get the model again")
