# SPDX-License-Identifier: Apache-2.0
"""What runs where, out of the catalogue and the planner: `docs/hardware.md`, and the sizes that
`freehold models --fits` looks up.

    python tools/hardware_table.py          write both
    python tools/hardware_table.py --check  exit code 1 where the page is not what would be written

Run it whenever the catalogue or the planner's arithmetic changes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from freehold.catalogue.catalogue import members
from freehold.catalogue.member import Member
from freehold.errors import UserError
from freehold.planner.fit import Fit, best_fit
from freehold.planner.machine import Machine
from freehold.planner.member_sizes import TABLE, known_sizes, make_table, quants_of
from freehold.planner.placement import place
from freehold.planner.recommend import GOOD_QUANTS, recommend
from freehold.planner.sizes import sizes_of_shape
from freehold.planner.tiers import TIERS

PAGE = Path(__file__).parents[1] / "docs" / "hardware.md"
BEGIN, END = "<!-- table begins -->", "<!-- table ends -->"
CONTEXT = 8192
_SLOWEST = 0.5  # tokens per second that are worth a cell


def runnable() -> list[Member]:
    """Members whose sizes are known and which freehold runs."""
    found = []
    for member in members():
        try:
            if member.shape:
                known_sizes(member.shape, "Q4_K_M", member.name)
                found.append(member)
        except UserError:
            continue
    return found


def shown() -> list[Member]:
    """One member for each family and size, the newest, smallest first."""
    best: dict[tuple[str, int], Member] = {}
    for member in runnable():
        key = member.family, round(2 * math.log2(member.parameters))
        if "chat" in member.tasks and (
            key not in best or (member.released, member.name) > (best[key].released, best[key].name)
        ):
            best[key] = member
    return sorted(best.values(), key=lambda m: (m.parameters, m.name))


def page_table() -> str:
    """The generated part of the page."""
    machines = list(TIERS.values())
    lines = ["| | " + " | ".join(f"**{m.name}**" for m in machines) + " |"]
    lines += ["|---|" + "---|" * len(machines), "| `--as` | "]
    lines[-1] += " | ".join(f"`{name}`" for name in TIERS) + " |"
    lines.append("| recommended | " + " | ".join(_recommended(m) for m in machines) + " |")
    for member in shown():
        cells = " | ".join(_cell(member, machine) for machine in machines)
        lines.append(f"| {member.name} | {cells} |")
    return "\n".join(lines)


def _recommended(machine: Machine) -> str:
    choices = recommend(runnable(), machine, count=3)
    return "<br>".join(f"{c.member.name} {c.fit.quant}" for c in choices)


def _cell(member: Member, machine: Machine) -> str:
    context = min(CONTEXT, member.context)
    found = best_fit(member, machine, context)
    if found is None:
        return "?"
    own = "–"
    if found.fits:
        quick = _quickest(member, machine, context, found)
        own = f"{quick.quant}, {_rate(quick.decode_tokens_per_second)}"
    return f"{own}{_on_cards(member, machine, context)}"


def _quickest(member: Member, machine: Machine, context: int, found: Fit) -> Fit:
    """Four bits where more would be too slow to wait for."""
    if found.decode_tokens_per_second >= 5:
        return found
    four = best_fit(member, machine, context, among=quants_of(member.shape, GOOD_QUANTS)[-1:])
    return four if four is not None and four.fits else found


def _on_cards(member: Member, machine: Machine, context: int) -> str:
    """What an engine that used the cards would give, at four bits."""
    if not machine.gpus:
        return ""
    quant = quants_of(member.shape, GOOD_QUANTS)[-1]
    judged = best_fit(member, machine, context, among=(quant,))
    assert judged is not None
    sizes = known_sizes(member.shape, quant, member.name)
    placement = place(sizes, judged.need, machine)
    if not placement.fits or placement.decode is None or placement.decode[1] < _SLOWEST:
        return ""
    share = placement.layers_on_cards / sizes.num_layers
    return f" ({share:.0%} on cards: {_rate(placement.decode[1])})"


def _rate(value: float) -> str:
    return f"{value:.0f}/s" if value >= 10 else f"{value:.1f}/s"


def page(text: str) -> str:
    """`text` with its generated part made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{page_table()}\n{END}{after}"


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(args).check
    old = PAGE.read_text("utf-8")
    if check:
        return int(page(old) != old)
    shapes = []
    for member in members():
        try:
            if member.shape:
                sizes_of_shape(member.shape, "BF16", member.name)
                shapes.append((member.name, member.shape))
        except UserError as error:
            sys.stdout.write(f"left out: {error.message}\n")
    TABLE.write_text(make_table(shapes), "utf-8")
    PAGE.write_text(page(old), "utf-8")
    sys.stdout.write(f"{len(shapes)} models with sizes, {len(shown())} of them on the page\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
