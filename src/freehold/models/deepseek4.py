# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V4: residual streams, attention over a window and compressed entries, experts chosen by
token in the first layers.

Which tensors it has, and what becomes of them. Layers that guess further tokens are left out. The
vendor's code rotates the indexer's vectors by a Hadamard matrix and rounds them, which changes
their precision alone and is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.batch import ForwardBatch
from freehold.errors import MalformedFileError
from freehold.formats.checkpoint import Checkpoint
from freehold.models._decoder import RmsNorm, wanted_rows
from freehold.models._deepseek4_blocks import (
    CompressedAttention,
    Compressor,
    EntryIndexer,
    Pass,
    StreamLayer,
    StreamMixer,
    TokenExperts,
    attention_spec,
)
from freehold.models._deepseek4_config import DIALECT
from freehold.models._deepseek4_sizes import DeepSeek4Config
from freehold.models._feed_forward import expected_gated
from freehold.models._weights import Expected, Progress, WeightLoader, check_tensors
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.config import read_config, weight_tensors
from freehold.ops import Array, Expert, KVCache, KVLayerSpec, Ops, Weight

__all__ = ["DIALECT", "expected_tensors", "load"]


@dataclass(slots=True)
class DeepSeek4:
    """`CausalLM` of the family."""

    config: DeepSeek4Config
    embedding: Weight
    layers: tuple[StreamLayer, ...]
    output_mixer: StreamMixer
    output_norm: RmsNorm
    output: Weight
    device_bytes: int

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        return self.config.kv_layers()

    def weight_bytes(self) -> int:
        return self.device_bytes

    def forward(self, batch: ForwardBatch, cache: KVCache, ops: Ops) -> Array:
        sizes = self.config.compressed
        step = Pass(batch, cache, ops, self.config.rope, sizes.compressed_rope)
        streams = (ops.embed(self.embedding, batch.token_ids),) * sizes.streams
        for layer in self.layers[:-1]:
            streams = layer.forward(streams, step, None)
        # Past what it leaves in the cache the last layer is needed only where logits are wanted.
        rows = wanted_rows(batch)
        streams = self.layers[-1].forward(streams, step, rows)
        if rows is not None and not len(rows):
            return streams[0]
        return self.output_norm.forward(self.output_mixer.gather(streams, ops)[0], ops)

    def logits(self, hidden: Array, ops: Ops) -> Array:
        return ops.linear(hidden, self.output)


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Check every tensor against the config, then hand them to the device.

    Raises MalformedFileError or UnsupportedModelError before anything is loaded, but for a table of
    tokens that names experts that there are not."""
    config = read_config(checkpoint)
    assert isinstance(config, DeepSeek4Config)
    tensors = weight_tensors(checkpoint, config)
    check_tensors(tensors, expected_tensors(config), str(checkpoint.path))
    weights = _Loader(WeightLoader(tensors, ops, progress), config, str(checkpoint.path))
    return weights.model()


def expected_tensors(config: ModelConfig) -> dict[str, Expected]:
    """Every tensor of the model, by canonical name."""
    assert isinstance(config, DeepSeek4Config)
    hidden, streams = config.hidden_size, config.compressed.streams
    table = {
        "token_embd.weight": Expected((config.vocab_size, hidden)),
        "output_norm.weight": Expected((hidden,)),
        "output_hc_fn.weight": Expected((streams, streams * hidden)),
        "output_hc_base.weight": Expected((streams,)),
        "output_hc_scale.weight": Expected((1,)),
    }
    if not config.tied_embeddings:
        table["output.weight"] = Expected((config.vocab_size, hidden))
    for index in range(config.num_layers):
        table.update(_expected_layer(config, index))
    return table


def _expected_layer(config: DeepSeek4Config, index: int) -> dict[str, Expected]:
    blk, hidden, heads = f"blk.{index}.", config.hidden_size, config.num_heads
    sizes, dim, moe = config.compressed, config.head_dim, config.moe
    assert moe is not None
    kind, ratio = sizes.kinds[index], sizes.ratios[index]
    experts, ffn = moe.num_experts, moe.expert_ffn_size
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (hidden,),
        "attn_sinks.weight": (heads,),
        "attn_q_a.weight": (sizes.query_rank, hidden),
        "attn_q_a_norm.weight": (sizes.query_rank,),
        "attn_q_b.weight": (heads * dim, sizes.query_rank),
        "attn_kv.weight": (dim, hidden),
        "attn_kv_a_norm.weight": (dim,),
        "attn_output_a.weight": (
            sizes.output_groups * sizes.output_rank, heads // sizes.output_groups * dim
        ),
        "attn_output_b.weight": (hidden, sizes.output_groups * sizes.output_rank),
        "ffn_norm.weight": (hidden,),
        "ffn_gate_inp.weight": (experts, hidden),
        "ffn_gate_exps.weight": (experts, ffn, hidden),
        "ffn_up_exps.weight": (experts, ffn, hidden),
        "ffn_down_exps.weight": (experts, hidden, ffn),
    }  # fmt: skip
    mixed = (2 + sizes.streams) * sizes.streams
    for half in ("attn", "ffn"):
        shapes[f"hc_{half}_fn.weight"] = (mixed, sizes.streams * hidden)
        shapes[f"hc_{half}_base.weight"] = (mixed,)
        shapes[f"hc_{half}_scale.weight"] = (3,)
    if kind != "sliding":
        factor = 2 if kind == "sparse" else 1
        shapes |= _compressor_shapes("attn_compressor", factor, dim, ratio, hidden)
    if kind == "sparse":
        shapes |= _compressor_shapes("indexer_compressor", 2, sizes.index_dim, ratio, hidden)
        shapes["indexer.attn_q_b.weight"] = (sizes.index_heads * sizes.index_dim, sizes.query_rank)
        shapes["indexer.proj.weight"] = (sizes.index_heads, hidden)
    table = {blk + name: Expected(shape) for name, shape in shapes.items()}
    if index in sizes.hashed_layers:
        chosen = (config.vocab_size, moe.routing.top_k)
        table[blk + "ffn_gate_tid2eid.weight"] = Expected(chosen, whole=True)
    else:
        table[blk + "exp_probs_b.bias"] = Expected((experts,))
    table.update(expected_gated(blk, "_shexp", moe.shared_ffn_size, hidden))
    return table


def _compressor_shapes(
    stem: str, factor: int, dim: int, ratio: int, hidden: int
) -> dict[str, tuple[int, ...]]:
    return {
        f"{stem}_kv.weight": (factor * dim, hidden),
        f"{stem}_gate.weight": (factor * dim, hidden),
        f"{stem}_ape.weight": (ratio, factor * dim),
        f"{stem}_norm.weight": (dim,),
    }


class _Loader:
    """Hands checked tensors to the device, part by part."""

    def __init__(self, weights: WeightLoader, config: DeepSeek4Config, where: str) -> None:
        self._weights, self._config, self._where = weights, config, where
        self._ones = weights.made_vector(
            np.ones(config.compressed.streams * config.hidden_size, np.float32)
        )
        self._head_ones = weights.made_vector(np.ones(config.head_dim, np.float32))

    def model(self) -> DeepSeek4:
        weights, config = self._weights, self._config
        embedding = weights.matrix("token_embd.weight")
        layers = tuple(self._layer(index) for index in range(config.num_layers))
        return DeepSeek4(
            config=config,
            embedding=embedding,
            layers=layers,
            output_mixer=self._mixer("output_hc"),
            output_norm=self._norm("output_norm.weight"),
            output=embedding if config.tied_embeddings else weights.matrix("output.weight"),
            device_bytes=weights.device_bytes,
        )

    def _layer(self, index: int) -> StreamLayer:
        blk = f"blk.{index}."
        return StreamLayer(
            attn_mixer=self._mixer(blk + "hc_attn"),
            attn_norm=self._norm(blk + "attn_norm.weight"),
            attention=self._attention(index),
            ffn_mixer=self._mixer(blk + "hc_ffn"),
            ffn_norm=self._norm(blk + "ffn_norm.weight"),
            experts=self._experts(index),
        )

    def _norm(self, name: str) -> RmsNorm:
        return RmsNorm(self._weights.vector(name), self._config.norm_eps)

    def _mixer(self, stem: str) -> StreamMixer:
        weights, sizes = self._weights, self._config.compressed
        return StreamMixer(
            project=weights.matrix_in_f32(f"{stem}_fn.weight"),
            base=weights.vector(f"{stem}_base.weight"),
            scale=weights.vector(f"{stem}_scale.weight"),
            ones=self._ones,
            norm_eps=self._config.norm_eps,
            rounds=sizes.rounds,
            eps=sizes.stream_eps,
        )

    def _attention(self, index: int) -> CompressedAttention:
        weights, config, blk = self._weights, self._config, f"blk.{index}."
        sizes, caches = config.compressed, config.caches(index)
        kind = sizes.kinds[index]
        compressor = None
        if kind != "sliding":
            compressor = self._compressor(
                index, "attn_compressor", config.head_dim, caches.raw, caches.entries
            )
        return CompressedAttention(
            query_down=weights.matrix(blk + "attn_q_a.weight"),
            query_norm=self._norm(blk + "attn_q_a_norm.weight"),
            query=weights.matrix(blk + "attn_q_b.weight"),
            head_norm=RmsNorm(self._head_ones, config.norm_eps),
            key=weights.matrix(blk + "attn_kv.weight"),
            key_norm=self._norm(blk + "attn_kv_a_norm.weight"),
            output_parts=weights.stretches(blk + "attn_output_a.weight", sizes.output_groups),
            output=weights.matrix(blk + "attn_output_b.weight"),
            sinks=weights.vector(blk + "attn_sinks.weight"),
            spec=attention_spec(config.num_heads, config.head_dim, sizes),
            rotated_dim=sizes.rotated_dim,
            caches=caches,
            compressor=compressor,
            indexer=self._indexer(index) if kind == "sparse" else None,
        )

    def _compressor(self, index: int, stem: str, dim: int, raw: int, entries: int) -> Compressor:
        weights, name = self._weights, f"blk.{index}.{stem}"
        sizes = self._config.compressed
        return Compressor(
            key=weights.matrix(f"{name}_kv.weight"),
            gate=weights.matrix(f"{name}_gate.weight"),
            bias=weights.vector(f"{name}_ape.weight"),
            norm=self._norm(f"{name}_norm.weight"),
            dim=dim,
            ratio=sizes.ratios[index],
            overlap=sizes.kinds[index] == "sparse",
            raw=raw,
            entries=entries,
        )

    def _indexer(self, index: int) -> EntryIndexer:
        weights, sizes, caches = self._weights, self._config.compressed, self._config.caches(index)
        part = f"blk.{index}.indexer."
        return EntryIndexer(
            compressor=self._compressor(
                index, "indexer_compressor", sizes.index_dim, caches.index_raw,
                caches.index_entries,
            ),
            query=weights.matrix(part + "attn_q_b.weight"),
            head_weights=weights.matrix_in_f32(part + "proj.weight"),
            heads=sizes.index_heads,
            count=sizes.index_top_k,
        )  # fmt: skip

    def _experts(self, index: int) -> TokenExperts:
        weights, config, blk = self._weights, self._config, f"blk.{index}."
        moe, hashed = config.moe, index in config.compressed.hashed_layers
        assert moe is not None
        parts = [weights.expert_matrices(f"{blk}ffn_{p}_exps.weight") for p in _PARTS]
        return TokenExperts(
            router=weights.matrix_in_f32(blk + "ffn_gate_inp.weight"),
            experts=tuple(Expert(*matrices) for matrices in zip(*parts, strict=True)),
            shared=Expert(*(weights.matrix(f"{blk}ffn_{p}_shexp.weight") for p in _PARTS)),
            routing=moe.routing,
            bias=None if hashed else weights.vector(blk + "exp_probs_b.bias"),
            table=self._table(blk + "ffn_gate_tid2eid.weight") if hashed else None,
            limit=config.compressed.limit,
        )

    def _table(self, name: str) -> npt.NDArray[np.int32]:
        values = self._weights.values(name)  # exact: experts are few
        assert self._config.moe is not None
        count = self._config.moe.num_experts
        if values.size and not 0 <= float(values.min()) <= float(values.max()) < count:
            raise MalformedFileError(
                f"{self._where}: {name} names experts from {values.min():g} to {values.max():g}, "
                f"but there are {count}"
            )
        return values.astype(np.int32)


_PARTS = ("gate", "up", "down")
