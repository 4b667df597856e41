# SPDX-License-Identifier: Apache-2.0
"""What a server tells about its work, to whoever counts it. Knows no exporter.

The registry tells of models, and each model of its answers (`AnswerWatch`), so no dialect has to.
On whose behalf an answer is made is in `request_context`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from freehold.async_llm import AnswerWatch

if TYPE_CHECKING:
    from freehold.server.models.served_model import ServedModel

# Why a model was let go: nobody asked for it, others needed the memory, somebody asked for it to
# go, its engine had stopped, the server ends.
UnloadReason = Literal["idle", "memory", "asked", "broken", "shutdown", "removed"]
UNLOAD_REASONS: tuple[UnloadReason, ...] = (
    "idle", "memory", "asked", "broken", "shutdown", "removed"
)  # fmt: skip


class Observer:
    """Told what happens, and does nothing with it. All methods are called on the event loop."""

    def answers(self, model: str) -> AnswerWatch | None:
        """Who watches the answers of a model."""
        return None

    def loaded(self, model: ServedModel, seconds: float) -> None:
        """A model can be asked from now on."""

    def load_failed(self, model: ServedModel) -> None:
        """A model could not be loaded."""

    def unloading(self, model: ServedModel, reason: UnloadReason) -> None:
        """A model is about to be let go."""

    def unloaded(self, model: ServedModel) -> None:
        """Its work is over; it can still be looked at."""

    def answered(self, method: str, route: str, status: int) -> None:
        """An HTTP request is over. `route` is a path with the names of its parameters."""
