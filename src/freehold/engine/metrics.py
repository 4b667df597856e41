# SPDX-License-Identifier: Apache-2.0
"""Running totals of one engine.

Plain counters that only the engine thread writes. Knows nothing of exporters or clocks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was made. Times are seconds of wall clock."""

    steps: int = 0
    prefill_tokens: int = 0  # prompt tokens the model computed (recomputed ones count again)
    decode_tokens: int = 0  # generated tokens handed out
    forced_tokens: int = 0  # of these, those that a constraint left no choice about
    cached_tokens: int = 0  # prompt tokens found in the prefix cache
    requests_added: int = 0
    requests_finished: int = 0
    requests_aborted: int = 0
    preemptions: int = 0
    drafts_proposed: int = 0
    drafts_accepted: int = 0
    model_seconds: float = 0.0  # forward pass, output head, bringing logits to the host
    step_seconds: float = 0.0  # whole steps, the model included

    @property
    def outside_seconds(self) -> float:
        """Time spent scheduling, sampling and publishing."""
        return self.step_seconds - self.model_seconds

    def snapshot(self) -> EngineStats:
        """A copy that later steps leave alone."""
        return dataclasses.replace(self)
