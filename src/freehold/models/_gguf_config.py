# SPDX-License-Identifier: Apache-2.0
"""`ModelConfig` from GGUF metadata (keys: the GGUF specification, docs/gguf.md of ggml).

Knows the keys shared by all decoder-only architectures. What is peculiar to one family is the
family file's business.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._fields import MAX_INT, Fields
from freehold.models._moe_config import moe_from_gguf
from freehold.models.base import ModelConfig
from freehold.models.rope import Frequencies, RopeScaling, inverse_frequencies, yarn_magnitude
from freehold.ops import RawTensor, RopeSpec

# Architectures whose converter permutes Q and K so that pairs lie next to each other.
INTERLEAVED = frozenset(
    {"deepseek", "granite", "llama", "llama4", "mistral3", "muse-glimmer", "smollm3"}
)
# Those whose YaRN blends between fractional dimensions. No key says so.
FRACTIONAL_YARN = frozenset({"gpt-oss"})

# Keys that change the arithmetic in ways these families do not have, and their neutral values.
_UNSUPPORTED = {
    "attn_logit_softcapping": 0,
    "final_logit_softcapping": 0,
    "logit_scale": 0,
    "residual_scale": 0,
    "embedding_scale": 0,
    "attention.scale": 0,
    "attention.temperature_scale": 0,
    "attention.clamp_kqv": 0,
    "attention.kv_lora_rank": 0,
    "use_parallel_residual": False,
    "attention.causal": True,
}


def config_from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    """Sizes out of `metadata`. Raises MalformedFileError naming the key that is wrong, and
    UnsupportedModelError where a key asks for arithmetic these families do not have."""
    keys = Fields(metadata, where, f"{architecture}.")
    _refuse_unsupported(keys)
    hidden = keys.integer("embedding_length", high=1 << 20)
    layers = keys.integer("block_count", high=4096)
    heads = keys.integer("attention.head_count", high=1 << 16)
    kv_heads = keys.integer("attention.head_count_kv", heads, high=heads)
    if heads % kv_heads:
        raise keys.bad("attention.head_count_kv", f"a divisor of the {heads} heads")
    if "attention.key_length" not in keys and hidden % heads:
        raise keys.bad("attention.head_count", f"a divisor of the width {hidden}")
    head_dim = keys.integer("attention.key_length", max(1, hidden // heads), high=1 << 14)
    if keys.integer("attention.value_length", head_dim) != head_dim:
        raise keys.bad("attention.value_length", f"equal to attention.key_length ({head_dim})")
    context = keys.integer("context_length")
    scaling = _scaling(keys, context)
    window = keys.integer("attention.sliding_window", 0, low=0)
    ffn = keys.integer("feed_forward_length", high=1 << 24)
    return ModelConfig(
        architecture=architecture,
        vocab_size=_vocab_size(keys, tensors),
        context_length=scaling.reach(context),
        hidden_size=hidden,
        ffn_size=ffn,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=keys.number("attention.layer_norm_rms_epsilon", high=1.0),
        rope=_rope(keys, tensors, head_dim, scaling),
        tied_embeddings="output.weight" not in tensors,
        sliding_window=window,
        full_attention_layers=_full_layers(keys, layers) if window else frozenset(),
        moe=moe_from_gguf(keys, tensors, layers, ffn),
    )


def _refuse_unsupported(keys: Fields) -> None:
    for key, neutral in _UNSUPPORTED.items():
        value = keys.get(key)
        if value is not None and value != neutral:
            raise UnsupportedModelError(
                f"{keys.where} sets {keys.prefix}{key}, which this architecture does not have here"
            )


def _vocab_size(keys: Fields, tensors: Mapping[str, RawTensor]) -> int:
    """Rows of the embedding table; the tokenizer must fit into it."""
    tokens = keys.values.get("tokenizer.ggml.tokens")
    if tokens is not None and not hasattr(tokens, "__len__"):
        raise MalformedFileError(f"{keys.where}: tokenizer.ggml.tokens must be a list")
    count = len(tokens) if tokens is not None else 0
    table = tensors.get("token_embd.weight")
    if table is None:  # a file of metadata alone can still be described
        return keys.integer("vocab_size", count or None, low=0)
    rows = table.shape[0] if len(table.shape) == 2 else 0
    if not 0 < rows <= MAX_INT:
        raise MalformedFileError(f"{keys.where}: token_embd.weight has shape {table.shape}")
    if count > rows:
        raise MalformedFileError(
            f"{keys.where}: tokenizer.ggml.tokens lists {count:,} tokens, "
            f"but token_embd.weight has only {rows:,} rows"
        )
    return rows


def _full_layers(keys: Fields, layers: int) -> frozenset[int]:
    """Layers without the sliding window: a flag per layer (true = window), or every n-th."""
    key = "attention.sliding_window_pattern"
    pattern = keys.get(key)
    if isinstance(pattern, list | tuple | np.ndarray):
        if len(pattern) < layers:
            raise keys.bad(key, f"at least {layers} flags long")
        return frozenset(i for i in range(layers) if not pattern[i])
    period = keys.integer(key, 0, low=0, high=4096)
    return frozenset(i for i in range(layers) if period and i % period == period - 1)


def _rope(
    keys: Fields, tensors: Mapping[str, RawTensor], head_dim: int, scaling: RopeScaling
) -> RopeSpec:
    dim = keys.integer("rope.dimension_count", head_dim, low=2, high=max(2, head_dim))
    if dim % 2 or dim > head_dim:
        raise keys.bad("rope.dimension_count", f"an even number from 2 to {head_dim}")
    base = keys.number("rope.freq_base", 10000.0, above=1.0)
    frequencies = inverse_frequencies(dim, base, scaling)
    divisors = _divisors(keys.where, tensors, dim)
    if divisors is not None:
        frequencies = frequencies / divisors
    interleaved = keys.prefix.rstrip(".") in INTERLEAVED
    return RopeSpec(frequencies, interleaved, scaling.magnitude)


def _divisors(where: str, tensors: Mapping[str, RawTensor], dim: int) -> Frequencies | None:
    """`rope_freqs.weight`, where a converter put the llama3 scaling."""
    tensor = tensors.get("rope_freqs.weight")
    if tensor is None:
        return None
    if tensor.shape != (dim // 2,):
        raise MalformedFileError(
            f"{where}: rope_freqs.weight has shape {tensor.shape}, not ({dim // 2},)"
        )
    values = tensor.to_f32().astype(np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise MalformedFileError(f"{where}: rope_freqs.weight holds numbers that are not above 0")
    return values


def _scaling(keys: Fields, context: int) -> RopeScaling:
    # Files older than the key name `scaling.type` mean linear; a factor of 0 means none.
    factor = keys.number("rope.scaling.factor", 0.0, zero=True)
    factor = factor or keys.number("rope.scale_linear", 0.0, zero=True) or 1.0
    kind = keys.text("rope.scaling.type", "linear")
    if kind == "none":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind != "yarn":
        raise UnsupportedModelError(
            f"{keys.where} stretches its context by {kind[:40]!r} ({keys.prefix}rope.scaling.type)",
            hint="known: none, linear, yarn, and llama3 through rope_freqs.weight",
        )
    ext = keys.number("rope.scaling.yarn_ext_factor", 1.0, zero=True, high=1.0)
    fast = keys.number("rope.scaling.yarn_beta_fast", 32.0)
    slow = keys.number("rope.scaling.yarn_beta_slow", 1.0)
    if fast < slow:
        raise keys.bad("rope.scaling.yarn_beta_fast", f"at least yarn_beta_slow ({slow:g})")
    return RopeScaling(
        "yarn",
        factor,
        original_context=keys.integer("rope.scaling.original_context_length", context),
        names_original="rope.scaling.original_context_length" in keys,
        beta_fast=fast,
        beta_slow=slow,
        truncate=keys.prefix.rstrip(".") not in FRACTIONAL_YARN,
        ext_factor=ext,
        magnitude=_gguf_yarn_magnitude(keys, factor, ext),
    )


def _gguf_yarn_magnitude(keys: Fields, factor: float, ext: float) -> float:
    """`yarn_attn_factor` is the whole magnitude (converters copy attention_factor there);
    `attn_factor` multiplies whatever the rest comes to."""
    extra = keys.number("rope.scaling.attn_factor", 1.0)
    if "rope.scaling.yarn_attn_factor" in keys:
        return keys.number("rope.scaling.yarn_attn_factor") * extra
    if ext == 0.0:
        return extra
    mscale_all = keys.number("rope.scaling.yarn_log_multiplier", 0.0, zero=True, high=1e3)
    whole = yarn_magnitude(factor)
    return (whole / yarn_magnitude(factor, mscale_all) if mscale_all else whole) * extra
