# SPDX-License-Identifier: Apache-2.0
"""`freehold notice`: the NOTICE file and the bill of materials of what is deployed.

Writes files and says what they lack; what goes into them is `freehold.licences`'.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from freehold.cli import console
from freehold.errors import InvalidParameterError

NOTICE = "NOTICE"
BILL = "bom.cdx.json"


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL…",
            help="Model files, directories or names; default: every model in the store.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The directory to write into.", show_default=False)
    ] = Path(),
    digests: Annotated[
        bool, typer.Option("--digests/--no-digests", help="Read files for their SHA-256.")
    ] = True,
    stdout: Annotated[bool, typer.Option("--stdout", help="Write no file; print NOTICE.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write no file; print the bill of materials.")
    ] = False,
) -> None:
    """Write NOTICE and a bill of materials of deployed models."""
    from freehold import __version__
    from freehold.cli._deployed import deployed
    from freehold.formats.atomic_files import atomic_files
    from freehold.licences.bill import bill_of_materials
    from freehold.licences.notice import licence_files, missing_texts, notice_text

    names = list(dict.fromkeys(models or _stored_names()))
    if not names:
        raise InvalidParameterError(
            "there is no model to write about", hint="name one: `freehold notice MODEL`"
        )
    found = [deployed(name, digests and not stdout) for name in names]
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    bill = bill_of_materials(found, tool_version=__version__, timestamp=timestamp)
    if as_json:
        console.data_json(bill)
    elif stdout:
        console.data(notice_text(found), end="")
    else:
        files = {NOTICE: notice_text(found), BILL: json.dumps(bill, indent=2, ensure_ascii=False)}
        files |= licence_files(found)
        out.mkdir(parents=True, exist_ok=True)
        with atomic_files() as create:
            for name, text in files.items():
                create(out / name).write(text.encode("utf-8", "replace"))
        for name in files:
            console.data(str(out / name))
    for licence, url in missing_texts(found):
        console.note(f"note: a copy of the {licence} must go along and is not at hand: {url}")


def _stored_names() -> list[str]:
    from freehold.hub.store import Store

    return [model.name for model in Store().models() if model.problem() is None]
