# SPDX-License-Identifier: Apache-2.0
"""Tiny random Llama 4, Muse Glimmer and gpt-oss beside `tiny_models`: cases, and GGUF files.

Files are written with the `gguf` package and by the rules of llama.cpp's converter as far as it has
any: experts turned and split, gate and up of gpt-oss taken apart, Muse's queries and keys with
neighbours as pairs. Chunks other than 8192 have no key there, nor has another temperature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

import tiny_models

_SIZES = {
    "vocab_size": tiny_models.VOCAB, "hidden_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 128, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
_LLAMA4 = {
    **_SIZES, "intermediate_size": 64, "intermediate_size_mlp": 96, "num_hidden_layers": 5,
    "num_local_experts": 4, "attention_chunk_size": 8, "floor_scale": 8, "attn_scale": 0.4,
}  # fmt: skip
_LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 1.0, "original_max_position_embeddings": 32,
}  # fmt: skip
_MUSE = {
    **_SIZES, "intermediate_size": 96, "num_hidden_layers": 6, "sliding_window": 8,
    "final_logit_softcapping": 3.0, "output_multiplier": 0.4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
_VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "pos_emb_height": 2, "pos_emb_width": 2, "max_position_embeddings": 4,
}  # fmt: skip
_YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "beta_fast": 4.0, "beta_slow": 1.0,
    "truncate": False, "original_max_position_embeddings": 32,
}  # fmt: skip
# The width of gpt-oss's experts is that of the model, so no shape tells which way they are stored.
_GPT_OSS = {
    **_SIZES, "intermediate_size": 64, "num_hidden_layers": 4, "num_local_experts": 6,
    "num_experts_per_tok": 3, "sliding_window": 8, "rope_parameters": _YARN,
}  # fmt: skip
# Options by case; a name begins with the GGUF architecture.
CASES: dict[str, dict[str, Any]] = {
    "llama4": {**_LLAMA4, "rope_parameters": _LLAMA3_ROPE},
    "llama4-maverick": {  # experts in every other layer, queries and keys not normed
        **_LLAMA4, "num_local_experts": 128, "interleave_moe_layer_step": 2, "use_qk_norm": False,
        "num_hidden_layers": 4, "intermediate_size": 32,
    },
    "llama4-two-experts": {
        **_LLAMA4, "num_experts_per_tok": 2, "tie_word_embeddings": True, "attention_bias": True,
    },
    "llama4-mobile": {  # MobileLLM-R1: no experts, no chunks, rotation everywhere
        **_LLAMA4, "num_local_experts": 0, "num_experts_per_tok": 0, "moe_layers": [],
        "no_rope_layers": [1] * 5, "attn_temperature_tuning": False, "tie_word_embeddings": True,
        "layer_types": ["full_attention"] * 5,
    },
    "muse-glimmer": _MUSE,
    "muse-glimmer-all-local": {**_MUSE, "num_hidden_layers": 3, "qk_scale_factor": 2.0,
                               "layer_types": ["sliding_attention"] * 3,
                               "layer_rope_theta": [10000.0] * 3},
    "gpt-oss": _GPT_OSS,
    "gpt-oss-one-expert": {**_GPT_OSS, "num_experts_per_tok": 1, "intermediate_size": 32,
                           "num_hidden_layers": 3},
}  # fmt: skip


def architecture(case: str) -> str:
    return next(arch for arch in ("llama4", "muse-glimmer", "gpt-oss") if case.startswith(arch))


def build(case: str, seed: int = 0, **more: Any) -> Any:
    """The transformers model in float32, every parameter random."""
    import transformers

    options, arch = {**CASES[case], **more}, architecture(case)
    eager = {"attn_implementation": "eager"}
    if arch == "muse-glimmer":
        config = transformers.MuseGlimmerConfig(
            text_config=options, vision_config=_VISION, out_hidden_size=64,
            projector_hidden_size=16, image_token_id=150, video_token_id=151,
            tie_word_embeddings=options["tie_word_embeddings"], **eager,
        )  # fmt: skip
        model = transformers.MuseGlimmerForConditionalGeneration(config)
    elif arch == "llama4":
        model = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**options, **eager))
    else:
        model = transformers.GptOssForCausalLM(transformers.GptOssConfig(**options, **eager))
    return randomised(model.eval().float(), seed)


def randomised(model: Any, seed: int = 0) -> Any:
    """`model` with every parameter drawn anew, whichever axis it is multiplied along."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    centred = model.config.model_type == "muse_glimmer"  # layers hold norm weights less one

    def normal(parameter, spread):
        return torch.randn(parameter.shape, generator=generator) * spread

    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("gate_up_proj_bias"):
                p.copy_(normal(p, 5.0))  # so that the clamp of 7 has work to do
            elif name.endswith(("bias", "sinks")):
                p.copy_(normal(p, 1.0 if name.endswith("sinks") else 0.3))
            elif p.ndim == 1:
                mean = 0.0 if centred and name.endswith("layernorm.weight") else 1.0
                p.copy_(mean + normal(p, 0.25))
            elif "embed_tokens" in name:
                p.copy_(normal(p, 1.0))
            else:
                turned = ".experts." in name  # [experts, in, out]
                gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
                p.copy_(normal(p, gain * p.shape[1 if turned or p.ndim == 2 else -1] ** -0.5))
    return model


