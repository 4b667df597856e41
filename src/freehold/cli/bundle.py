# SPDX-License-Identifier: Apache-2.0
"""`freehold bundle`: models in one file, to be carried to machines without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from freehold.cli import _policy_gate, console, options
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.hub.bundle import Bundle


def command(
    action: Annotated[
        Literal["export", "import", "show"],
        typer.Argument(help="What to do.", show_default=False),
    ],
    file: Annotated[Path, typer.Argument(help="The bundle.", show_default=False)],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME …]", help="Models to export.", show_default=False),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option("--expect", help="Import only with this digest, which `export` printed."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of other models of the same names.")
    ] = False,
    policy_override: _policy_gate.Override = None,
    as_json: options.Json = False,
) -> None:
    """Carry models to machines without a network, in one file."""
    from freehold.hub import bundle
    from freehold.hub.store import Store

    if action == "export":
        _export(file, names or [], as_json)
        return
    if names:
        raise InvalidParameterError(f"`freehold bundle {action}` takes no names of models")
    look = bundle.look_into(file)
    if action == "show":
        _show(look, as_json)
        return
    with _watching("importing", look.size) as watch:
        added = bundle.read_into(
            Store(), file, replace_models=replace, expected=expect, watch=watch,
            gate=_policy_gate.gate(policy_override),
        )  # fmt: skip
    if as_json:
        console.data_json({"digest": look.digest, "added": [model.name for model in added]})
        return
    for model in look.models:
        there = "" if any(model.name == new.name for new in added) else " (was there)"
        console.data(f"{model.name}{there}")
    console.note(f"every file has its digest; digest of the bundle: {look.digest}")


def _export(file: Path, names: list[str], as_json: bool) -> None:
    from freehold.hub import bundle
    from freehold.model_names import get_stored

    if not names:
        raise InvalidParameterError(
            "which models? `freehold bundle export FILE NAME …`", hint="see `freehold list`"
        )
    models = {model.name: model for model in map(get_stored, names)}
    total = sum({f.sha256: f.size for m in models.values() for f in m.files}.values())
    with _watching("exporting", total) as watch:
        written = bundle.export(list(models.values()), file, watch)
    if as_json:
        console.data_json({"file": str(file), "digest": written.digest, "bytes": written.size})
        return
    console.data(written.digest)
    console.note(
        f"{file}: {len(models)} models, {console.size(written.size)}; "
        "`freehold bundle import` takes the digest above as --expect"
    )


@contextmanager
def _watching(title: str, total: int) -> Iterator[Callable[[int], None]]:
    done = 0
    with console.progress_bar(title) as progress:

        def watch(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield watch


def _show(look: Bundle, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "name": model.name,
                "bytes": model.size,
                "licence_claim": model.licence_claim,
                "revision": model.revision,
                "digest": model.digest,
            }
            for model in look.models
        ]
        console.data_json({"digest": look.digest, "bytes": look.size, "models": listed})
        return
    rows = [("NAME", "SIZE", "QUANT", "LICENCE (CLAIMED)")]
    for model in look.models:
        claim = console.one_line(model.licence_claim or "none", 40)
        rows.append((model.name, console.size(model.size), model.quant or "-", claim))
    console.data(console.table(rows, right=(1,)))
    console.note(f"digest {look.digest}; nothing of it is verified before it is imported")
