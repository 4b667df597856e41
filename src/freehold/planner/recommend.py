# SPDX-License-Identifier: Apache-2.0
"""Which model to take on a machine: the most capable one that fits and is fast enough to use.

How capable a model is, is guessed from its size alone: of experts, from the geometric mean of all
parameters and of those a token passes, and less for few bits. Knows no benchmarks of quality; a
newer model goes before an older one of a like size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from freehold.planner.calibration import Calibration
from freehold.planner.fit import Fit, Shaped, best_fit
from freehold.planner.machine import Machine
from freehold.planner.member_sizes import quants_of

# Slower than this, people do not wait for an answer as they read.
USABLE_RATE = 5.0
# Tried for a recommendation: from 4 bits down a smaller sister is the better choice.
GOOD_QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
_WORTH = {"Q8_0": 1.0, "MXFP4_MOE": 1.0, "Q6_K": 0.99, "Q5_K_M": 0.97, "Q4_K_M": 0.94, "Q2_K": 0.6}
# A year makes a model about as good as one twice its size was; no more than that is claimed.
_YEARLY = 2.0
_YEAR = 2023


class Candidate(Shaped, Protocol):
    """As much of a catalogue member as choosing asks for."""

    @property
    def family(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    @property
    def active_parameters(self) -> int: ...

    @property
    def released(self) -> date: ...

    @property
    def tasks(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A member that may be taken."""

    member: Candidate
    fit: Fit
    score: float


def recommend(
    members: Iterable[Candidate], machine: Machine, *, context: int | None = None,
    task: str = "chat", calibration: Calibration | None = None, least_rate: float = USABLE_RATE,
    count: int = 5,
) -> list[Choice]:  # fmt: skip
    """The best first, one of each family. Where nothing is fast enough, what fits all the same."""
    fitting = []
    for member in members:
        if task not in member.tasks or "moderation" in member.tasks:
            continue
        found = _fast_enough(member, machine, context, calibration, least_rate)
        if found is not None and found.fits:
            fitting.append(Choice(member, found, score(member, found.quant)))
    quick = [c for c in fitting if c.fit.decode_tokens_per_second >= least_rate]
    best: dict[str, Choice] = {}
    for choice in sorted(quick or fitting, key=_order):
        best.setdefault(choice.member.family, choice)
    return list(best.values())[:count]


def _fast_enough(
    member: Candidate, machine: Machine, context: int | None, calibration: Calibration | None,
    least_rate: float,
) -> Fit | None:  # fmt: skip
    """The best quantisation that fits and is fast enough; fewer bits are faster, too."""
    slow = None
    for index in range(len(GOOD_QUANTS)):
        among = quants_of(member.shape, GOOD_QUANTS)[index:] or GOOD_QUANTS[-1:]
        found = best_fit(member, machine, context, among=among, calibration=calibration)
        if found is None or not found.fits:
            return slow or found
        if found.decode_tokens_per_second >= least_rate:
            return found
        slow = found
    return slow


def _order(choice: Choice) -> tuple[float, bool, str]:
    # Of equals, those that were not made for code in particular.
    return -choice.score, "infill" in choice.member.tasks, choice.member.name


def score(member: Candidate, quant: str) -> float:
    """How capable a model may be under a quantisation; only good for comparing."""
    size = math.sqrt(float(member.parameters) * member.active_parameters)
    age = member.released.year - _YEAR + member.released.month / 12
    return float(size * _WORTH.get(quant, 0.8) * _YEARLY**age)
