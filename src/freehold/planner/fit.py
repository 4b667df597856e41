# SPDX-License-Identifier: Apache-2.0
"""Whether a model fits a machine, with the numbers that say so: `fits`, which is cheap.

Works from a catalogue member's shape alone; opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from freehold.ops import KVDtype
from freehold.planner.machine import Machine
from freehold.planner.memory import MemoryNeed, default_context, need, usable
from freehold.planner.sizes import ModelSizes, sizes_of_shape
from freehold.planner.speed import decode_work


class Shaped(Protocol):
    """As much of a catalogue member as planning asks for."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Mapping[str, Any]:
        """The vendor's config.json keys."""


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
    *, parallel: int = 1, kv_dtype: KVDtype = "f16",
) -> Fit:  # fmt: skip
    """Judge a catalogue member. Raises UnsupportedModelError for a shape freehold cannot run."""
    sizes = sizes_of_shape(member.shape, quant, member.name)
    return fit(sizes, machine, quant, context, parallel=parallel, kv_dtype=kv_dtype)


def fit(
    sizes: ModelSizes, machine: Machine, quant: str, context: int | None = None,
    *, parallel: int = 1, kv_dtype: KVDtype = "f16",
) -> Fit:  # fmt: skip
    """Judge sizes: on the processor and its memory, where freehold computes."""
    context = context or default_context(sizes)
    wanted = need(sizes, context, parallel=parallel, kv_dtype=kv_dtype)
    budget = usable(machine.free)
    work = decode_work(sizes, context / 2, kv_dtype=kv_dtype)
    return Fit(
        quant, context, wanted, budget, wanted.total <= budget, 1 / work.seconds(machine.rates)
    )
