# SPDX-License-Identifier: Apache-2.0
"""`freehold models --fits`: which models a machine can run, under which quantisation, best first.

Knows the order of the list. What fits, and how capable a model may be, is the planner's to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from freehold.catalogue.member import Member
from freehold.planner import fit as planner
from freehold.planner.fit import Fit
from freehold.planner.machine import Machine
from freehold.planner.member_sizes import POOR_QUANTS
from freehold.planner.recommend import score

# The least stored bits of a weight in any quantisation: what is too large so need not be tried.
_LEAST_BITS = 2.5
_SLOW = 3.0  # tokens a second: slower than people read


@dataclass(frozen=True, slots=True)
class Choice:
    """A model with the best quantisation that fits."""

    member: Member
    fit: Fit

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Models that run well first, of them those one can talk to, then by what can be
        expected."""
        fit = self.fit
        well = fit.quant not in POOR_QUANTS and fit.decode_tokens_per_second >= _SLOW
        return not well, "chat" not in self.member.tasks, -score(self.member, fit.quant)


def choose(members: Iterable[Member], machine: Machine, context: int | None) -> list[Choice]:
    """Those that fit, best first. Models of which no shape is known are left out."""
    found = []
    for member in members:
        fit = best_fit(member, machine, context)
        if fit is not None:
            found.append(Choice(member, fit))
    return sorted(found, key=lambda choice: choice.rank)


def best_fit(member: Member, machine: Machine, context: int | None) -> Fit | None:
    """The best quantisation that fits; None where none does."""
    if (member.parameters - member.other_parameters) * _LEAST_BITS / 8 > machine.free:
        return None
    found = planner.best_fit(member, machine, context)
    return found if found is not None and found.fits else None
