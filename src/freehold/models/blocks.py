# SPDX-License-Identifier: Apache-2.0
"""The decoder that Llama, Mistral, Qwen, Gemma and kin share: which tensors it has, and what
becomes of them.

A family file says by a `DenseLayout` where it differs. How the parts run is in `_decoder` and
`_attention`; nothing here knows a device, a file format or a key.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from freehold.formats.checkpoint import Checkpoint
from freehold.models._attention import SelfAttention, SplitProjection
from freehold.models._decoder import Decoder, RmsNorm, SequentialLayer
from freehold.models._feed_forward import (
    expected_feed_forward,
    expected_plain_feed_forward,
    load_feed_forward,
    load_plain_feed_forward,
)
from freehold.models._weights import Expected, Progress, WeightLoader, check_tensors
from freehold.models.base import ModelConfig
from freehold.models.config import read_config, weight_tensors
from freehold.ops import AttentionSpec, Ops

Presence = Literal["required", "optional", "absent"]


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """Which of the variable parts a family's layers have."""

    qkv_bias: Presence = "absent"
    output_bias: Presence = "absent"
    qk_norm: Presence = "absent"  # RMS norm of each query and key head, before rotation
    qk_norm_whole: bool = False  # of all heads of a token together instead
    pre_norms: Presence = "required"
    post_norms: Presence = "absent"  # RMS norm of what attention and feed-forward give
    gated: bool = True  # or a feed-forward of two matrices
    attn_gate: Presence = "absent"  # the sigmoid of its product gates what attention gives
    sinks: Presence = "absent"  # what each head's softmax gives to no key
    ffn_norm: str = "ffn_norm"  # GGUF's name of the norm before the feed-forward


def load_dense(
    checkpoint: Checkpoint, ops: Ops, layout: DenseLayout, progress: Progress | None = None
) -> Decoder:
    """Check every tensor against the config, then hand them to the device.

    Raises MalformedFileError or UnsupportedModelError before anything is loaded."""
    config = read_config(checkpoint)
    tensors = weight_tensors(checkpoint, config)
    check_tensors(tensors, expected_tensors(config, layout), str(checkpoint.path))
    weights = WeightLoader(tensors, ops, progress)
    embedding = weights.matrix("token_embd.weight")
    layers = tuple(
        _load_layer(weights, config, layout, index) for index in range(config.num_layers)
    )
    return Decoder(
        config=config,
        embedding=embedding,
        layers=layers,
        output_norm=RmsNorm(weights.vector("output_norm.weight"), config.norm_eps),
        output=embedding if config.tied_embeddings else weights.matrix("output.weight"),
        device_bytes=weights.device_bytes,
        embedding_norm=_plain_norm(weights, config, config.hidden_size)
        if config.embedding_norm
        else None,
        matrices=weights.matrices,
    )


def expected_of(family: str, config: ModelConfig) -> dict[str, Expected]:
    """Every tensor that files of `family` may hold: what its module says by a function
    ``expected_tensors``, else what its ``LAYOUT`` comes to."""
    module = importlib.import_module(f"freehold.models.{family}")
    own = getattr(module, "expected_tensors", None)
    table: dict[str, Expected] = own(config) if own else expected_tensors(config, module.LAYOUT)
    return table


def expected_tensors(config: ModelConfig, layout: DenseLayout) -> dict[str, Expected]:
    """Every tensor the layout knows, by canonical name."""
    hidden = config.hidden_size
    q_rows = config.num_heads * config.head_dim
    kv_rows = config.num_kv_heads * config.head_dim
    q_norm, k_norm = (q_rows, kv_rows) if layout.qk_norm_whole else (config.head_dim,) * 2
    table = {
        "token_embd.weight": Expected((config.vocab_size, hidden)),
        "output_norm.weight": Expected((hidden,)),
    }
    if not config.tied_embeddings:
        table["output.weight"] = Expected((config.vocab_size, hidden))

    def add(name: str, shape: tuple[int, ...], presence: Presence = "required") -> None:
        if presence != "absent":
            table[name] = Expected(shape, presence == "required")

    for index in range(config.num_layers):
        blk = f"blk.{index}."
        add(blk + "attn_norm.weight", (hidden,), layout.pre_norms)
        for part, rows in (("attn_q", q_rows), ("attn_k", kv_rows), ("attn_v", kv_rows)):
            add(f"{blk}{part}.weight", (rows, hidden))
            add(f"{blk}{part}.bias", (rows,), layout.qkv_bias)
        add(blk + "attn_q_norm.weight", (q_norm,), layout.qk_norm)
        add(blk + "attn_k_norm.weight", (k_norm,), layout.qk_norm)
        add(blk + "attn_gate.weight", (q_rows, hidden), layout.attn_gate)
        add(blk + "attn_sinks.weight", (config.num_heads,), layout.sinks)
        add(blk + "attn_output.weight", (hidden, q_rows))
        add(blk + "attn_output.bias", (hidden,), layout.output_bias)
        add(blk + "post_attention_norm.weight", (hidden,), layout.post_norms)
        add(f"{blk}{layout.ffn_norm}.weight", (hidden,), layout.pre_norms)
        table.update(
            expected_feed_forward(config, index)
            if layout.gated
            else expected_plain_feed_forward(config, index)
        )
        add(blk + "post_ffw_norm.weight", (hidden,), layout.post_norms)
    return table


