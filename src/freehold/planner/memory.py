# SPDX-License-Identifier: Apache-2.0
"""How many bytes running a model takes, by what they are for: the one home of such estimates.

Weights and cache are counted exactly as loading and the engine lay them out. What the process and a
forward pass take beside them is a formula fitted to measured processes; `benchmarks/plan_memory.py`
holds all of it against the real thing.
"""

from __future__ import annotations

from dataclasses import dataclass

from freehold.config import DEFAULT_BLOCK_SIZE, EngineConfig
from freehold.engine.kv_cache import cache_for, longest_context
from freehold.ops import KVDtype
from freehold.planner.sizes import ModelSizes

# Unless somebody says how long contexts are: the model's own, but no more than this.
DEFAULT_CONTEXT = 8192
# The interpreter with NumPy and freehold's own modules, and what a vocabulary takes for each token:
# its text, its score, the tables that split text into tokens.
_PROCESS_BYTES = 68 << 20
_BYTES_PER_TOKEN = 390
# Staging buffers of two threads while files are read, panels of unpacked weights.
_KERNEL_BYTES = 6 << 20
# What is left free for everything else on the machine.
_SPARE_SHARE = 0.05
_LEAST_SPARE = 256 << 20


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes, by what they are for."""

    weights: int
    kv_cache: int  # of `parallel` sequences of `context` tokens
    buffers: int  # of one step
    process: int  # interpreter, libraries, vocabulary

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.buffers + self.process

    def as_dict(self) -> dict[str, int]:
        """For programs to read."""
        return {
            "weights": self.weights,
            "kv_cache": self.kv_cache,
            "buffers": self.buffers,
            "process": self.process,
            "total": self.total,
        }


def need(
    sizes: ModelSizes, context: int, *, parallel: int = 1, kv_dtype: KVDtype = "f16"
) -> MemoryNeed:
    """What `parallel` sequences of `context` tokens take while all of them are full."""
    config = EngineConfig(context, max_num_seqs=parallel, kv_dtype=kv_dtype)
    return MemoryNeed(
        weights=sizes.resident_bytes,
        kv_cache=cache_for(sizes.kv_layers, config, parallel),
        buffers=buffer_bytes(sizes, min(config.max_num_batched_tokens, context * parallel)),
        process=process_bytes(sizes),
    )


def process_bytes(sizes: ModelSizes) -> int:
    """The interpreter, the libraries and the vocabulary."""
    return _PROCESS_BYTES + _BYTES_PER_TOKEN * sizes.vocab_size


def buffer_bytes(sizes: ModelSizes, tokens: int) -> int:
    """Arrays of one step over so many tokens: the residual stream and its norm, queries and what
    attention gives, keys and values, both sides of the feed-forward."""
    width = (
        2 * sizes.hidden_size
        + 1.5 * sizes.query_width
        + sizes.kv_width
        + 2 * sizes.feed_forward_width
        # Experts give a row for each choice, to be added up in the order of choices.
        + sizes.top_k * sizes.hidden_size
    )
    return int(4 * tokens * width) + 8 * sizes.vocab_size + _KERNEL_BYTES


def default_context(sizes: ModelSizes) -> int:
    """The context to plan for where nobody names one."""
    return min(sizes.context_length, DEFAULT_CONTEXT)


def usable(free: int) -> int:
    """How much of the free memory a model may take."""
    return max(0, free - max(_LEAST_SPARE, int(free * _SPARE_SHARE)))


def longest_fit(
    sizes: ModelSizes, budget: int, *, parallel: int = 1, kv_dtype: KVDtype = "f16"
) -> int:
    """The longest context, in whole blocks, for which everything takes `budget` bytes or less; 0
    where not even a block fits."""
    return longest_context(
        sizes.context_length,
        budget,
        lambda tokens: need(sizes, max(1, tokens), parallel=parallel, kv_dtype=kv_dtype).total,
        DEFAULT_BLOCK_SIZE,
    )
