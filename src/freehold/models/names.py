# SPDX-License-Identifier: Apache-2.0
"""Tensor names: Hugging Face spellings to the canonical ones, which are GGUF's.

Knows spelling only, for the dense Llama-like families. Shapes and the order of rows are
somebody else's business.
"""

from __future__ import annotations

import re

_GLOBAL = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
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
}
# The language model inside a multimodal one, in the two layouts transformers has written.
_WRAPPERS = (("model.language_model.", "model."), ("language_model.", ""))
# Parts that text does not pass through, and buffers that old versions saved by mistake.
_IGNORED = re.compile(
    r"(model\.)?(vision_tower|vision_model|multi_modal_projector)\..+"
    r"|(.+\.)?rotary_emb\.inv_freq"
)
_HF_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.(.+)\.(weight|bias)")


def canonical_name(name: str) -> str | None:
    """GGUF name of the Hugging Face tensor `name`; None for one that is of no use.

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
    if match and match[2] in _LAYER:
        return f"blk.{int(match[1])}.{_LAYER[match[2]]}.{match[3]}"
    return name
