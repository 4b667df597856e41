# SPDX-License-Identifier: Apache-2.0
"""`freehold models --fits`: which models a machine can run, under which quantisation, best first.

Knows the order that is called best. What fits is the planner's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from freehold.catalogue.member import Member
from freehold.planner.fit import Fit, fits
from freehold.planner.machine import Machine

QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")  # best first
# The least stored bits of a weight that any of QUANTS has: what is too large so need not be tried.
_LEAST_BITS = 2.5
_GOOD = QUANTS.index("Q4_K_M")  # from here down a quantisation costs more than it saves
_SLOW = 3.0  # tokens a second: slower than people read


@dataclass(frozen=True, slots=True)
class Choice:
    """A model with the best quantisation that fits."""

    member: Member
    fit: Fit

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Models that run well first, of them those one can talk to, then by what can be expected.

        A year of progress is taken for as much as twice the size, and a model with experts for
        one between all its parameters and those a token passes through. Both are rules of thumb.
        """
        member, fit = self.member, self.fit
        well = QUANTS.index(fit.quant) <= _GOOD and fit.decode_tokens_per_second >= _SLOW
        size = math.log2(member.parameters * member.active_parameters) / 2
        return not well, "chat" not in member.tasks, -(size + member.released.toordinal() / 365.25)


def choose(members: Iterable[Member], machine: Machine, context: int | None) -> list[Choice]:
    """Those that fit, best first. Models of which no shape is known are left out."""
    found = []
    for member in members:
        fit = best_fit(member, machine, context) if member.shape else None
        if fit is not None:
            found.append(Choice(member, fit))
    return sorted(found, key=lambda choice: choice.rank)


def best_fit(member: Member, machine: Machine, context: int | None) -> Fit | None:
    """The best of `QUANTS` that fits; None where none does."""
    if (member.parameters - member.other_parameters) * _LEAST_BITS / 8 > machine.free:
        return None
    if not fits(member, machine, QUANTS[-1], context).fits:
        return None
    tried = (fits(member, machine, quant, context) for quant in QUANTS)
    return next(fit for fit in tried if fit.fits)
