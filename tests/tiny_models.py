# SPDX-License-Identifier: Apache-2.0
"""Tiny random models with transformers as their judge.

Every weight, norm and bias is drawn anew, because the library's own initialisation (norms of
one, biases of zero) hides half the mistakes a loader can make. GGUF files are written with the
`gguf` package, whose layout of the Llama family (Q and K rows permuted so that rotated pairs
are neighbours) is independent of freehold's own converter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from random_blocks import stored

VOCAB = 160
PROMPT_LENGTH = 40
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Case:
    """A transformers configuration: class prefix and what differs from the common sizes."""

    kind: str  # "Llama" for LlamaConfig and LlamaForCausalLM
    options: dict[str, Any] = field(default_factory=dict)


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **values}}


_YARN = {"factor": 4.0, "original_max_position_embeddings": 32}
_GEMMA = {"head_dim": 32, "sliding_window": 8, "tie_word_embeddings": True}
CASES: dict[str, Case] = {
    "llama-mha": Case("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-6}),
    "llama-gqa": Case("Llama"),
    "llama-mqa-one-layer": Case("Llama", {"num_key_value_heads": 1, "num_hidden_layers": 1}),
    "llama-3.1-rope": Case(
        "Llama",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32),
    ),
    "llama-linear-rope": Case("Llama", _rope("linear", factor=4.0)),
    "llama-yarn": Case("Llama", _rope("yarn", **_YARN, beta_fast=4.0, beta_slow=1.0)),
    "llama-yarn-attention-factor": Case("Llama", _rope("yarn", **_YARN, attention_factor=1.25)),
    "llama-tied": Case("Llama", {"tie_word_embeddings": True}),
    "llama-wide-heads": Case("Llama", {"head_dim": 32}),
    "llama-attention-bias": Case("Llama", {"attention_bias": True}),
    "mistral-window": Case("Mistral", {"sliding_window": 8}),
    "mistral-nemo": Case("Mistral", {"sliding_window": None, "head_dim": 48}),
    "ministral-layer-types": Case(
        "Ministral",
        {"sliding_window": 8, "head_dim": 16,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "qwen2": Case("Qwen2"),
    "qwen2-yarn-tied": Case("Qwen2", {"tie_word_embeddings": True, **_rope("yarn", **_YARN)}),
    "qwen2-window": Case(
        "Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    ),
    "qwen3": Case("Qwen3", {"head_dim": 32}),
    "llama-wide": Case(
        "Llama", {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    ),
    "qwen3-tied": Case("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma": Case(
        "Gemma", {"head_dim": 32, "num_key_value_heads": 1, "tie_word_embeddings": True}
    ),
    "gemma2": Case(
        "Gemma2",
        {**_GEMMA, "num_hidden_layers": 4, "query_pre_attn_scalar": 24,
         "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0},
    ),
    "gemma2-usual-caps": Case("Gemma2", {**_GEMMA, "query_pre_attn_scalar": 32}),
    "gemma3": Case(
        "Gemma3Text",
        {**_GEMMA, "num_hidden_layers": 7, "query_pre_attn_scalar": 24,
         "rope_parameters": {
             "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
             "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    ),
    "gemma3-irregular": Case(
        "Gemma3Text",
        {**_GEMMA, "tie_word_embeddings": False, "final_logit_softcapping": 2.0,
         "query_pre_attn_scalar": 32,
         "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
         "rope_parameters": {
             "full_attention": {"rope_type": "default", "rope_theta": 20000.0},
             "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}},
    ),
}  # fmt: skip


def build(case: Case, seed: int = 0, **more: Any) -> Any:
    """The transformers model in float32, every parameter random."""
    import transformers

    options = {**_COMMON, **case.options, **more, "attn_implementation": "eager"}
    config = getattr(transformers, f"{case.kind}Config")(**options)
    family = case.kind.removesuffix("Text")
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
    return randomised(model, seed)


def randomised(model: Any, seed: int = 0) -> Any:
    """`model` with every parameter drawn anew."""
    import torch

    gemma = is_gemma(model)
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, spread):
        return torch.randn(shape, generator=generator) * spread

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(normal(parameter.shape, 0.3))
            elif parameter.ndim == 1:  # a norm
                parameter.copy_((0.0 if gemma else 1.0) + normal(parameter.shape, 0.25))
            elif "embed_tokens" in name:
                # Gemma multiplies by √hidden, which would drown the layers.
                spread = parameter.shape[1] ** -0.5 if gemma else 1.0
                parameter.copy_(normal(parameter.shape, spread))
            else:  # queries and keys larger, so that attention picks instead of averaging
                gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
                parameter.copy_(normal(parameter.shape, gain * parameter.shape[1] ** -0.5))
    return model


def is_gemma(model: Any) -> bool:
    """Whether norm weights are stored less one."""
    return bool(model.config.model_type.startswith("gemma"))


def prompt(seed: int = 0, length: int = PROMPT_LENGTH) -> list[int]:
    return np.random.default_rng(seed).integers(3, VOCAB, length).tolist()


def reference_logits(model: Any, ids: list[int]) -> np.ndarray:
    """float32 [len(ids), vocab] of the transformers model."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


