# SPDX-License-Identifier: Apache-2.0
"""Tokens wanted behind a prompt: what was asked for, as the state of the sequence that does it.

The counterpart of `measuring.py`. Knows how settings become limits, ends and a sampler; queues
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from freehold.batch import IntArray
from freehold.config import EngineConfig
from freehold.engine.inputs import check_token_id, checked_ids
from freehold.engine.sampler import BreakerMasks, SequenceSampler, uses_dry
from freehold.engine.sequence import LogitsProcessor
from freehold.engine.speculative import DraftControl
from freehold.engine.structured import TokenConstraint
from freehold.types import SamplingParams


@dataclass(frozen=True, slots=True)
class Generating:
    """What all generated sequences of one engine have in common."""

    config: EngineConfig
    max_length: int
    vocab_size: int
    eos: frozenset[int]
    breakers: BreakerMasks

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> IntArray:
        """The ids of a prompt that can be answered so. Raises ContextLengthError and
        InvalidParameterError."""
        longest = self.max_length
        ids = checked_ids(prompt_token_ids, longest - 1, longest, self.vocab_size)
        for name in ("logit_bias", "stop_token_ids"):
            for token in getattr(params, name):
                check_token_id(token, self.vocab_size, name)
        return ids

    def sequence_fields(
        self,
        ids: IntArray,
        params: SamplingParams,
        constraint: TokenConstraint | None,
        logits_processor: LogitsProcessor | None,
    ) -> dict[str, Any]:
        """Fields of the `SequenceState` that answers a prompt of checked ids."""
        room = self.max_length - len(ids)
        max_tokens = room if params.max_tokens is None else min(params.max_tokens, room)
        # A drawn sequence without a seed still needs one, or preempting it could change it.
        if params.seed is None:
            params = replace(params, seed=int(np.random.SeedSequence().generate_state(1)[0]))
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.eos)
        sampler = SequenceSampler(
            params,
            ids,
            self.vocab_size,
            end_token_ids=ends,
            breakers=self.breakers.get(params.dry_sequence_breakers) if uses_dry(params) else None,
            avoided_ids=self.eos if constraint is not None and params.ignore_eos else (),
            logits_processor=logits_processor,
        )
        forcing = constraint is not None and self.config.forced_tokens
        drafts = self.config.speculative_tokens
        wants_prompt = params.prompt_logprobs is not None
        return {
            "params": params,
            "tokens": ids,
            "num_tokens": len(ids),
            "prompt_len": len(ids),
            "max_len": len(ids) + max_tokens,
            "next_wanted_row": 0 if wants_prompt else len(ids) - 1,
            "sampler": sampler,
            "draft_control": DraftControl(drafts) if drafts else None,
            "end_token_ids": ends,
            "constraint": constraint,
            "forcing": forcing,
            "forced": constraint.forced() if constraint is not None and forcing else [],
            "prompt_logprobs": [None] if wants_prompt else None,
        }
