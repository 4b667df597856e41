# SPDX-License-Identifier: Apache-2.0
"""Whether a model of the catalogue fits a machine, with the numbers that say so: `fits` and
`best_fit`, which are cheap.

Works from a member's shape alone; opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from freehold.errors import UserError
from freehold.ops import KVDtype
from freehold.planner.calibration import Calibration
from freehold.planner.machine import Machine
from freehold.planner.member_sizes import known_sizes, quants_of
from freehold.planner.memory import MemoryNeed, default_context, need, usable
from freehold.planner.sizes import ModelSizes
from freehold.planner.speed import decode_seconds, kind_of


class Shaped(Protocol):
    """As much of a catalogue member as planning asks for."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Mapping[str, Any]:
        """The vendor's config.json keys; empty where nobody knows them."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model under a quantisation goes with a machine."""

    quant: str
    context: int
    need: MemoryNeed
    budget: int  # bytes that may be taken
    fits: bool
    decode_tokens_per_second: float  # of one sequence, half its context full


def fits(
    member: Shaped, machine: Machine, quant: str, context: int | None = None,
    *, parallel: int = 1, kv_dtype: KVDtype = "f16", calibration: Calibration | None = None,
) -> Fit | None:  # fmt: skip
    """Judge a member under one quantisation; None where freehold cannot run such a model, nobody
    knows its shape, or it was not made for so long a context."""
    if not member.shape:
        return None
    try:
        sizes = known_sizes(member.shape, quant, member.name)
    except UserError:
        return None
    if context is not None and context > sizes.context_length:
        return None
    return fit(sizes, machine, quant, context, parallel=parallel, kv_dtype=kv_dtype,
               calibration=calibration)  # fmt: skip


def best_fit(
    member: Shaped, machine: Machine, context: int | None = None,
    *, among: Sequence[str] | None = None, calibration: Calibration | None = None,
) -> Fit | None:  # fmt: skip
    """The best quantisation of a member that fits; where none does, the smallest, with `fits`
    false. `among` has the best first; None: those that are usual for it. None as `fits`."""
    found = None
    for quant in quants_of(member.shape) if among is None else among:
        found = fits(member, machine, quant, context, calibration=calibration)
        if found is None or found.fits:
            return found
    return found


def fit(
    sizes: ModelSizes, machine: Machine, quant: str, context: int | None = None,
    *, parallel: int = 1, kv_dtype: KVDtype = "f16", calibration: Calibration | None = None,
) -> Fit:  # fmt: skip
    """Judge sizes: on the processor and its memory, where freehold computes."""
    context = context or default_context(sizes)
    wanted = need(sizes, context, parallel=parallel, kv_dtype=kv_dtype)
    budget = usable(machine.free)
    seconds = decode_seconds(sizes, machine.rates, context / 2, kv_dtype=kv_dtype)
    if calibration is not None:
        seconds *= calibration.factor("decode", kind_of(sizes)).middle
    return Fit(quant, context, wanted, budget, wanted.total <= budget, 1 / seconds)
