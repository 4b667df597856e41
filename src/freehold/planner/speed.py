# SPDX-License-Identifier: Apache-2.0
"""How much work a token is, and how long a machine takes for it.

A step reads every weight it uses once, and the keys and values of each sequence; and it multiplies.
At best it takes the longer of the two at the machine's rates. What is reached of that is in
`calibration`. All multiplications of a limit are counted at the int8 rate; a prediction knows that
attention and matrices of floats are slower.
"""

from __future__ import annotations

from dataclasses import dataclass

from freehold.config import DEFAULT_BLOCK_SIZE
from freehold.engine.kv_cache import block_bytes
from freehold.ops import KVDtype
from freehold.planner.machine import Rates
from freehold.planner.sizes import Matrices, ModelSizes


@dataclass(frozen=True, slots=True)
class Work:
    """Per token of output (decode) or input (prefill)."""

    bytes_per_token: float
    operations_per_token: float

    def seconds(self, rates: Rates) -> float:
        """The least time of a token: the longer of reading and multiplying."""
        return max(self.bytes_per_token / rates.read, self.operations_per_token / rates.int8)


def decode_work(
    sizes: ModelSizes, positions: float, *, streams: int = 1, kv_dtype: KVDtype = "f16"
) -> Work:
    """One more token of each of `streams` sequences that have `positions` before it."""
    weights = sum(m.resident_bytes * _share(m, sizes, streams) for m in sizes.matrices)
    cache = streams * kv_bytes_read(sizes, positions, kv_dtype)
    operations = 2 * _elements(sizes, head=True) + _attention_operations(sizes, positions)
    return Work((weights + cache) / streams, operations)


def prefill_work(sizes: ModelSizes, tokens: int, *, kv_dtype: KVDtype = "f16") -> Work:
    """A token of a prompt of so many. Only the last one needs the output matrix."""
    weights = sum(m.resident_bytes * _share(m, sizes, tokens) for m in sizes.matrices)
    per_token = kv_bytes_read(sizes, 1, kv_dtype)
    head = _elements(sizes, head=True) - _elements(sizes, head=False)
    operations = (
        2 * _elements(sizes, head=False)
        + 2 * head / tokens
        + _attention_operations(sizes, (tokens + 1) / 2)
    )
    return Work(weights / tokens + per_token, operations)


def kv_bytes_read(sizes: ModelSizes, positions: float, kv_dtype: KVDtype) -> float:
    """Bytes of cache that a token after `positions` others reads: of a layer with a window no more
    than the window."""
    block = DEFAULT_BLOCK_SIZE
    return sum(
        count * block_bytes([s], block, kv_dtype) / block * min(positions, s.window or positions)
        for s, count in sizes.caches
    )


def _share(matrices: Matrices, sizes: ModelSizes, tokens: int) -> float:
    """Of matrices, the share that a step of so many tokens reads. Tokens choose experts as if by
    lot: some choose the same."""
    if matrices.use == "lookup":
        return 0.0
    if matrices.use != "expert":
        return 1.0
    return 1.0 - (1.0 - sizes.top_k / sizes.num_experts) ** tokens


def _elements(sizes: ModelSizes, *, head: bool) -> float:
    """Weights that one token is multiplied by."""
    chosen = sizes.top_k / sizes.num_experts if sizes.num_experts else 1.0
    wanted = {"layer": 1.0, "expert": chosen, "head": float(head), "lookup": 0.0}
    return sum(m.elements * wanted[m.use] for m in sizes.matrices)


def _attention_operations(sizes: ModelSizes, positions: float) -> float:
    """Queries times keys, then weights times values; two operations per multiply-add."""
    # Layers may share caches, and an indexer has one of its own: all who read it count.
    layers = sum(count for _, count in sizes.caches)
    total = 0.0
    for spec, count in sizes.caches:
        seen = min(positions, spec.window or positions) / spec.stride
        width = spec.key_dim + (spec.value_dim or spec.key_dim)
        total += 2 * sizes.num_heads * width * seen * count
    return total * sizes.num_layers / max(1, layers)


@dataclass(frozen=True, slots=True)
class WeightsUsed:
    """Of the matrices that one token is multiplied by; of experts, the chosen ones."""

    layer_bytes: float
    layer_elements: float
    head_bytes: float  # the output matrix
    head_elements: float


