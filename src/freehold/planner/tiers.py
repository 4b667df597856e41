# SPDX-License-Identifier: Apache-2.0
"""Machines that nobody has to own to plan for them: the classes most people's computers fall into.

Sizes are what is free on such a machine beside a desktop and a browser; rates are what programs
reach of data-sheet bandwidth, not the sheet's number. Knows no models.
"""

from __future__ import annotations

from freehold.errors import InvalidParameterError
from freehold.planner.machine import Gpu, Machine, Rates

_GIB = 1 << 30

TIERS: dict[str, Machine] = {
    # A laptop with two channels of DDR4-2666 (42 GB/s on the sheet), four cores with AVX2.
    "8gb": Machine(
        "laptop, 8 GB RAM", 8 * _GIB, int(5.5 * _GIB), 4, Rates(30e9, 400e9, 4e9)
    ),
    # A desktop with two channels of DDR4-3200 (51 GB/s), six cores, a card such as the RTX 4060.
    "16gb": Machine(
        "desktop, 16 GB RAM, 8 GB VRAM", 16 * _GIB, 12 * _GIB, 6, Rates(38e9, 700e9, 5e9),
        (Gpu("8 GB card", 8 * _GIB, int(7.2 * _GIB), 272e9),),
    ),
    # A workstation with two channels of DDR5-5600 (90 GB/s), eight cores with VNNI, an RTX 3090.
    "24gb-gpu": Machine(
        "workstation, 64 GB RAM, 24 GB VRAM", 64 * _GIB, 56 * _GIB, 8,
        Rates(65e9, 2000e9, 6e9), (Gpu("24 GB card", 24 * _GIB, 23 * _GIB, 936e9),),
    ),
    # A server with eight channels of DDR4-3200 (205 GB/s), sixteen cores, four such cards.
    "multi-gpu": Machine(
        "server, 256 GB RAM, 4 x 24 GB VRAM", 256 * _GIB, 240 * _GIB, 16,
        Rates(140e9, 3500e9, 8e9),
        tuple(Gpu(f"24 GB card {i}", 24 * _GIB, 23 * _GIB, 936e9) for i in range(4)),
    ),
}  # fmt: skip


def tier(name: str) -> Machine:
    """The machine of a tier. Raises InvalidParameterError naming them all."""
    found = TIERS.get(name.lower())
    if found is None:
        raise InvalidParameterError(
            f"there is no tier {name!r:.40}", hint=f"one of {', '.join(TIERS)}"
        )
    return found
