# SPDX-License-Identifier: Apache-2.0
"""Tensors of DeepSeek V4 as GGUF names them: out of transformers' names, the vendor's own, and the
mixtures of both that exist.

Knows spelling only. Whatever is not in the tables keeps its name, for the loader to complain of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from freehold.errors import MalformedFileError
from freehold.models._family import Tensors

_GLOBAL = {
    "embed.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "head.weight": "output.weight",
    **{
        f"{spelling}{part}": f"output_hc_{part}.weight"
        for part in ("fn", "base", "scale")
        for spelling in ("hc_head_", "hc_head.hc_", "hc_head.")
    },
}
# Within a layer: GGUF's name, and the others'.
_ATTENTION: dict[str, tuple[str, ...]] = {
    "attn_sinks": ("sinks", "attn_sink"),
    "attn_q_a": ("q_a_proj.weight", "wq_a.weight"),
    "attn_q_a_norm": ("q_a_norm.weight", "q_norm.weight"),
    "attn_q_b": ("q_b_proj.weight", "wq_b.weight"),
    "attn_kv": ("kv_proj.weight", "wkv.weight"),
    "attn_kv_a_norm": ("kv_norm.weight", "norm.weight"),
    "attn_output_a": ("o_a_proj.weight", "wo_a.weight"),
    "attn_output_b": ("o_b_proj.weight", "wo_b.weight"),
    "indexer.proj": ("compressor.indexer.scorer.weights_proj.weight",
                     "indexer.weights_proj.weight"),
    "indexer.attn_q_b": ("compressor.indexer.q_b_proj.weight", "indexer.wq_b.weight"),
}  # fmt: skip
_COMPRESSOR: dict[str, tuple[str, ...]] = {
    "kv": ("kv_proj.weight", "wkv.weight"),
    "gate": ("gate_proj.weight", "wgate.weight"),
    "ape": ("position_bias", "ape"),
    "norm": ("kv_norm.weight", "norm.weight"),
}
_FEED_FORWARD: dict[str, tuple[str, ...]] = {
    "ffn_gate_inp.weight": ("gate.weight",),
    "exp_probs_b.bias": ("gate.e_score_correction_bias", "gate.bias"),
    "ffn_gate_tid2eid.weight": ("gate.tid2eid",),
    "ffn_gate_shexp.weight": ("shared_experts.gate_proj.weight", "shared_experts.w1.weight"),
    "ffn_up_shexp.weight": ("shared_experts.up_proj.weight", "shared_experts.w3.weight"),
    "ffn_down_shexp.weight": ("shared_experts.down_proj.weight", "shared_experts.w2.weight"),
}


def _spellings() -> Iterator[tuple[str, str]]:
    for block in ("self_attn.", "attn."):
        for ours, theirs in _ATTENTION.items():
            yield from ((block + name, f"{ours}.weight") for name in theirs)
        for stem, ours in (
            ("compressor.", "attn_compressor"),
            ("compressor.indexer.", "indexer_compressor"),
            ("indexer.compressor.", "indexer_compressor"),
        ):
            for part, theirs in _COMPRESSOR.items():
                yield from ((block + stem + name, f"{ours}_{part}.weight") for name in theirs)
    for block in ("mlp.", "ffn."):
        for ours, theirs in _FEED_FORWARD.items():
            yield from ((block + name, ours) for name in theirs)
    for half in ("attn", "ffn"):
        yield f"{half}_norm.weight", f"{half}_norm.weight"
        for part in ("fn", "base", "scale"):
            for name in (f"{half}_hc.{part}", f"hc_{half}_{part}"):
                yield name, f"hc_{half}_{part}.weight"


_LAYER = dict(_spellings())
_IN_LAYER = re.compile(r"layers\.(\d{1,9})\.(.+)")
_ANY_LAYER = re.compile(r"(?:blk|layers)\.(\d{1,9})\..+")
_EXPERT = re.compile(r"(?:mlp|ffn)\.experts\.(\d{1,9})\.w([123])\.weight")
_EXPERT_PARTS = {"1": "gate", "2": "down", "3": "up"}


def gguf_names(tensors: Tensors, layers: int, where: str) -> Tensors:
    """`tensors` under GGUF's names, without what guesses further tokens (``mtp.*`` and layers
    behind the last). Raises MalformedFileError for a tensor that is there in two spellings."""
    result: Tensors = {}
    for name, tensor in within(tensors, layers).items():
        plain = name.removeprefix("model.")
        if plain.startswith("mtp."):
            continue
        found = _canonical(plain) or name
        if found in result:
            raise MalformedFileError(
                f"{where}: {result[found].name[:100]} and {tensor.name[:100]} are the same tensor"
            )
        result[found] = tensor
    return result


def within(tensors: Tensors, layers: int) -> Tensors:
    """Without the layers behind the last."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if (found := _ANY_LAYER.fullmatch(name.removeprefix("model."))) is None
        or int(found[1]) < layers
    }


def _canonical(name: str) -> str | None:
    if name in _GLOBAL:
        return _GLOBAL[name]
    found = _IN_LAYER.fullmatch(name)
    if found is None:
        return None
    blk, part = f"blk.{int(found[1])}.", found[2]
    if part in _LAYER:
        return blk + _LAYER[part]
    expert = _EXPERT.fullmatch(part)
    if expert is None:
        return None
    return f"{blk}ffn_{_EXPERT_PARTS[expert[2]]}.{int(expert[1])}.weight"
