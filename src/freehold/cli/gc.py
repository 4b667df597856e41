# SPDX-License-Identifier: Apache-2.0
"""`freehold gc`: frees what no model of the store needs, after it said what that is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import console, options
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.hub.garbage import Garbage

_PLURALS = {
    "blob": "files that no model needs",
    "unfinished transfer": "unfinished downloads",
    "left over": "left over from processes that ended",
    "view": "folders of links that no model needs",
}


def command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    keep_unfinished: Annotated[
        bool, typer.Option("--keep-unfinished", help="Keep downloads that can be gone on with.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Free what no model of the store needs, after saying so."""
    from freehold.hub import garbage
    from freehold.hub.disk import store_errors
    from freehold.hub.store import Store

    store = Store()
    with store_errors(store.root):
        found = garbage.find(store, keep_unfinished=keep_unfinished)
    total = sum(item.size for item in found)
    if as_json:
        listed = [{"kind": i.kind, "path": str(i.path), "bytes": i.size} for i in found]
        if dry_run or not found:
            console.data_json({"garbage": listed, "freed": 0})
            return
    else:
        _tell(found)
    if dry_run or not found:
        return
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise InvalidParameterError("nothing is freed unasked", hint="--yes, or --dry-run")
        typer.confirm(f"free {console.size(total)}?", abort=True, err=True)
    freed = garbage.collect(store, found)
    if as_json:
        console.data_json({"garbage": listed, "freed": freed})
    else:
        console.note(f"{console.size(freed)} freed")


def _tell(found: Sequence[Garbage]) -> None:
    if not found:
        console.note("nothing to free")
        return
    sizes, counts = Counter[str](), Counter[str]()
    for item in found:
        sizes[item.kind] += item.size
        counts[item.kind] += 1
    rows = [(f"{counts[k]:,}", _PLURALS[k], console.size(sizes[k])) for k in _PLURALS if counts[k]]
    console.data(console.table(rows, right=(0, 2)))
    large = sorted((i for i in found if i.size), key=lambda i: -i.size)[:20]
    if large:
        console.data("")
        console.data(
            console.table([(console.size(i.size), str(i.path)) for i in large], right=(0,))
        )
