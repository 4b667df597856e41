# SPDX-License-Identifier: Apache-2.0
"""Who wants to do what with a model: the facts a licence asks about.

What is None has not been said, and is an open question wherever a licence depends on it. Knows no
licence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from freehold.errors import InvalidParameterError
from freehold.licences.schema import Metric

EU = frozenset(
    ("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT",
     "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK")
)  # fmt: skip
_OTHER_CODES = {"UK": "GB", "EL": "GR", "USA": "US"}
# The flag that answers a question, for the sentence that says what is missing.
FLAGS: dict[str, str] = {
    "mau": "--mau",
    "monthly_revenue_usd": "--monthly-revenue",
    "annual_revenue_usd": "--annual-revenue",
}


@dataclass(frozen=True, slots=True)
class Situation:
    """One use of one model. Money is in US dollars."""

    commercial: bool | None = None
    mau: int | None = None  # monthly active users, at the date the licence asks for
    monthly_revenue: int | None = None
    annual_revenue: int | None = None
    region: str | None = None  # where the user lives or the company has its seat: "EU", "DE", "US"
    distribute: bool = False  # the weights, or a product that contains them, go to others
    host: bool = False  # others use it over a network
    modify: bool = False  # the model is fine-tuned, merged or otherwise changed
    train_on_outputs: bool = False  # its answers train or improve another model
    end_user: bool = False  # it came as part of somebody else's finished product
    purposes: tuple[str, ...] = ()  # fields of use a licence may forbid: see `topics` of licences
    derived_name: str | None = None  # of the model that is made from it

    def __post_init__(self) -> None:
        for field in ("mau", "monthly_revenue", "annual_revenue"):
            value = getattr(self, field)
            if value is not None and value < 0:
                raise InvalidParameterError(f"{field} cannot be negative")
        if self.region is not None:
            object.__setattr__(self, "region", _region(self.region))

    def is_in(self, areas: tuple[str, ...]) -> bool | None:
        """Whether this is in one of the areas; None where nobody said where it is."""
        if self.region is None:
            return None
        within = {self.region} | ({"EU"} if self.region in EU else set())
        if self.region == "EU":  # somewhere in it: any member state may be meant
            return "EU" in areas or (None if EU & set(areas) else False)
        return bool(within & set(areas))

    def above(self, metric: Metric, limit: int) -> bool | None:
        """Whether a number is above a limit; None where that is not known."""
        if metric == "mau":
            return None if self.mau is None else self.mau > limit
        month, year = self.monthly_revenue, self.annual_revenue
        if metric == "monthly_revenue_usd":
            if month is not None:
                return month > limit
            return False if year is not None and year <= limit else None  # no month beats its year
        if year is not None:
            return year > limit
        return True if month is not None and month > limit else None


def _region(text: str) -> str:
    code = text.strip().upper()
    code = _OTHER_CODES.get(code, code)
    if not re.fullmatch("[A-Z]{2}", code):
        raise InvalidParameterError(
            f"{text!r:.40} is no region", hint="EU, or the two letters of a country, such as DE, US"
        )
    return code
