# SPDX-License-Identifier: Apache-2.0
"""Gemma 3n's decoder over the op set: several copies of the residual stream (AltUp), a low-rank
branch beside attention (LAuReL), gates of which most are zero, and per-layer embeddings.

A layer predicts every stream from all of them, runs one, and corrects all by what came out. Both
steps are linear in what a router says of a token, so each is one small matrix, made at load, and
one mix of the streams.

Nothing here knows a device, a file format or a key; nothing is computed outside an op.
Sources: AltUp (arXiv 2301.13310), LAuReL (arXiv 2411.07501).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from freehold.batch import ForwardBatch
from freehold.formats.checkpoint import Checkpoint
from freehold.models._decoder import wanted_rows
from freehold.models._expert_tensors import stacked
from freehold.models._feed_forward import GatedFeedForward, expected_gated, load_gated
from freehold.models._gemma3n_config import DENSE, Gemma3nConfig
from freehold.models._per_layer_inputs import (
    PerLayerGate,
    PerLayerInputs,
    expected_gate,
    expected_inputs,
    load_gate,
    load_inputs,
)
from freehold.models._shared_attention import (
    SharedAttention,
    expected_attention,
    last_queries,
    load_attention,
)
from freehold.models._weights import Expected, Progress, WeightLoader, check_tensors
from freehold.models.config import read_config, weight_tensors
from freehold.ops import Array, FloatArray, KVCache, KVLayerSpec, Ops, Weight

_FLOOR = 1e-5  # of the mean square by which a new stream is divided


@dataclass(frozen=True, slots=True)
class StreamMixer:
    """Weights of a token's streams: matrix · tanh(router · norm(x) / hidden) + bias."""

    router_norm: Array  # [hidden], divided by hidden
    router: Weight  # [S, hidden]
    predict: Weight  # [S · S, S]
    predict_bias: Array
    correct: Weight  # [S · (S + 1), S]
    correct_bias: Array

    def predicted(
        self, streams: Sequence[Array], active: int, eps: float, ops: Ops
    ) -> tuple[Array, ...]:
        """Each of the S streams [T, hidden], plus a mix of all."""
        weights = ops.linear(self._routed(streams[active], eps, ops), self.predict,
                             self.predict_bias)  # fmt: skip
        return ops.mix_streams(streams, weights)

    def corrected(
        self, streams: Sequence[Array], activated: Array, eps: float, ops: Ops
    ) -> tuple[Array, ...]:
        """Each stream, plus a share of the difference between `activated` and its prediction."""
        weights = ops.linear(self._routed(activated, eps, ops), self.correct, self.correct_bias)
        return ops.mix_streams((*streams, activated), weights)

    def _routed(self, x: Array, eps: float, ops: Ops) -> Array:
        routed = ops.linear(ops.rms_norm(x, self.router_norm, eps), self.router)
        return ops.softcap(routed, 1.0)  # which is tanh


@dataclass(frozen=True, slots=True)
class SparseFeedForward:
    """A gated feed-forward whose gate keeps only what stands out."""

    weights: GatedFeedForward
    deviations: float

    def forward(self, x: Array, ops: Ops) -> Array:
        part = self.weights
        gate, up = ops.linear_many(x, (part.gate, part.up), (None, None))
        gate = ops.activate(ops.sparse_gate(gate, self.deviations), part.activation)
        return ops.linear(ops.multiply(gate, up), part.down)


@dataclass(frozen=True, slots=True)
class Gemma3nLayer:
    """One layer's weights on the device, and its numbers."""

    mixer: StreamMixer
    attn_norm: Array
    laurel_left: Weight  # [rank, hidden]
    laurel_right: Weight  # [hidden, rank]
    laurel_norm: Array
    attention: SharedAttention
    attn_post_norm: Array
    ffn_norm: Array
    ffn: GatedFeedForward | SparseFeedForward
    ffn_post_norm: Array
    correct_scale: Array  # [hidden]
    per_layer: PerLayerGate

    def laurel(self, x: Array, eps: float, ops: Ops) -> Array:
        """x + norm(right · left · x): [T, hidden]. The memory of `x` may be reused."""
        low = ops.linear(ops.linear(x, self.laurel_left), self.laurel_right)
        return ops.add(x, ops.rms_norm(low, self.laurel_norm, eps))


