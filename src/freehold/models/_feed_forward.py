# SPDX-License-Identifier: Apache-2.0
"""What follows attention in a layer: a gated feed-forward, or a choice of experts.

Knows which tensors each needs and how they are put together from ops; no family and no format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from freehold.models._weights import Expected, WeightLoader
from freehold.models.base import ModelConfig, MoeConfig
from freehold.ops import Activation, Array, Expert, Ops, PlainActivation, RoutingSpec, Weight


class FeedForward(Protocol):
    """The second half of a layer, between its norm and the residual."""

    def forward(self, x: Array, ops: Ops) -> Array:
        """[T, hidden] to [T, hidden]."""


@dataclass(frozen=True, slots=True)
class GatedFeedForward:
    """down(activation(gate(x)) · up(x))."""

    gate: Weight
    up: Weight
    down: Weight
    activation: Activation

    def forward(self, x: Array, ops: Ops) -> Array:
        return ops.linear(ops.gate_up(x, self.gate, self.up, self.activation), self.down)


@dataclass(frozen=True, slots=True)
class PlainFeedForward:
    """down(activation(up(x))): two matrices, no gate."""

    up: Weight
    up_bias: Array | None
    down: Weight
    down_bias: Array | None
    activation: PlainActivation

    def forward(self, x: Array, ops: Ops) -> Array:
        inner = ops.activate(ops.linear(x, self.up, self.up_bias), self.activation)
        return ops.linear(inner, self.down, self.down_bias)


@dataclass(frozen=True, slots=True)
class MixtureOfExperts:
    """The experts each token is sent to, and perhaps one that all pass through."""

    router: Weight  # [experts, hidden]
    experts: tuple[Expert, ...]
    routing: RoutingSpec
    bias: Array | None  # [experts], of the choice
    activation: Activation
    shared: GatedFeedForward | None
    shared_router: Weight | None  # [1, hidden]; the sigmoid of its product weighs `shared`
    router_bias: Array | None = None  # [experts], of the logits
    weigh_input: bool = False

    def forward(self, x: Array, ops: Ops) -> Array:
        chosen, weights = ops.route(
            ops.linear(x, self.router, self.router_bias), self.routing, self.bias
        )
        mixed = ops.moe(
            x, self.experts, chosen, weights, self.activation, weigh_input=self.weigh_input
        )
        if self.shared is None:
            return mixed
        always = self.shared.forward(x, ops)
        if self.shared_router is not None:
            always = ops.sigmoid_gate(always, ops.linear(x, self.shared_router))
        return ops.add(mixed, always)


def expected_feed_forward(config: ModelConfig, index: int) -> Iterator[tuple[str, Expected]]:
    """Canonical name and shape of each tensor of layer `index`."""
    blk, hidden = f"blk.{index}.", config.hidden_size
    moe = _moe_of(config, index)
    if moe is None:
        yield from expected_gated(blk, "", config.ffn_size, hidden)
        return
    experts, ffn = moe.num_experts, moe.expert_ffn_size
    yield blk + "ffn_gate_inp.weight", Expected((experts, hidden))
    if moe.selection_bias:
        yield blk + "exp_probs_b.bias", Expected((experts,))
    yield blk + "ffn_gate_exps.weight", Expected((experts, ffn, hidden))
    yield blk + "ffn_up_exps.weight", Expected((experts, ffn, hidden))
    yield blk + "ffn_down_exps.weight", Expected((experts, hidden, ffn))
    if moe.biases:
        yield blk + "ffn_gate_inp.bias", Expected((experts,))
        yield blk + "ffn_gate_exps.bias", Expected((experts, ffn))
        yield blk + "ffn_up_exps.bias", Expected((experts, ffn))
        yield blk + "ffn_down_exps.bias", Expected((experts, hidden))
    if moe.shared_ffn_size:
        if moe.shared_is_gated:
            yield blk + "ffn_gate_inp_shexp.weight", Expected((1, hidden))
        yield from expected_gated(blk, "_shexp", moe.shared_ffn_size, hidden)


def load_feed_forward(weights: WeightLoader, config: ModelConfig, index: int) -> FeedForward:
    """Hand the tensors of layer `index` to the device; they have been checked."""
    blk, activation = f"blk.{index}.", config.activation
    moe = _moe_of(config, index)
    if moe is None:
        return load_gated(weights, blk, "", activation)
    names = [f"{blk}ffn_{part}_exps" for part in ("gate", "up", "down")]
    parts: list[Iterable[Any]] = [weights.expert_matrices(f"{name}.weight") for name in names]
    if moe.biases:
        parts += [weights.vectors(f"{name}.bias") for name in names]
    has_shared = moe.shared_ffn_size > 0
    return MixtureOfExperts(
        router=weights.matrix_in_f32(blk + "ffn_gate_inp.weight"),
        experts=tuple(Expert(*matrices) for matrices in zip(*parts, strict=True)),
        routing=moe.routing,
        bias=weights.vector(blk + "exp_probs_b.bias") if moe.selection_bias else None,
        activation=activation,
        shared=load_gated(weights, blk, "_shexp", activation) if has_shared else None,
        shared_router=(
            weights.matrix_in_f32(blk + "ffn_gate_inp_shexp.weight")
            if moe.shared_is_gated
            else None
        ),
        router_bias=weights.vector(blk + "ffn_gate_inp.bias") if moe.biases else None,
        weigh_input=moe.weigh_input,
    )


def expected_plain_feed_forward(
    config: ModelConfig, index: int, biases: bool = False
) -> Iterator[tuple[str, Expected]]:
    """Canonical name and shape of each tensor of the feed-forward without a gate."""
    for part, rows, columns in (
        ("ffn_up", config.ffn_size, config.hidden_size),
        ("ffn_down", config.hidden_size, config.ffn_size),
    ):
        yield f"blk.{index}.{part}.weight", Expected((rows, columns))
        if biases:
            yield f"blk.{index}.{part}.bias", Expected((rows,))


def load_plain_feed_forward(
    weights: WeightLoader, config: ModelConfig, index: int
) -> PlainFeedForward:
    """Hand the tensors of layer `index` to the device; they have been checked."""
    up, down = f"blk.{index}.ffn_up", f"blk.{index}.ffn_down"
    return PlainFeedForward(
        weights.matrix(up + ".weight"),
        weights.vector_or_none(up + ".bias"),
        weights.matrix(down + ".weight"),
        weights.vector_or_none(down + ".bias"),
        config.xielu[index] if config.xielu else config.activation,
    )


def _moe_of(config: ModelConfig, index: int) -> MoeConfig | None:
    moe = config.moe
    return None if moe is None or index in moe.dense_layers else moe


def expected_gated(blk: str, suffix: str, ffn: int, hidden: int) -> Iterator[tuple[str, Expected]]:
    """Name and shape of the three matrices of a gated feed-forward; `suffix` is part of them."""
    yield f"{blk}ffn_gate{suffix}.weight", Expected((ffn, hidden))
    yield f"{blk}ffn_up{suffix}.weight", Expected((ffn, hidden))
    yield f"{blk}ffn_down{suffix}.weight", Expected((hidden, ffn))


def load_gated(
    weights: WeightLoader, blk: str, suffix: str, activation: Activation
) -> GatedFeedForward:
    """Hand the matrices of `expected_gated` to the device."""
    gate, up, down = (
        weights.matrix(f"{blk}ffn_{p}{suffix}.weight") for p in ("gate", "up", "down")
    )
    return GatedFeedForward(gate, up, down, activation)