def text_model(model: Any) -> tuple[Any, str]:
    """The configuration of the language model, and what stands before its tensors' names."""
    config = model.config
    inner = getattr(config, "text_config", None)
    return (config, "model.") if inner is None else (inner, "model.language_model.")


# -- GGUF ------------------------------------------------------------------------------------------
_NAMES = {**tiny_models._NAMES, "self_attn.gate_proj": "attn_gate", "mlp.router": "ffn_gate_inp"}
_OWN = {
    "llama4": {
        "feed_forward.router": "ffn_gate_inp",
        "feed_forward.gate_proj": "ffn_gate", "feed_forward.up_proj": "ffn_up",
        "feed_forward.down_proj": "ffn_down",
        "feed_forward.shared_expert.gate_proj": "ffn_gate_shexp",
        "feed_forward.shared_expert.up_proj": "ffn_up_shexp",
        "feed_forward.shared_expert.down_proj": "ffn_down_shexp",
    },
    "muse-glimmer": tiny_models._FOUR_NORMS,
    "gpt-oss": {"post_attention_layernorm": "post_attention_norm"},
}  # fmt: skip


def gguf_tensors(model: Any, arch: str) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names."""
    config, prefix = text_model(model)
    names = _NAMES | _OWN[arch]
    tensors: dict[str, np.ndarray] = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        if name == "lm_head.weight":
            if not config.tie_word_embeddings:
                tensors["output.weight"] = array
        elif name == f"{prefix}embed_tokens.weight":
            tensors["token_embd.weight"] = array
        elif name == f"{prefix}norm.weight":
            tensors["output_norm.weight"] = array
        elif name.startswith(f"{prefix}layers."):
            layer, part = name.removeprefix(f"{prefix}layers.").split(".", 1)
            blk = f"blk.{layer}."
            if ".experts." in part:
                _add_experts(tensors, blk, part.rpartition(".")[2], array, arch)
            elif part == "self_attn.sinks":
                tensors[f"{blk}attn_sinks.weight"] = array
            else:
                stem, _, suffix = part.rpartition(".")
                tensors[f"{blk}{names[stem]}.{suffix}"] = _converted(arch, config, stem, array)
                if arch == "muse-glimmer" and stem == "self_attn.q_proj":
                    dim = config.head_dim
                    scale = np.full(dim, config.qk_scale_factor, dtype=np.float32)
                    tensors[f"{blk}attn_q_norm.weight"] = scale
                    tensors[f"{blk}attn_k_norm.weight"] = np.ones(dim, dtype=np.float32)
    return tensors


def _converted(arch: str, config: Any, stem: str, array: np.ndarray) -> np.ndarray:
    if arch != "muse-glimmer":
        return array
    if stem.endswith("layernorm"):
        return array + np.float32(1)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = heads.get(stem.rpartition(".")[2])
    if count is None:
        return array
    return array.reshape(count, 2, -1, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)


def _add_experts(
    tensors: dict[str, np.ndarray], blk: str, part: str, array: np.ndarray, arch: str
) -> None:
    suffix = "bias" if part.endswith("_bias") else "weight"
    array = array if suffix == "bias" else array.swapaxes(1, 2)  # [experts, out (, in)]
    if part.startswith("down"):
        tensors[f"{blk}ffn_down_exps.{suffix}"] = array
        return
    halves = (array[:, ::2], array[:, 1::2]) if arch == "gpt-oss" else np.split(array, 2, axis=1)
    for kind, half in zip(("gate", "up"), halves, strict=True):
        tensors[f"{blk}ffn_{kind}_exps.{suffix}"] = half


def write_gguf(
    model: Any, case: str, path: Path, qtype: str = "F32", expert_type: str | None = None
) -> Path:
    """The model as GGUF. Matrices in `qtype` but for routers, which are F32 everywhere."""
    arch, (config, _) = architecture(case), text_model(model)
    writer = gguf.GGUFWriter(path, arch)
    tensors = gguf_tensors(model, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    tiny_models._add_rope(writer, config.rope_parameters, config.head_dim)
    {"llama4": _add_llama4, "muse-glimmer": _add_muse, "gpt-oss": _add_gpt_oss}[arch](
        writer, config
    )
    for name, array in tensors.items():
        kind = (expert_type if "_exps" in name else None) or qtype
        if array.ndim < 2 or "ffn_gate_inp" in name or name.endswith("bias") or kind == "F32":
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
        else:
            data = encoded(array, kind)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def encoded(array: np.ndarray, qtype: str) -> np.ndarray:
    """Stored bytes, one row per row, of two dimensions or three."""
    rows = np.ascontiguousarray(array.reshape(-1, array.shape[-1]))
    return tiny_models.encoded(rows, qtype).reshape(*array.shape[:-1], -1)


def _add_llama4(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_feed_forward_length(config.intermediate_size_mlp)
    if config.num_local_experts:
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_interleave_moe_layer_step(config.interleave_moe_layer_step)
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if all(kind == "full_attention" for kind in config.layer_types):
        writer.add_sliding_window(0)
        return
    writer.add_uint32("llama4.attention.chunk_size", config.attention_chunk_size)
    writer.add_float32("llama4.attention.temperature_scale", config.attn_scale)
    writer.add_uint32("llama4.attention.temperature_length", config.floor_scale)


def _add_muse(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_logit_scale(config.output_multiplier)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([k == "sliding_attention" for k in config.layer_types])


def _add_gpt_oss(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(config.sliding_window)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_expert_feed_forward_length(config.intermediate_size)
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)


# -- MXFP4 as OpenAI stores it ---------------------------------------------------------------------
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


def microscaled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`values` [..., K] rounded to MXFP4: blocks [..., K/32, 16] with the first of two codes in
    the low bits, scales [..., K/32] and the rounded values (OCP microscaling formats, v1.0)."""
    groups = values.reshape(*values.shape[:-1], -1, 32)
    power = np.floor(np.log2(np.abs(groups).max(axis=-1) / 6.0)) + 1
    scaled = groups / 2.0 ** power[..., None]
    codes = np.abs(scaled[..., None] - _FP4).argmin(axis=-1).astype(np.uint8)
    rounded = (_FP4[codes] * 2.0 ** power[..., None]).reshape(values.shape)
    blocks = codes[..., ::2] | codes[..., 1::2] << 4
    return blocks, (power + 127).astype(np.uint8), rounded.astype(np.float32)


def save_microscaled(model: Any, folder: Path) -> Any:
    """gpt-oss as published: experts in blocks and scales. Rounds `model`'s experts to what the
    file holds, and returns it."""
    import json

    import torch
    from safetensors.torch import load_file, save_file

    model.save_pretrained(folder)
    stored = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = value
            continue
        blocks, scales, rounded = microscaled(np.ascontiguousarray(value.numpy().swapaxes(1, 2)))
        stored[f"{name}_blocks"] = torch.from_numpy(blocks.copy())
        stored[f"{name}_scales"] = torch.from_numpy(scales.copy())
        with torch.no_grad():
            model.get_parameter(name).copy_(torch.from_numpy(rounded.swapaxes(1, 2).copy()))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                   "model.embed_tokens", "lm_head"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return model
