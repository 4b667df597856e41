# SPDX-License-Identifier: Apache-2.0
"""What commands that bring models into the store ask the house's policy, where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from freehold.hub.store import Gate, StoredModel

Override = Annotated[
    str | None,
    typer.Option(
        "--policy-override",
        metavar="WHY",
        help="Go past the policy of this machine for this reason, which is written down.",
    ),
]


def gate(override: str | None) -> Gate | None:
    """Refuses, as `freehold pull` would, what the policy forbids; None where there is no policy."""
    from freehold.licences.policy_file import policy_in_force

    if policy_in_force() is None:
        return None

    def refuse(model: StoredModel) -> None:
        from freehold.licensing import enforce, facts_of

        enforce("pull", facts_of(model), override=override)

    return refuse