@dataclass(slots=True)
class Gemma3nDecoder:
    """`CausalLM` of Gemma 3n."""

    config: Gemma3nConfig
    embedding: Weight
    inputs: PerLayerInputs
    into_streams: tuple[Weight, ...]  # [hidden, hidden], one per stream but the first
    out_of_streams: tuple[Weight, ...]
    layers: tuple[Gemma3nLayer, ...]
    output_norm: Array
    output: Weight  # the embedding itself where tied
    device_bytes: int

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        return self.config.kv_layers()

    def weight_bytes(self) -> int:
        return self.device_bytes

    def forward(self, batch: ForwardBatch, cache: KVCache, ops: Ops) -> Array:
        config, eps, rows = self.config, self.config.norm_eps, wanted_rows(batch)
        tables = [ops.rope_tables(spec, batch.positions) for spec in config.rotations()]
        x = ops.scale(ops.embed(self.embedding, batch.token_ids), config.embedding_scale)
        given = self.inputs.forward(batch.token_ids, x, ops)
        streams = (x, *(self._matched(x, w, x, ops) for w in self.into_streams))
        active, width = config.active_stream, config.per_layer_width
        for index, layer in enumerate(self.layers):
            predictions = layer.mixer.predicted(streams, active, eps, ops)
            x = ops.rms_norm(predictions[active], layer.attn_norm, eps)
            attention = layer.attention
            q = attention.write(x, batch, cache, tables[attention.rotation], eps, ops)
            if rows is not None and index == config.first_shared - 1:
                if len(rows) == 0:
                    return x[:0]  # no later layer writes, and nobody wants logits
                if (fewer := last_queries(batch, rows)) is not None:
                    q, x, given = (ops.take_rows(one, rows) for one in (q, x, given))
                    predictions = tuple(ops.take_rows(one, rows) for one in predictions)
                    tables = [(ops.take_rows(c, rows), ops.take_rows(s, rows)) for c, s in tables]
                    batch, rows = fewer, None
            mixed = ops.attention(q, cache, attention.cache_layer, batch, attention.spec)
            own = given[:, index * width : (index + 1) * width]
            streams = self._feed(layer, predictions, x, mixed, own, ops)
        if rows is not None:
            streams = tuple(ops.take_rows(stream, rows) for stream in streams)
        first, *others = streams
        others = [
            self._matched(stream, weight, first, ops)
            for stream, weight in zip(others, self.out_of_streams, strict=True)
        ]
        merged = first
        for stream in others:
            merged = ops.add(merged, stream)
        # The sum stands for the mean, whose square is smaller by the square of their number.
        return ops.rms_norm(merged, self.output_norm, eps * config.num_streams**2)

    def _feed(
        self,
        layer: Gemma3nLayer,
        predictions: tuple[Array, ...],
        x: Array,
        mixed: Array,
        given: Array,
        ops: Ops,
    ) -> tuple[Array, ...]:
        """Everything after attention: the streams, corrected by what the active one became."""
        config, eps = self.config, self.config.norm_eps
        attended = ops.rms_norm(
            ops.linear(mixed, layer.attention.output), layer.attn_post_norm, eps
        )
        attended = ops.add(attended, predictions[config.active_stream])
        attended = ops.scale(ops.add(attended, layer.laurel(x, eps, ops)), 0.5**0.5)
        delta = layer.ffn.forward(ops.rms_norm(attended, layer.ffn_norm, eps), ops)
        activated = ops.add(attended, ops.rms_norm(delta, layer.ffn_post_norm, eps))
        streams = layer.mixer.corrected(predictions, activated, eps, ops)
        first = ops.multiply(streams[config.active_stream], layer.correct_scale)
        own = layer.per_layer.forward(first, given, eps, ops)
        return (streams[0], *(ops.add(stream, own) for stream in streams[1:]))

    def _matched(self, x: Array, weight: Weight, like: Array, ops: Ops) -> Array:
        """weight · x, as large as `like`."""
        return ops.match_magnitude(ops.linear(x, weight), like, _FLOOR)

    def logits(self, hidden: Array, ops: Ops) -> Array:
        logits = ops.linear(hidden, self.output)
        cap = self.config.final_softcap
        return ops.softcap(logits, cap) if cap else logits


def expected_tensors(config: Gemma3nConfig) -> dict[str, Expected]:
    """Every tensor the family knows, by canonical name."""
    hidden, more = config.hidden_size, config.num_streams - 1
    table = {
        "token_embd.weight": Expected((config.vocab_size, hidden)),
        "output_norm.weight": Expected((hidden,)),
        "altup_proj.weight": Expected((more, hidden, hidden)),
        "altup_unembd_proj.weight": Expected((more, hidden, hidden)),
    }
    if not config.tied_embeddings:
        table["output.weight"] = Expected((config.vocab_size, hidden))
    table.update(expected_inputs(config))
    for index in range(config.num_layers):
        blk = f"blk.{index}."
        for norm in (
            "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "laurel_post_norm",
            "altup_router_norm", "altup_correct_scale",
        ):  # fmt: skip
            table[f"{blk}{norm}.weight"] = Expected((hidden,))
        table.update(expected_attention(config, index))
        table.update(expected_gated(blk, "", config.ffn_sizes[index], hidden))
        table.update(expected_gate(config, index))
        table.update(_expected_streams(blk, config))
    return table


