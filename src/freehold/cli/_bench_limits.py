# SPDX-License-Identifier: Apache-2.0
"""How much work a token is, and how fast the machine could do it at best.

A step must read every weight it uses once, and the keys and values of each sequence; and it
must multiply. Its shortest time is the longer of the two at the machine's measured rates. All
multiplications are counted at the int8 rate, so a share of 100 % cannot be reached by attention
in floating point: the limit is the machine's, not the implementation's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freehold.llm import LLM

_EMBEDDINGS = ("token_embd.weight", "model.embed_tokens.weight")
# GGUF's stacks, its old files with a tensor for each expert, and Hugging Face's names.
_EXPERTS = re.compile(r"_exps\.|\.ffn_(gate|up|down)\.\d+\.|\.experts\.")
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
    used = weights_used(llm)
    read = used.layer_bytes + used.head_bytes
    config = llm.config
    # Two operations per multiply-add; queries times keys, then weights times values.
    per_position = 4 * config.num_layers * config.num_heads * config.head_dim
    if kind == "prefill":
        # Only the last token needs the output matrix. A token at p sees p + 1 positions.
        total_bytes = read + llm.kv_bytes_per_token * tokens
        operations = (
            2 * used.layer_elements * tokens
            + 2 * used.head_elements
            + per_position * tokens * (tokens + 1) / 2
        )
        return Work(total_bytes / tokens, operations / tokens)
    seen = max(depth, 1) + (tokens + 1) / 2
    step_bytes = read + streams * llm.kv_bytes_read(seen)
    operations = 2 * (used.layer_elements + used.head_elements) + per_position * seen
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


@dataclass(frozen=True)
class WeightsUsed:
    """Of the matrices that one token is multiplied by."""

    layer_bytes: float
    layer_elements: float
    head_bytes: float  # the output matrix
    head_elements: float


def weights_used(llm: LLM) -> WeightsUsed:
    """What one token takes of the file. Of experts these are the chosen ones: several tokens in
    one step may need more of them, never fewer, so the limit stays one."""
    layers, heads, embedding = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    moe = llm.config.moe
    chosen = moe.routing.top_k / moe.num_experts if moe else 1.0
    for name, tensor in llm.checkpoint.tensors.items():
        if len(tensor.shape) < 2:
            continue
        share = chosen if _EXPERTS.search(name) else 1.0
        target = heads if name in _OUTPUTS else embedding if name in _EMBEDDINGS else layers
        target[0] += tensor.nbytes * share
        target[1] += tensor.num_elements * share
    # A tied embedding is the output matrix; an untied one is read a row at a time.
    if llm.config.tied_embeddings:
        heads = embedding
    return WeightsUsed(*layers, *heads)
