# SPDX-License-Identifier: Apache-2.0
"""From what a person calls a model to a plan for it: names, headers and the catalogue joined with
`planner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from freehold.planner.fit import Fit, fit
from freehold.planner.machine import Machine, this_machine
from freehold.planner.sizes import sizes_of_shape

# What is tried, best first: below four bits models lose more than a smaller sister would.
USUAL_QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


def choose_quant(
    model: Mapping[str, Any] | Mapping[str, int],
    machine: Machine | None = None,
    *,
    context: int | None = None,
    among: Sequence[str] = USUAL_QUANTS,
) -> Fit:
    """The quantisation to take for a model on this machine (or `machine`): the best that fits.

    `model` is a vendor's config.json. Where none fits, the smallest is told, with `fits` false.
    """
    machine = machine or this_machine(gpus=False)
    tried = [fit(sizes_of_shape(model, quant), machine, quant, context) for quant in among]
    return next((found for found in tried if found.fits), min(tried, key=lambda f: f.need.total))
