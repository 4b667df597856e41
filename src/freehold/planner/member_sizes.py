# SPDX-License-Identifier: Apache-2.0
"""Sizes of the catalogue's models under the usual quantisations, worked out beforehand.

Working them out takes milliseconds a model, and `freehold models --fits` asks for all. The table is
made by `tools/hardware_table.py`; what it does not have, or has of another shape, is worked out
when it is asked for, so that it can be slow and never wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from freehold.ops import KVLayerSpec
from freehold.planner.sizes import Matrices, ModelSizes, sizes_of_shape

TABLE = Path(__file__).parent / "member_sizes.json"
# Best first. Four-bit floats are how some models are published.
USUAL_QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
# Where a smaller sister of the family is the better choice, if there is one.
POOR_QUANTS = ("Q3_K_M", "Q2_K")
KEPT_QUANTS = ("BF16", *USUAL_QUANTS, "MXFP4_MOE")
_NUMBERS = (
    "context_length", "vocab_size", "hidden_size", "num_layers", "query_width",
    "feed_forward_width", "num_heads", "num_experts", "top_k", "vector_bytes", "stored_bytes",
    "parameters",
)  # fmt: skip


# Models published in fewer bits than eight: nothing is gained by more than their vendor's.
_OWN_QUANTS = {"gpt_oss": "MXFP4_MOE"}


def quants_of(shape: Mapping[str, Any], among: Sequence[str] = USUAL_QUANTS) -> tuple[str, ...]:
    """The quantisations to try for a model, out of `among`, the best first."""
    own = _OWN_QUANTS.get(str(shape.get("model_type")))
    return (own,) if own else tuple(among)


def known_sizes(shape: Mapping[str, Any], quant: str, where: str) -> ModelSizes:
    """The sizes of a shape under a quantisation. Raises as `sizes.sizes_of_shape`."""
    return _kept(digest(shape), quant.upper()) or sizes_of_shape(shape, quant, where)


@cache
def _kept(key: str, quant: str) -> ModelSizes | None:
    entry = _table().get(key)
    if entry is None or quant not in entry["quants"]:
        return None
    stored, matrices = entry["quants"][quant]
    return ModelSizes(
        architecture=entry["architecture"],
        caches=tuple((KVLayerSpec(*spec), count) for spec, count in entry["caches"]),
        matrices=tuple(Matrices(*each) for each in matrices),
        **{**entry["numbers"], "stored_bytes": stored},
    )


@cache
def _table() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(TABLE.read_text("utf-8"))
    except OSError:
        return {}
    return found


def digest(shape: Mapping[str, Any]) -> str:
    """What the table knows a shape by."""
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


def make_table(shapes: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """The table's text for shapes, each with a name for messages. Those freehold cannot run, and
    quantisations that do not fit a shape, are left out."""
    table: dict[str, Any] = {}
    for where, shape in shapes:
        if (key := digest(shape)) not in table:
            table[key] = _entry(shape, where)
    rows = (f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in table.items())
    return "{" + ",\n".join(sorted(rows)) + "}\n"


def _entry(shape: Mapping[str, Any], where: str) -> dict[str, Any]:
    quants: dict[str, Any] = {}
    for quant in KEPT_QUANTS:
        sizes = sizes_of_shape(shape, quant, where)
        if quant == "MXFP4_MOE" and not sizes.num_experts:
            continue
        quants[quant] = (
            sizes.stored_bytes,
            [(m.use, m.qtype, m.resident_bytes, m.elements) for m in sizes.matrices],
        )
    return {
        "architecture": sizes.architecture,
        "caches": [
            ((s.num_kv_heads, s.key_dim, s.value_dim, s.window, s.rows, s.stride), count)
            for s, count in sizes.caches
        ],
        "numbers": {name: getattr(sizes, name) for name in _NUMBERS},
        "quants": quants,
    }