def _expected_streams(blk: str, config: Gemma3nConfig) -> Iterator[tuple[str, Expected]]:
    hidden, rank, streams = config.hidden_size, config.laurel_rank, config.num_streams
    yield blk + "laurel_l.weight", Expected((rank, hidden))
    yield blk + "laurel_r.weight", Expected((hidden, rank))
    yield blk + "altup_router.weight", Expected((streams, hidden))
    yield blk + "altup_predict_coef.weight", Expected((streams * streams, streams))
    yield blk + "altup_correct_coef.weight", Expected((streams, streams))


def load_gemma3n(
    checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None
) -> Gemma3nDecoder:
    """Check every tensor against the config, then hand them to the device.

    Raises MalformedFileError or UnsupportedModelError before anything is loaded."""
    config = read_config(checkpoint)
    assert isinstance(config, Gemma3nConfig)
    tensors = weight_tensors(checkpoint, config)
    for name in ("altup_proj.weight", "altup_unembd_proj.weight"):
        if name in tensors:
            tensors[name] = stacked(tensors[name])
    check_tensors(tensors, expected_tensors(config), str(checkpoint.path))
    weights = WeightLoader(tensors, ops, progress)
    embedding = weights.matrix("token_embd.weight")
    return Gemma3nDecoder(
        config=config,
        embedding=embedding,
        inputs=load_inputs(weights, config),
        into_streams=weights.expert_matrices("altup_proj.weight"),
        out_of_streams=weights.expert_matrices("altup_unembd_proj.weight"),
        layers=tuple(_load_layer(weights, config, index) for index in range(config.num_layers)),
        output_norm=weights.vector("output_norm.weight"),
        output=embedding if config.tied_embeddings else weights.matrix("output.weight"),
        device_bytes=weights.device_bytes,
    )


def _load_layer(weights: WeightLoader, config: Gemma3nConfig, index: int) -> Gemma3nLayer:
    blk, deviations = f"blk.{index}.", config.sparsity[index]
    matrix, vector = weights.matrix, weights.vector
    ffn = load_gated(weights, blk, "", config.activation)
    return Gemma3nLayer(
        mixer=_load_mixer(weights, config, blk),
        attn_norm=vector(blk + "attn_norm.weight"),
        laurel_left=matrix(blk + "laurel_l.weight"),
        laurel_right=matrix(blk + "laurel_r.weight"),
        laurel_norm=vector(blk + "laurel_post_norm.weight"),
        attention=load_attention(weights, config, index),
        attn_post_norm=vector(blk + "post_attention_norm.weight"),
        ffn_norm=vector(blk + "ffn_norm.weight"),
        ffn=ffn if deviations == DENSE else SparseFeedForward(ffn, deviations),
        ffn_post_norm=vector(blk + "post_ffw_norm.weight"),
        correct_scale=vector(blk + "altup_correct_scale.weight"),
        per_layer=load_gate(weights, config, index),
    )


def _load_mixer(weights: WeightLoader, config: Gemma3nConfig, blk: str) -> StreamMixer:
    streams, values = config.num_streams, weights.values
    predict = values(blk + "altup_predict_coef.weight")
    correct, bias = correction(values(blk + "altup_correct_coef.weight"), config.active_stream)
    norm = values(blk + "altup_router_norm.weight") / np.float32(config.hidden_size)
    return StreamMixer(
        router_norm=weights.made_vector(norm),
        router=weights.matrix_in_f32(blk + "altup_router.weight"),
        predict=weights.made_matrix(blk + "altup_predict_coef.weight", predict),
        predict_bias=weights.made_vector(np.eye(streams, dtype=np.float32).reshape(-1)),
        correct=weights.made_matrix(blk + "altup_correct_coef.weight", correct),
        correct_bias=weights.made_vector(bias),
    )


def correction(coefficients: FloatArray, active: int) -> tuple[FloatArray, FloatArray]:
    """Matrix [S · (S + 1), S] and bias that turn what the router says into weights of the S
    predictions and of what the active one became.

    With c = coefficients · routed + 1, stream i becomes p_i + c_i · (activated - p_active)."""
    streams = len(coefficients)
    matrix = np.zeros((streams, streams + 1, streams), dtype=np.float32)
    bias = np.zeros((streams, streams + 1), dtype=np.float32)
    bias[:, :streams] = np.eye(streams)
    matrix[:, streams], matrix[:, active] = coefficients, -coefficients
    bias[:, streams] += 1.0
    bias[:, active] -= 1.0
    return matrix.reshape(-1, streams), bias.reshape(-1)
