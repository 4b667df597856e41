# SPDX-License-Identifier: Apache-2.0
"""Decoders with latent attention: which tensors they have, and what becomes of them.

Shared by DeepSeek V2 to V3.2 and Mistral Small 4. Knows canonical names and shapes; keys are in
`_latent_config`, the arithmetic in `_latent_attention`.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._decoder import LayerNorm, RmsNorm, SequentialLayer
from freehold.models._feed_forward import expected_feed_forward, load_feed_forward
from freehold.models._latent_attention import Indexer, LatentAttention, LatentDecoder
from freehold.models._latent_sizes import LatentConfig, LatentModelConfig
from freehold.models._weights import Expected, Progress, WeightLoader, check_tensors
from freehold.models.base import ModelConfig
from freehold.models.config import read_config, weight_tensors
from freehold.ops import AttentionSpec, Ops

_INDEXER_EPS = 1e-6  # of its layer norm; no file says so


def load_latent(
    checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None
) -> LatentDecoder:
    """Check every tensor against the config, then hand them to the device.

    Raises MalformedFileError or UnsupportedModelError before anything is loaded."""
    config = read_config(checkpoint)
    tensors = weight_tensors(checkpoint, config)
    check_tensors(tensors, expected_tensors(config), str(checkpoint.path))
    weights = WeightLoader(tensors, ops, progress)
    embedding = weights.matrix("token_embd.weight")
    layers = tuple(_load_layer(weights, config, index) for index in range(config.num_layers))
    return LatentDecoder(
        config=config,
        embedding=embedding,
        layers=layers,
        output_norm=RmsNorm(weights.vector("output_norm.weight"), config.norm_eps),
        output=embedding if config.tied_embeddings else weights.matrix("output.weight"),
        device_bytes=weights.device_bytes,
    )


def expected_tensors(config: ModelConfig) -> dict[str, Expected]:
    """Every tensor of the model, by canonical name."""
    hidden, latent = config.hidden_size, _latent(config)
    table = {
        "token_embd.weight": Expected((config.vocab_size, hidden)),
        "output_norm.weight": Expected((hidden,)),
    }
    if not config.tied_embeddings:
        table["output.weight"] = Expected((config.vocab_size, hidden))
    for index in range(config.num_layers):
        blk = f"blk.{index}."
        for name, shape in _attention_shapes(config, latent).items():
            table[blk + name] = Expected(shape, not name.endswith("a.bias"))
        table[blk + "attn_output.bias"] = Expected((hidden,), required=False)
        table[blk + "attn_kv_a_mqa.bias"] = Expected(
            (latent.rank + latent.rotated_dim,), required=False
        )
        table.update(expected_feed_forward(config, index))
    return table


def _attention_shapes(config: ModelConfig, latent: LatentConfig) -> dict[str, tuple[int, ...]]:
    heads, hidden, rank = config.num_heads, config.hidden_size, latent.rank
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (hidden,),
        "attn_kv_a_mqa.weight": (rank + latent.rotated_dim, hidden),
        "attn_kv_a_norm.weight": (rank,),
        "attn_k_b.weight": (heads, rank, latent.nope_dim),
        "attn_v_b.weight": (heads, latent.value_dim, rank),
        "attn_output.weight": (hidden, heads * latent.value_dim),
        "ffn_norm.weight": (hidden,),
    }
    if latent.query_rank:
        shapes["attn_q_a.weight"] = (latent.query_rank, hidden)
        shapes["attn_q_a.bias"] = (latent.query_rank,)
        shapes["attn_q_a_norm.weight"] = (latent.query_rank,)
        shapes["attn_q_b.weight"] = (heads * config.head_dim, latent.query_rank)
    else:
        shapes["attn_q.weight"] = (heads * config.head_dim, hidden)
    if latent.indexer is not None:
        dim, count = latent.indexer.head_dim, latent.indexer.num_heads
        shapes["indexer.attn_q_b.weight"] = (count * dim, latent.query_rank)
        shapes["indexer.attn_k.weight"] = (dim, hidden)
        shapes["indexer.k_norm.weight"] = (dim,)
        shapes["indexer.k_norm.bias"] = (dim,)
        shapes["indexer.proj.weight"] = (count, hidden)
    return shapes


def _load_layer(weights: WeightLoader, config: ModelConfig, index: int) -> SequentialLayer:
    blk = f"blk.{index}."
    return SequentialLayer(
        attn_norm=RmsNorm(weights.vector(blk + "attn_norm.weight"), config.norm_eps),
        attention=_load_attention(weights, config, index),
        attn_post_norm=None,
        ffn_norm=RmsNorm(weights.vector(blk + "ffn_norm.weight"), config.norm_eps),
        ffn=load_feed_forward(weights, config, index),
        ffn_post_norm=None,
    )


def _load_attention(weights: WeightLoader, config: ModelConfig, index: int) -> LatentAttention:
    blk, latent = f"blk.{index}.", _latent(config)
    down = latent.query_rank > 0
    return LatentAttention(
        query_down=weights.matrix(blk + "attn_q_a.weight") if down else None,
        query_down_bias=weights.vector_or_none(blk + "attn_q_a.bias"),
        query_norm=(
            RmsNorm(weights.vector(blk + "attn_q_a_norm.weight"), latent.norm_eps) if down else None
        ),
        query=weights.matrix(blk + ("attn_q_b.weight" if down else "attn_q.weight")),
        latent=weights.matrix(blk + "attn_kv_a_mqa.weight"),
        latent_bias=weights.vector_or_none(blk + "attn_kv_a_mqa.bias"),
        latent_norm=RmsNorm(weights.vector(blk + "attn_kv_a_norm.weight"), latent.norm_eps),
        into_latent=weights.expert_matrices(blk + "attn_k_b.weight"),
        out_of_latent=weights.expert_matrices(blk + "attn_v_b.weight"),
        output=weights.matrix(blk + "attn_output.weight"),
        output_bias=weights.vector_or_none(blk + "attn_output.bias"),
        spec=AttentionSpec(
            num_heads=config.num_heads,
            num_kv_heads=1,
            head_dim=latent.rank + latent.rotated_dim,
            value_dim=latent.rank,
            scale=config.attention_scale or config.head_dim**-0.5,
        ),
        nope_dim=latent.nope_dim,
        layer=index,
        interleaved=config.rope.interleaved,
        tempered=config.tempered(index),
        indexer=_load_indexer(weights, config, index),
    )


def _load_indexer(weights: WeightLoader, config: ModelConfig, index: int) -> Indexer | None:
    sizes, part = _latent(config).indexer, f"blk.{index}.indexer."
    if sizes is None:
        return None
    return Indexer(
        query=weights.matrix(part + "attn_q_b.weight"),
        key=weights.matrix(part + "attn_k.weight"),
        key_norm=LayerNorm(
            weights.vector(part + "k_norm.weight"),
            weights.vector(part + "k_norm.bias"),
            _INDEXER_EPS,
        ),
        head_weights=weights.matrix_in_f32(part + "proj.weight"),
        heads=sizes.num_heads,
        dim=sizes.head_dim,
        count=sizes.top_k,
        layer=config.num_layers + index,
    )


def _latent(config: ModelConfig) -> LatentConfig:
    assert isinstance(config, LatentModelConfig)
    return config.latent
