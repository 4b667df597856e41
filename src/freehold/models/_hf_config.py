# SPDX-License-Identifier: Apache-2.0
"""`ModelConfig` from a Hugging Face ``config.json``, old key names and new.

Knows the keys that Llama, Mistral, Qwen2 and Qwen3 share, and which of them a family ignores.
"""

from __future__ import annotations

from collections.abc import Mapping

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._fields import Fields, shown
from freehold.models._moe_config import moe_from_hf
from freehold.models.base import ModelConfig
from freehold.models.rope import RopeScaling, inverse_frequencies, yarn_magnitude
from freehold.ops import RawTensor, RopeSpec

_QWEN3_HEAD_DIM = 128  # what Qwen3's configuration means when it leaves the key out


def text_fields(config: Mapping[str, object], where: str) -> Fields:
    """The language model's part of `config`: all of it, or what ``text_config`` holds."""
    fields = Fields(config, where)
    return fields.table("text_config") or fields


def config_from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    """Sizes out of `config`; `tensors` carry canonical names. Errors as `config_from_gguf`."""
    outer = Fields(config, where)
    keys = text_fields(config, where)
    _refuse_unsupported(outer)
    _refuse_unsupported(keys)
    hidden = keys.integer("hidden_size", high=1 << 20)
    layers = keys.integer("num_hidden_layers", high=4096)
    heads = keys.integer("num_attention_heads", high=1 << 16)
    kv_heads = keys.integer("num_key_value_heads", heads, high=heads)
    if heads % kv_heads:
        raise keys.bad("num_key_value_heads", f"a divisor of the {heads} heads")
    if architecture == "qwen3":
        default_dim = _QWEN3_HEAD_DIM
    elif "head_dim" not in keys and hidden % heads:
        raise keys.bad("num_attention_heads", f"a divisor of the width {hidden}")
    else:
        default_dim = max(1, hidden // heads)
    head_dim = keys.integer("head_dim", default_dim, high=1 << 14)
    context = keys.integer("max_position_embeddings")
    scaling = _scaling(keys, context)
    window, full = _window(keys, layers)
    ffn = keys.integer("intermediate_size", high=1 << 24)
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
        norm_eps=keys.number("rms_norm_eps", 1e-6, high=1.0),
        rope=_rope(keys, head_dim, scaling),
        tied_embeddings=_tied(outer, keys, tensors),
        sliding_window=window,
        full_attention_layers=full,
        moe=moe_from_hf(architecture, keys, layers, ffn),
    )


def _refuse_unsupported(keys: Fields) -> None:
    quantization = keys.table("quantization_config")
    if quantization is not None:
        method = shown(quantization.get("quant_method"))
        raise UnsupportedModelError(
            f"{keys.where} holds weights quantised by {method}, which freehold cannot read",
            hint="use the unquantised weights or a GGUF file",
        )
    activation = keys.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UnsupportedModelError(
            f"{keys.where} uses the activation {activation[:40]!r} where this family has silu"
        )
    if keys.boolean("mlp_bias", False):
        raise UnsupportedModelError(
            f"{keys.where} has biases in its feed-forward layers (mlp_bias), "
            "which freehold cannot run yet"
        )


def _vocab_size(keys: Fields, tensors: Mapping[str, RawTensor]) -> int:
    size = keys.integer("vocab_size")
    table = tensors.get("token_embd.weight")
    if table is not None and table.shape[:1] != (size,):
        raise MalformedFileError(
            f"{keys.where}: vocab_size is {size:,}, but {table.name} has shape {table.shape}"
        )
    return size


def _tied(outer: Fields, keys: Fields, tensors: Mapping[str, RawTensor]) -> bool:
    """What the config says, a wrapper before what it wraps; where neither says anything, whether
    an output matrix is there."""
    for fields in (outer, keys):
        if "tie_word_embeddings" in fields:
            return fields.boolean("tie_word_embeddings", False)
    return bool(tensors) and "output.weight" not in tensors