def weights_used(sizes: ModelSizes) -> WeightsUsed:
    """What one token takes of the weights."""
    heads = [m for m in sizes.matrices if m.use == "head"]
    layers = [m for m in sizes.matrices if m.use in ("layer", "expert")]
    return WeightsUsed(
        sum(m.resident_bytes * _share(m, sizes, 1) for m in layers),
        _elements(sizes, head=False),
        sum(m.resident_bytes for m in heads),
        sum(m.elements for m in heads),
    )


# -- what is to be expected ------------------------------------------------------------------------

# Shares of the machine's rates that the kernels reach: of bandwidth by decoding, of int8 operations
# by prompts. Measured on one machine; `calibration` corrects them on every other.
_READ_SHARE = 0.90
_INT8_SHARE = 0.62
# Blocks that are unpacked through codebooks cost more than their bytes.
_CODEBOOKS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0")
_CODEBOOK_COST = 3.0
# Operations of a matrix of floats, in those of int8: BF16 has a dot product of its own where the
# processor has one, all else is multiplied in float32.
_FLOAT_COST = {"BF16": 2.0, "F16": 4.0, "F32": 4.0}
_ATTENTION_COST = 4.0  # float32, too
_STEP_SECONDS = 0.0002  # scheduling and sampling
_LAYER_SECONDS = 0.00009  # calls from one operation to the next
_START_SECONDS = 0.25  # modules, threads, self-check of the kernels
_TOKENIZER_SECONDS = 3e-6  # for each token of the vocabulary
_CHUNK = 512  # prompt tokens a step computes


def kind_of(sizes: ModelSizes) -> str:
    """What models are told apart by when predictions are corrected."""
    return f"{sizes.main_type} experts" if sizes.num_experts else sizes.main_type


def decode_seconds(
    sizes: ModelSizes, rates: Rates, positions: float, *, streams: int = 1,
    kv_dtype: KVDtype = "f16",
) -> float:  # fmt: skip
    """A step in which each of `streams` sequences gets a token, as far as is known beforehand."""
    read = 0.0
    for m in sizes.matrices:
        cost = _CODEBOOK_COST if m.qtype in _CODEBOOKS else 1.0
        read += cost * m.resident_bytes * _share(m, sizes, streams)
    read += streams * kv_bytes_read(sizes, positions, kv_dtype)
    operations = streams * _weighed_operations(sizes, positions, head=1.0)
    busy = max(read / (rates.read * _READ_SHARE), operations / (rates.int8 * _INT8_SHARE))
    return busy + _STEP_SECONDS + _LAYER_SECONDS * sizes.num_layers


def prefill_seconds(
    sizes: ModelSizes, rates: Rates, tokens: int, *, kv_dtype: KVDtype = "f16"
) -> float:
    """A prompt of so many tokens up to its first answer."""
    steps = -(-tokens // _CHUNK)
    read = steps * sum(
        m.resident_bytes * _share(m, sizes, min(tokens, _CHUNK)) for m in sizes.matrices
    )
    operations = tokens * _weighed_operations(sizes, (tokens + 1) / 2, head=1 / tokens)
    busy = max(read / (rates.read * _READ_SHARE), operations / (rates.int8 * _INT8_SHARE))
    return busy + steps * (_STEP_SECONDS + _LAYER_SECONDS * sizes.num_layers)


def load_seconds(sizes: ModelSizes, rates: Rates) -> float:
    """From the call to a model that answers, where the files lie in the system's cache."""
    fill = rates.fill or rates.read / 8
    return _START_SECONDS + sizes.resident_bytes / fill + _TOKENIZER_SECONDS * sizes.vocab_size


def _weighed_operations(sizes: ModelSizes, positions: float, *, head: float) -> float:
    """Operations of a token, in those of int8. `head`: how often the output matrix is asked."""
    chosen = sizes.top_k / sizes.num_experts if sizes.num_experts else 1.0
    wanted = {"layer": 1.0, "expert": chosen, "head": head, "lookup": 0.0}
    products = sum(
        m.elements * wanted[m.use] * _FLOAT_COST.get(m.qtype, 1.0) for m in sizes.matrices
    )
    return 2 * products + _ATTENTION_COST * _attention_operations(sizes, positions)
