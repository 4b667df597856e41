# SPDX-License-Identifier: Apache-2.0
"""Gemma 4, its language model: layers of two shapes, some without keys of their own.

Small models look up an input for every layer, the larger ones project keys and values at once or
run experts beside the feed-forward. Images and sounds are not seen.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._family import Dialect
from freehold.models._gemma4_blocks import expected_tensors, load_gemma4
from freehold.models._gemma4_config import LAYER_NAMES
from freehold.models._gemma4_gguf import gemma4_from_gguf, gemma4_gguf_keys
from freehold.models._gemma4_hf import every_token_embedded, gemma4_from_hf, gemma4_hf_keys
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.ops import Ops

_OWN_NAMES = {
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "layer_scalar": "layer_output_scale",
    "router.proj": "ffn_gate_inp",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps",
    "experts.down_proj": "ffn_down_exps",
}
DIALECT = Dialect(
    from_gguf=gemma4_from_gguf,
    from_hf=gemma4_from_hf,
    hf_keys=gemma4_hf_keys,
    hf_tensors=every_token_embedded,
    gguf_keys=gemma4_gguf_keys,
    layer_names={**LAYER_NAMES, **_OWN_NAMES},
)

__all__ = ["DIALECT", "expected_tensors", "load"]


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_gemma4(checkpoint, ops, progress)
