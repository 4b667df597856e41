# SPDX-License-Identifier: Apache-2.0
"""Keys of a Hugging Face ``config.json`` that differ by the kind of a layer's attention.

Knows ``layer_types`` and the `rope_parameters` of each kind; no family.
"""

from __future__ import annotations

from typing import Any

from freehold.models._fields import Fields


def kinds_or_every(keys: Fields, period: int) -> Any:
    """``layer_types`` as it stands (unchecked); where there is none, full attention in every
    `period`-th layer and a window in the others."""
    kinds = keys.get("layer_types")
    if kinds is not None:
        return kinds
    layers = keys.integer("num_hidden_layers", high=4096)
    return [
        "full_attention" if i % period == period - 1 else "sliding_attention" for i in range(layers)
    ]


def rope_of_kind(keys: Fields, kind: str) -> dict[str, Any]:
    """What `rope_parameters` says about the layers of one kind; one table may serve all."""
    table = keys.table("rope_parameters")
    if table is None:
        return {}
    part = table.table(kind)
    if part is not None:
        return dict(part.values)
    nested = any(name in table for name in ("full_attention", "sliding_attention"))
    return {} if nested else dict(table.values)
