# SPDX-License-Identifier: Apache-2.0
"""Which quant of a model to fetch for this machine, when nobody said one.

Joins the variants of a repository with the catalogue and the plan. A choice is told, never asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from freehold.catalogue import catalogue
from freehold.errors import FreeholdError, ModelNotFoundError
from freehold.hub.gguf_variants import DEFAULT_ORDER, Chooser, Variant
from freehold.hub.reference import Reference


def chooser_for(ref: Reference, note: Callable[[str], None]) -> Chooser:
    """Picks the best variant for this machine: by the plan where the catalogue knows the model's
    shape, else by the sizes of the files."""

    def choose(variants: Sequence[Variant]) -> Variant | None:
        labels = [variant.label for variant in variants]
        single = {v.label: v for v in variants if v.label and labels.count(v.label) == 1}
        if not single:
            return None
        try:
            chosen = _by_plan(ref, single)
        except FreeholdError:  # what cannot be planned for can be fetched all the same
            chosen = _by_size(single)
        if chosen is None:
            note("note: no quant of it fits this machine's free memory")
        else:
            note(f"note: {chosen.label} chosen for this machine (--quant names another)")
        return chosen

    return choose


def _by_plan(ref: Reference, variants: Mapping[str, Variant]) -> Variant | None:
    """The plan's choice, None where nothing fits. Raises FreeholdError where there is no plan."""
    from freehold.planning import USUAL_QUANTS, choose_quant, here

    member = catalogue.find(ref.repository)
    among = [quant for quant in USUAL_QUANTS if quant in variants]
    if member is None or not member.shape or not among:
        raise ModelNotFoundError("the catalogue knows no shape of it")
    found = choose_quant(member.shape, here(gpus=False).machine, among=among)
    return variants[found.quant] if found.fits else None


def _by_size(variants: Mapping[str, Variant]) -> Variant | None:
    from freehold.planner.machine import this_machine
    from freehold.planner.memory import usable

    room = usable(this_machine(gpus=False).free)
    ordered = (variants[label] for label in DEFAULT_ORDER if label in variants)
    return next((v for v in ordered if v.nbytes + v.nbytes // 8 <= room), None)
