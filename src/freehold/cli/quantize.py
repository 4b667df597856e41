# SPDX-License-Identifier: Apache-2.0
"""`freehold quantize`: rewrite a model with smaller weights.

Only the command line: `freehold.quantize` decides which tensor gets which type.
"""

from __future__ import annotations

from typing import Annotated

import typer

from freehold.cli import console, options


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

    with console.progress_bar(f"quantising to {mix}") as progress:
        report = quantize(
            source,
            destination,
            mix,
            progress=progress,
            overwrite=force,
            allow_requantize=allow_requantize,
        )
    for remark in report.notes:
        console.note(f"note: {remark}")
    if as_json:
        console.data_json(
            {
                "path": str(report.path),
                "type": report.mix,
                "bytes": report.bytes,
                "source_bytes": report.source_bytes,
                "types": report.types,
                "seconds": report.seconds,
                "notes": report.notes,
            }
        )
        return
    share = report.bytes / report.source_bytes if report.source_bytes else 1.0
    types = ", ".join(f"{count} {name}" for name, count in report.types.items())
    console.note(
        f"wrote {report.path}: {console.size(report.bytes)}, {share:.0%} of the source, "
        f"in {report.seconds:.1f} s ({types})"
    )
