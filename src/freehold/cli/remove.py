# SPDX-License-Identifier: Apache-2.0
"""`freehold remove`: takes models out of the store. What other programs keep stays where it is."""

from __future__ import annotations

from typing import Annotated

import typer

from freehold.cli import console


def command(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME …", help="As `freehold list` shows it.", show_default=False),
    ],
) -> None:
    """Remove models from the store; files of other programs stay."""
    from freehold.errors import FreeholdError
    from freehold.hub.store import Store
    from freehold.model_names import find_stored

    store = Store()
    for name in names:
        try:
            found = find_stored(name)
        except FreeholdError:
            found = None  # damaged, or several: the store says so, or takes the key of the record
        freed = store.remove(name if found is None else found.name)
        if found is not None and found.adopted:
            console.note(f"{found.name} is forgotten; its files stay with {found.source}")
        else:
            shown = name if found is None else found.name
            console.note(f"{shown} is removed; {console.size(freed)} freed")
