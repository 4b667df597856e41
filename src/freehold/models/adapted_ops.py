# SPDX-License-Identifier: Apache-2.0
"""One forward pass under adapters: `Ops` in which multiplying by a matrix adds what the adapters
of its rows change.

Families know nothing of adapters: they multiply by their matrices, and here it is looked up which
rows of that product belong to whom. Everything else goes to the device as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from freehold.batch import ForwardBatch, IntArray
from freehold.errors import EngineError
from freehold.models.adapters import Adapter
from freehold.ops import Activation, Array, Ops, RowUpdate, Weight


def adapted_ops(ops: Ops, batch: ForwardBatch, adapters: Sequence[Adapter | None]) -> Ops:
    """`ops` for one pass over `batch`, whose sequence s runs under ``adapters[s]`` (None = under
    none). `ops` itself where nobody has one."""
    if all(adapter is None for adapter in adapters):
        return ops
    counts = np.diff(batch.query_start_loc)
    places = {adapter: i for i, adapter in enumerate(dict.fromkeys(a for a in adapters if a))}
    owners = np.array([places[a] if a else -1 for a in adapters], np.int32)
    per_row = np.repeat(owners, counts)
    wanted = per_row[batch.logits_rows]
    # The last layer goes on with `logits_rows` alone. They ascend, so where there are as many of
    # them as rows, they are the rows.
    groups = {
        len(rows): [(adapter, _rows_of(rows, i)) for adapter, i in places.items()]
        for rows in (wanted, per_row)
    }
    # `Any`: what is not named in the class is the device's own.
    return cast(Ops, _AdaptedOps(ops, groups))


def _rows_of(owners: IntArray, place: int) -> IntArray | None:
    """The rows of one adapter; None where all are its own."""
    rows = np.flatnonzero(owners == place).astype(np.int32)
    return None if len(rows) == len(owners) else rows


class _AdaptedOps:
    def __init__(self, ops: Ops, groups: dict[int, list[tuple[Adapter, IntArray | None]]]) -> None:
        self._ops, self._groups = ops, groups
        self._known = frozenset(
            matrix for some in groups.values() for adapter, _ in some for matrix in adapter.updates
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def linear(self, x: Array, weight: Weight, bias: Array | None = None) -> Array:
        out = self._ops.linear(x, weight, bias)
        if updates := self._updates(len(x), (weight,)):
            self._ops.add_low_rank(x, (out,), updates)
        return out

    def linear_many(
        self, x: Array, weights: Sequence[Weight], biases: Sequence[Array | None]
    ) -> tuple[Array, ...]:
        outs = self._ops.linear_many(x, weights, biases)
        if updates := self._updates(len(x), weights):
            self._ops.add_low_rank(x, outs, updates)
        return outs

    def gate_up(
        self, x: Array, gate: Weight, up: Weight, activation: Activation, **more: Any
    ) -> Array:
        updates = self._updates(len(x), (gate, up))
        return self._ops.gate_up(x, gate, up, activation, **more, updates=updates)

    def _updates(self, rows: int, weights: Sequence[Weight]) -> list[RowUpdate]:
        """What the adapters of this pass change of these matrices, in a call with `rows` rows."""
        groups = self._groups.get(rows)
        if groups is None:  # neither all rows nor the wanted ones: whose would they be?
            if rows and any(id(w) in self._known for w in weights):
                raise EngineError(f"a matrix under an adapter was given {rows} rows of a batch")
            return []
        updates = []
        for adapter, owned in groups:
            changes = tuple(adapter.updates.get(id(weight)) for weight in weights)
            if any(changes) and (owned is None or len(owned)):
                updates.append(RowUpdate(owned, changes))
        return updates
