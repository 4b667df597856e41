# SPDX-License-Identifier: Apache-2.0
"""Per-layer embeddings: a narrow input to every layer, looked up by token and blended with a
projection of the ordinary embedding (Gemma 3n and 4).

The table is the largest tensor of these models. Rows are looked up in it, nothing is ever
multiplied by it. Knows ops and tensor names, no family's layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.models._gemma4_config import Gemma4Config
from freehold.models._weights import Expected, WeightLoader
from freehold.ops import Activation, Array, Ops, Weight


@dataclass(frozen=True, slots=True)
class PerLayerInputs:
    """What all layers get, side by side: (norm(projection · x / √hidden) + row · √width) / √2."""

    table: Weight  # [vocab, layers · width]
    projection: Weight  # [layers · width, hidden]
    norm: Array  # [width] divided by √2
    row_scale: float  # √(width / 2)
    eps: float  # times hidden, which stands for the division by √hidden before the norm

    def forward(self, ids: npt.NDArray[np.int32], embedded: Array, ops: Ops) -> Array:
        """[T, layers · width] out of token ids and their scaled embeddings [T, hidden]."""
        rows = ops.scale(ops.embed(self.table, ids), self.row_scale)
        projected = ops.rms_norm(ops.linear(embedded, self.projection), self.norm, self.eps)
        return ops.add(rows, projected)


@dataclass(frozen=True, slots=True)
class PerLayerGate:
    """What one layer makes of its input: norm(project · (activation(gate · x) · input))."""

    gate: Weight  # [width, hidden]
    project: Weight  # [hidden, width]
    norm: Array  # [hidden]
    activation: Activation

    def forward(self, x: Array, given: Array, eps: float, ops: Ops) -> Array:
        """[T, hidden] out of x [T, hidden] and the layer's input [T, width]."""
        gated = ops.multiply(ops.activate(ops.linear(x, self.gate), self.activation), given)
        return ops.rms_norm(ops.linear(gated, self.project), self.norm, eps)


def expected_inputs(config: Gemma4Config) -> Iterator[tuple[str, Expected]]:
    """Canonical name and shape of each tensor that belongs to no layer."""
    width, hidden = config.per_layer_width, config.hidden_size
    both = config.num_layers * width
    yield "per_layer_token_embd.weight", Expected((config.vocab_size, both))
    yield "per_layer_model_proj.weight", Expected((both, hidden))
    yield "per_layer_proj_norm.weight", Expected((width,))


def expected_gate(config: Gemma4Config, layer: int) -> Iterator[tuple[str, Expected]]:
    """Canonical name and shape of each tensor of one layer."""
    blk, width, hidden = f"blk.{layer}.", config.per_layer_width, config.hidden_size
    yield blk + "inp_gate.weight", Expected((width, hidden))
    yield blk + "proj.weight", Expected((hidden, width))
    yield blk + "post_norm.weight", Expected((hidden,))


def load_inputs(weights: WeightLoader, config: Gemma4Config) -> PerLayerInputs:
    """Hand the tensors to the device; they have been checked."""
    norm = weights.values("per_layer_proj_norm.weight") * np.float32(0.5**0.5)
    return PerLayerInputs(
        table=weights.matrix("per_layer_token_embd.weight"),
        projection=weights.matrix("per_layer_model_proj.weight"),
        norm=weights.made_vector(norm),
        row_scale=(config.per_layer_width / 2) ** 0.5,
        eps=config.norm_eps * config.hidden_size,
    )


def load_gate(weights: WeightLoader, config: Gemma4Config, layer: int) -> PerLayerGate:
    """Hand the tensors of one layer to the device; they have been checked."""
    blk = f"blk.{layer}."
    return PerLayerGate(
        gate=weights.matrix(blk + "inp_gate.weight"),
        project=weights.matrix(blk + "proj.weight"),
        norm=weights.vector(blk + "post_norm.weight"),
        activation=config.activation,
    )
