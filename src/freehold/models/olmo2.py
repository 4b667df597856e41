# SPDX-License-Identifier: Apache-2.0
"""OLMo 2, 3 and 3.1: norms after each half of a layer and none before.

Queries and keys are normed across all heads together. OLMo 3 has a window in three layers of four,
and stretches the rotation of the others alone. GGUF has one name for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.formats.checkpoint import Checkpoint
from freehold.models._family import Dialect
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf
from freehold.models._layer_kinds import kinds_or_every, rope_of_kind
from freehold.models._weights import Progress
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import DenseLayout, load_dense
from freehold.models.rope import RopeScaling, inverse_frequencies, plain_base
from freehold.ops import Ops, RawTensor, RopeSpec

_PERIOD = 4  # of OLMo 3: the last of so many layers has no window
_WINDOW, _BASE = 4096, 500_000.0
_LOCAL_ROPE = "rope_parameters of sliding_attention"  # what `hf_keys` leaves for `_from_hf`


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms, what OLMo 3 leaves out filled in."""
    values = {"rms_norm_eps": 1e-5, **keys.values}
    if keys.get("model_type") != "olmo3":
        values.pop("sliding_window", None)
        return replace(keys, values=values)
    values.setdefault("sliding_window", _WINDOW)
    keys = replace(keys, values=values)
    values["layer_types"] = kinds_or_every(keys, _PERIOD)
    whole, local = (rope_of_kind(keys, f"{kind}_attention") for kind in ("full", "sliding"))
    if keys.table("rope_scaling") is not None:
        whole |= keys.values["rope_scaling"]
    base = keys.number("rope_theta", _BASE, above=1.0)
    values["rope_parameters"] = {"rope_theta": base, **whole}
    values[_LOCAL_ROPE] = {"rope_theta": base, **local}
    return replace(keys, values={k: v for k, v in values.items() if k != "rope_scaling"})


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    values = dict(_hf_keys(Fields(config, where)).values)
    result = config_from_hf(architecture, values, tensors, where)
    if not result.sliding_window:
        return result
    local = {**values, "rope_parameters": values[_LOCAL_ROPE]}
    return replace(result, local_rope=config_from_hf(architecture, local, tensors, where).rope)


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    shared = {keys.prefix + "attention.sliding_window_pattern": _PERIOD, **metadata}
    config = config_from_gguf(architecture, shared, tensors, where)
    if not config.sliding_window:
        return config
    base = keys.number("rope.freq_base", 10000.0, above=1.0)
    base = keys.number("rope.freq_base_swa", base, above=1.0)
    plain = inverse_frequencies(2 * len(config.rope.inv_freq), base, RopeScaling())
    return replace(config, local_rope=RopeSpec(plain, config.rope.interleaved))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    if config.local_rope is None:
        return {}
    return {"rope.freq_base_swa": plain_base(config.local_rope)}


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    gguf_keys=_gguf_keys,
    layer_names={
        "post_attention_layernorm": "post_attention_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
)
LAYOUT = DenseLayout(
    qkv_bias="optional",
    output_bias="optional",
    qk_norm="required",
    qk_norm_whole=True,
    pre_norms="absent",
    post_norms="required",
)


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