# -- GGUF -------------------------------------------------------------------------------------
_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


_FOUR_NORMS = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def gguf_architecture(model: Any) -> str:
    kind = model.config.model_type.removesuffix("_text")
    if kind.startswith("gemma"):
        return str(kind)
    return kind if kind.startswith("qwen") else "llama"


def gguf_tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names, Q and K of the llama architecture permuted."""
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    names = _NAMES | (_FOUR_NORMS if gguf_architecture(model) in ("gemma2", "gemma3") else {})
    tensors: dict[str, np.ndarray] = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        if is_gemma(model) and name.endswith("norm.weight"):
            array = array + np.float32(1)
        stem, _, suffix = name.rpartition(".")
        if name.startswith("model.layers."):
            _, _, layer, part = stem.split(".", 3)
            projection = part.rpartition(".")[2]
            if gguf_architecture(model) == "llama" and projection in heads:
                # [head][half][pair] → [head][pair][half]
                split = array.reshape(heads[projection], 2, -1, *array.shape[1:])
                array = split.swapaxes(1, 2).reshape(array.shape)
            tensors[f"blk.{layer}.{names[part]}.{suffix}"] = array
        elif name == "model.embed_tokens.weight":
            tensors["token_embd.weight"] = array
        elif name == "model.norm.weight":
            tensors["output_norm.weight"] = array
        elif name == "lm_head.weight" and not config.tie_word_embeddings:
            tensors["output.weight"] = array
    return tensors


def encoded(array: np.ndarray, qtype: str) -> np.ndarray:
    """Stored bytes, one row per row. The `gguf` package decodes K-quants but encodes none; what
    nobody encodes here are random blocks of the same spread."""
    if qtype in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        return gguf.quants.quantize(array, gguf.GGMLQuantizationType[qtype])
    return stored(qtype, array).reshape(len(array), -1)


def add_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    """The keys that every decoder has."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def add_window(writer: gguf.GGUFWriter, config: Any) -> None:
    """The sliding window, and which layers have it."""
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
        kinds = getattr(config, "layer_types", None)
        if kinds:
            writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])


def write_gguf(model: Any, path: Path, qtype: str = "F32") -> Path:
    """The model as GGUF; matrices in `qtype`, all else in F32."""
    config, arch = model.config, gguf_architecture(model)
    writer = gguf.GGUFWriter(path, arch)
    head_dim = model.model.layers[0].self_attn.head_dim
    add_sizes(writer, config)
    if head_dim != config.hidden_size // config.num_attention_heads:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    _add_rope(writer, config.rope_parameters, head_dim)
    if arch in ("gemma2", "gemma3"):
        _add_gemma(writer, config)
    else:
        add_window(writer, config)
    kind = gguf.GGMLQuantizationType[qtype]
    for name, array in gguf_tensors(model).items():
        if array.ndim == 2 and qtype != "F32":
            data = encoded(array, qtype)
            writer.add_tensor(name, data, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_gemma(writer: gguf.GGUFWriter, config: Any) -> None:
    """As published: what readers of the architecture take for granted is left out."""
    writer.add_sliding_window(config.sliding_window)
    full = [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"]
    period = 2 if config.model_type == "gemma2" else 6
    if full != list(range(period - 1, config.num_hidden_layers, period)):
        flags = [kind == "sliding_attention" for kind in config.layer_types]
        writer.add_sliding_window_pattern(flags)
    if config.query_pre_attn_scalar != config.head_dim:
        writer.add_attention_scale(config.query_pre_attn_scalar**-0.5)
    if config.attn_logit_softcapping not in (None, 50.0):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if config.final_logit_softcapping not in (None, 30.0):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    local = config.rope_parameters.get("sliding_attention", {}).get("rope_theta", 10000.0)
    if local != 10000.0:
        writer.add_float32(f"{writer.arch}.rope.freq_base_swa", local)


def _add_rope(writer: gguf.GGUFWriter, rope: dict[str, Any], head_dim: int) -> None:
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(key) is not None:
                add(rope[key])
    elif kind == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_divisors(rope, head_dim))


def _llama3_divisors(rope: dict[str, Any], head_dim: int) -> np.ndarray:
    """Factor by which each frequency is divided, as the converter of that family stores it."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            span = rope["high_freq_factor"] - rope["low_freq_factor"]
            turns = rope["original_max_position_embeddings"] / wavelength
            smooth = (turns - rope["low_freq_factor"]) / span
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)