def _window(keys: Fields, layers: int) -> tuple[int, frozenset[int]]:
    """Sliding window and the layers it spares.

    Mistral's window is on where it is set; Qwen's is off unless ``use_sliding_window``, and
    then begins at ``max_window_layers``. A list of layer types overrides both. Llama has none.
    """
    model_type = keys.text("model_type", "")
    if model_type == "llama":
        return 0, frozenset()
    switch = model_type.startswith("qwen")
    if switch and not keys.boolean("use_sliding_window", False):
        return 0, frozenset()
    window = keys.integer("sliding_window", 0, low=0)
    if not window:
        return 0, frozenset()
    kinds = keys.get("layer_types")
    if kinds is None:
        if model_type == "qwen2_moe":  # every other of the first layers has the window
            first = keys.integer("max_window_layers", 28, low=0)
            return window, frozenset(i for i in range(layers) if i % 2 or i >= first)
        some = switch and model_type != "qwen3_moe"
        first = keys.integer("max_window_layers", 0, low=0) if some else 0
        return window, frozenset(range(min(first, layers)))
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise keys.bad("layer_types", f"a list of {layers} names")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise UnsupportedModelError(f"{keys.where} has layers of type {shown(kind)}")
    return window, frozenset(i for i, kind in enumerate(kinds) if kind == "full_attention")


def _rope_table(keys: Fields) -> Fields | None:
    # `rope_parameters` since transformers 5; before, `rope_scaling` beside `rope_theta`.
    return keys.table("rope_parameters") or keys.table("rope_scaling")


def _rope(keys: Fields, head_dim: int, scaling: RopeScaling) -> RopeSpec:
    table = _rope_table(keys)
    base = keys.number("rope_theta", 10000.0, above=1.0)
    partial = keys.number("partial_rotary_factor", 1.0, high=1.0)
    if table is not None:
        base = table.number("rope_theta", base, above=1.0)
        partial = table.number("partial_rotary_factor", partial, high=1.0)
    dim = int(head_dim * partial)
    if dim < 2 or dim % 2:
        raise MalformedFileError(
            f"{keys.where}: heads of {head_dim} of which {partial:g} is rotated "
            "leave no even number of dimensions"
        )
    # Of `formats.mistral_files`; Hugging Face's own models pair halves.
    interleaved = keys.text("rotary_pairs", "halves") == "adjacent"
    return RopeSpec(inverse_frequencies(dim, base, scaling), interleaved, scaling.magnitude)


def _scaling(keys: Fields, context: int) -> RopeScaling:
    table = _rope_table(keys)
    if table is None:
        return RopeScaling()
    kind = table.text("rope_type", table.text("type", "default"))
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling("linear", table.number("factor"))
    if kind not in ("llama3", "yarn"):
        raise UnsupportedModelError(
            f"{table.where} stretches the context by {kind[:40]!r}",
            hint="known: default, linear, llama3, yarn",
        )
    trained = table.integer("original_max_position_embeddings", context)
    trained = keys.integer("original_max_position_embeddings", trained)
    if kind == "yarn":
        named = any("original_max_position_embeddings" in fields for fields in (table, keys))
        return _yarn(table, context, trained, named)
    low, high = table.number("low_freq_factor"), table.number("high_freq_factor")
    if high < low:
        raise table.bad("high_freq_factor", f"at least low_freq_factor ({low:g})")
    factor = table.number("factor")
    return RopeScaling("llama3", factor, trained, low_freq_factor=low, high_freq_factor=high)


def _yarn(table: Fields, context: int, trained: int, named: bool) -> RopeScaling:
    factor = table.number("factor", context / trained)
    # 0 and null both mean "the default" in published configs.
    fast = table.number("beta_fast", 32.0, zero=True) or 32.0
    slow = table.number("beta_slow", 1.0, zero=True) or 1.0
    if fast < slow:
        raise table.bad("beta_fast", f"at least beta_slow ({slow:g})")
    mscale = table.number("mscale", 0.0, zero=True, high=1e3)
    mscale_all = table.number("mscale_all_dim", 0.0, zero=True, high=1e3)
    magnitude = yarn_magnitude(factor)
    if mscale and mscale_all:
        magnitude = yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all)
    return RopeScaling(
        "yarn",
        factor,
        trained,
        names_original=named,
        beta_fast=fast,
        beta_slow=slow,
        truncate=table.boolean("truncate", True),
        magnitude=table.number("attention_factor", magnitude),
    )
