# SPDX-License-Identifier: Apache-2.0
"""Engine figures for people: a line as soon as one is done, a table at the end.

Knows the form of a figure; measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import say, table


def one_line(figure: dict[str, Any]) -> str:
    """A figure in words, for those who watch."""
    parts = [f"{engine} {value:.4g}" for engine, value in figure["median"].items()]
    text = f"{figure['name']}: {', '.join(parts)} {figure['unit']}"
    if "ratio" in figure:
        text += f"; {figure['ratio']:.2f}x"
    if "freehold" in figure.get("share", {}):
        text += f"; {100 * figure['share']['freehold']:.0f} % of the limit"
    return text


def show(figures: Sequence[dict[str, Any]], engines: Sequence[str], foreign_share: float) -> None:
    """The table for people."""
    rows = []
    for figure in figures:
        cells = [figure["name"], figure["unit"]]
        for engine in engines:
            low, high = min(figure["values"][engine]), max(figure["values"][engine])
            cells.append(f"{figure['median'][engine]:.4g} [{low:.4g}..{high:.4g}]")
        cells.append(f"{figure['ratio']:.2f}x" if "ratio" in figure else "-")
        cells.append(f"{figure['limit']:.4g}" if "limit" in figure else "-")
        share = figure.get("share", {}).get("freehold")
        cells.append(f"{100 * share:.0f} %" if share is not None else "-")
        foreign = figure.get("foreign_cpu")
        cells.append(f"{100 * foreign:.0f} %" if foreign is not None else "-")
        rows.append(cells)
    say()
    say(table(["figure", "unit", *engines, "ratio", "limit", "share", "foreign"], rows))
    say("ratio: freehold against the better llama.cpp setting, above 1 is better for freehold")
    say("share: freehold's part of the limit; foreign: processor time other processes took")
    disturbed = [f["name"] for f in figures if f.get("foreign_cpu", 0) > foreign_share]
    if disturbed:
        say(f"DISTURBED, no evidence: {', '.join(disturbed)} (repeat on a quiet machine)")
