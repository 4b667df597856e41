# SPDX-License-Identifier: Apache-2.0
"""How much work a token is, and how fast the machine could do it at best.

A step must read every weight it uses once, and the keys and values of each sequence; and it
must multiply. Its shortest time is the longer of the two at the machine's measured rates. All
multiplications are counted at the int8 rate, so a share of 100 % cannot be reached by attention
in floating point: the limit is the machine's, not the implementation's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freehold.llm import LLM

_EMBEDDINGS = ("token_embd.weight", "model.embed_tokens.weight")
_OUTPUTS = ("output.weight", "lm_head.weight")


@dataclass(frozen=True)
class Work:
    """Per token of output (decode) or input (prefill)."""

    bytes_per_token: float
    operations_per_token: float


def machine_limits(ops: Any) -> dict[str, float] | None:
    """``{"read_gbps": …, "int8_gops": …}`` as the backend measures them, or None."""
    measure = getattr(ops, "machine_limits", None)
    if measure is None:
        return None
    found: Mapping[str, float] | None = measure()
    if not found or not all(found.get(key) for key in ("read_gbps", "int8_gops")):
        return None
    return {str(key): float(value) for key, value in found.items()}


def work(llm: LLM, kind: str, tokens: int, depth: int, streams: int) -> Work:
    """Bytes and operations per token of one benchmark row."""
    layer_bytes, layer_weights, head_bytes, head_weights = _weights(llm)
    config = llm.config
    # Two operations per multiply-add; queries times keys, then weights times values.
    per_position = 4 * config.num_layers * config.num_heads * config.head_dim
    if kind == "prefill":
        # Only the last token needs the output matrix. A token at p sees p + 1 positions.
        total_bytes = layer_bytes + head_bytes + llm.kv_bytes_per_token * tokens
        operations = (
            2 * layer_weights * tokens + 2 * head_weights + per_position * tokens * (tokens + 1) / 2
        )
        return Work(total_bytes / tokens, operations / tokens)
    seen = max(depth, 1) + (tokens + 1) / 2
    step_bytes = layer_bytes + head_bytes + streams * llm.kv_bytes_read(seen)
    operations = 2 * (layer_weights + head_weights) + per_position * seen
    return Work(step_bytes / streams, operations)


def limit(task: Work, limits: Mapping[str, float] | None) -> float | None:
    """Tokens per second the machine allows, or None where it was not measured."""
    if limits is None:
        return None
    seconds = max(
        task.bytes_per_token / (limits["read_gbps"] * 1e9),
        task.operations_per_token / (limits["int8_gops"] * 1e9),
    )
    return 1 / seconds


def _weights(llm: LLM) -> tuple[int, int, int, int]:
    """Bytes and elements of the layers' matrices, and of the output matrix."""
    layers = [0, 0]
    heads = [0, 0]
    embedding = [0, 0]
    for name, tensor in llm.checkpoint.tensors.items():
        if len(tensor.shape) < 2:
            continue
        target = layers
        if name in _OUTPUTS:
            target = heads
        elif name in _EMBEDDINGS:
            target = embedding
        target[0] += tensor.nbytes
        target[1] += tensor.num_elements
    # A tied embedding is the output matrix; an untied one is read a row at a time.
    if llm.config.tied_embeddings:
        heads = embedding
    return layers[0], layers[1], heads[0], heads[1]