def _load_layer(
    weights: WeightLoader, config: ModelConfig, layout: DenseLayout, index: int
) -> SequentialLayer:
    post_eps = config.post_norm_eps or config.norm_eps

    def norm(name: str, eps: float) -> RmsNorm | None:
        weight = weights.vector_or_none(f"blk.{index}.{name}.weight")
        return None if weight is None else RmsNorm(weight, eps)

    posts = layout.post_norms != "absent"
    return SequentialLayer(
        attn_norm=norm("attn_norm", config.norm_eps),
        attention=_load_attention(weights, config, index),
        attn_post_norm=norm("post_attention_norm", post_eps) if posts else None,
        ffn_norm=norm(layout.ffn_norm, config.norm_eps),
        ffn=(
            load_feed_forward(weights, config, index)
            if layout.gated
            else load_plain_feed_forward(weights, config, index)
        ),
        ffn_post_norm=norm("post_ffw_norm", post_eps) if posts else None,
    )


def _load_attention(weights: WeightLoader, config: ModelConfig, index: int) -> SelfAttention:
    blk = f"blk.{index}."
    matrix, maybe = weights.matrix, weights.vector_or_none

    def norm(name: str) -> RmsNorm | None:
        weight = maybe(f"{blk}{name}.weight")
        return None if weight is None else RmsNorm(weight, config.norm_eps)

    gated = weights.has(blk + "attn_gate.weight")
    late_norm = config.qk_norm_after_rope and index not in config.nope_layers
    return SelfAttention(
        projection=SplitProjection(
            (
                matrix(blk + "attn_q.weight"),
                matrix(blk + "attn_k.weight"),
                matrix(blk + "attn_v.weight"),
            ),
            (
                maybe(blk + "attn_q.bias"),
                maybe(blk + "attn_k.bias"),
                maybe(blk + "attn_v.bias"),
            ),
        ),
        q_norm=norm("attn_q_norm"),
        k_norm=norm("attn_k_norm"),
        output=matrix(blk + "attn_output.weight"),
        output_bias=maybe(blk + "attn_output.bias"),
        spec=attention_spec(config, index),
        layer=index,
        rotation=rotation_of(config, index),
        interleaved=config.rope.interleaved,
        tempered=config.tempered(index),
        late_norm=_plain_norm(weights, config, config.head_dim) if late_norm else None,
        sinks=maybe(blk + "attn_sinks.weight"),
        gate=matrix(blk + "attn_gate.weight") if gated else None,
    )


def _plain_norm(weights: WeightLoader, config: ModelConfig, width: int) -> RmsNorm:
    """A norm without weights."""
    ones = np.ones(width, dtype=np.float32)
    return RmsNorm(weights.ops.load_vector(ones), config.norm_eps)


def attention_spec(config: ModelConfig, index: int) -> AttentionSpec:
    """What the config says of the attention of layer `index`."""
    return AttentionSpec(
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        value_dim=config.head_dim,
        scale=config.attention_scale or config.head_dim**-0.5,
        window=config.window(index),
        chunk=config.chunk_of(index),
        softcap=config.attn_softcap,
    )


def rotation_of(config: ModelConfig, index: int) -> int | None:
    """Index into `ModelConfig.rotations` for layer `index`; None where it has no rotation."""
    if index in config.nope_layers:
        return None
    return 1 if config.local_rope is not None and config.window(index) else 0
