# SPDX-License-Identifier: Apache-2.0
"""`freehold quantize`: rewrite a model with smaller weights.

Only the command line: `freehold.quantize` decides which tensor gets which type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from freehold.cli import console, options
from freehold.errors import InvalidParameterError


def command(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Model to read: GGUF, or a Hugging Face directory.")
    ],
    destination: Annotated[str, typer.Argument(metavar="OUT", help="GGUF file to write.")],
    mix: Annotated[
        str,
        typer.Option("--type", help="Named mix: Q4_K_M, Q5_K_M, Q6_K, Q8_0, Q4_0, F16, …"),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    allow_requantize: Annotated[
        bool,
        typer.Option(
            "--allow-requantize",
            help="Accept weights that are quantised already, at a further loss.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write a quantised copy of a model."""
    from freehold.quantize import quantize

    target = Path(destination)
    if target.is_dir():
        raise InvalidParameterError(
            f"{destination} is a directory", hint="name the GGUF file to write"
        )
    with console.progress_bar(f"quantising to {mix}") as progress:
        quantize(
            Path(source),
            target,
            mix,
            progress=progress,
            overwrite=force,
            allow_requantize=allow_requantize,
        )
    before = _bytes_of(Path(source))
    after = target.stat().st_size
    if as_json:
        console.data_json(
            {"path": str(target), "type": mix, "bytes": after, "source_bytes": before}
        )
    else:
        console.note(
            f"wrote {target}: {console.size(after)}, {after / before:.0%} of {console.size(before)}"
        )


def _bytes_of(source: Path) -> int:
    from freehold.formats.checkpoint import open_checkpoint

    return open_checkpoint(source).nbytes
