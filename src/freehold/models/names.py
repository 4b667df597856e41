# SPDX-License-Identifier: Apache-2.0
"""Tensor names: Hugging Face spellings to the canonical ones, which are GGUF's.

Knows spelling only, for the Llama-like families. Shapes and the order of rows are
somebody else's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_GLOBAL = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.embed_in": "token_embd",
    "model.final_layer_norm": "output_norm",
    "embed_out": "output",
    "lm_head": "output",
    "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj",
    "model.per_layer_projection_norm": "per_layer_proj_norm",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
# Experts one by one, as old GGUF files have them; and all of a layer in one tensor.
_EXPERT = {
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "w1": "ffn_gate",
    "w3": "ffn_up",
    "w2": "ffn_down",
}
_EXPERTS = {
    "gate_up_proj": "ffn_gate_up_exps.weight",
    "gate_up_proj_bias": "ffn_gate_up_exps.bias",
    "down_proj": "ffn_down_exps.weight",
    "down_proj_bias": "ffn_down_exps.bias",
}
# The language model inside a multimodal one, in the two layouts transformers has written; and
# GPT-NeoX's own word for "model".
_WRAPPERS = (("model.language_model.", "model."), ("language_model.", ""), ("gpt_neox.", "model."))
# Parts that text does not pass through, and buffers that old versions saved by mistake.
_IGNORED = re.compile(
    r"(model\.)?(vision_(tower|model|adapter|projection|embedder)|audio_tower|embed_vision"
    r"|embed_audio|multi_modal_projector)\..+"
    r"|(.+\.)?rotary_emb\.inv_freq"
    r"|gpt_neox\.layers\.\d+\.attention\.(masked_)?bias"
)
_HF_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.(.+)\.(weight|bias)")
_HF_BARE = re.compile(r"model\.layers\.(\d{1,9})\.(.+)")  # a parameter without a module of its own
_HF_EXPERT = re.compile(
    r"model\.layers\.(\d{1,9})\.(?:mlp|block_sparse_moe|feed_forward)\.experts\."
    r"(?:(\d{1,9})\.(\w+)\.weight|(\w+))"
)


def canonical_name(name: str, own: Mapping[str, str] | None = None) -> str | None:
    """GGUF name of the Hugging Face tensor `name`; None for one that is of no use.

    `own` are the parts of a layer that a family names otherwise, or alone has. A name
    with a dot has its own ending ("router.scale": "ffn_gate_inp.scale").
    A name that follows no known pattern comes back unchanged, for the loader to complain of.
    """
    if _IGNORED.fullmatch(name):
        return None
    for wrapped, plain in _WRAPPERS:
        if name.startswith(wrapped):
            name = plain + name.removeprefix(wrapped)
            break
    stem, _, suffix = name.rpartition(".")
    if stem in _GLOBAL and suffix in ("weight", "bias"):
        return f"{_GLOBAL[stem]}.{suffix}"
    match = _HF_LAYER.fullmatch(name)
    if match and (part := (own or {}).get(match[2]) or _LAYER.get(match[2])):
        return f"blk.{int(match[1])}.{part}.{match[3]}"
    match = _HF_EXPERT.fullmatch(name)
    if match and match[3] in _EXPERT:
        return f"blk.{int(match[1])}.{_EXPERT[match[3]]}.{int(match[2])}.weight"
    if match and match[4] in _EXPERTS:
        return f"blk.{int(match[1])}.{_EXPERTS[match[4]]}"
    match = _HF_BARE.fullmatch(name)
    if match and (part := (own or {}).get(match[2])):
        return f"blk.{int(match[1])}.{part}{'' if '.' in part else '.weight'}"
    return name
