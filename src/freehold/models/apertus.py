# SPDX-License-Identifier: Apache-2.0
"""Apertus: normed queries and keys, and a feed-forward of two matrices with xIELU between them.

The activation's constants are learned, layer by layer. Vendors store two of them as the inverse of
softplus (log(exp(x) - 1)), in tensors; GGUF keeps the same numbers in lists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint
from freehold.models._family import Dialect
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf
from freehold.models._weights import Progress
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops, RawTensor, Xielu

_PARTS = ("alpha_p", "alpha_n", "beta", "eps")
_INITIAL = (0.2033823, -1.0502256, 0.5, -1e-6)  # before training; buffers a file may leave out
_ROPE = {
    "rope_type": "llama3", "rope_theta": 12e6, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def _xielu(stored: Sequence[float]) -> Xielu:
    alpha_p, alpha_n, beta, eps = stored
    return Xielu(_softplus(alpha_p), beta + _softplus(alpha_n), beta, eps)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _inverse_softplus(y: float) -> float:
    return y + math.log(-math.expm1(-y))


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms."""
    name = keys.text("hidden_act", "xielu")
    if name != "xielu":
        raise UnsupportedModelError(
            f"{keys.where} uses the activation {name[:40]!r} where this family has xielu"
        )
    values = {"rms_norm_eps": 1e-5, **keys.values}
    values.pop("hidden_act", None)
    if values.get("rope_parameters") is None and values.get("rope_scaling") is None:
        values["rope_parameters"] = _ROPE | (
            {"rope_theta": values["rope_theta"]} if values.get("rope_theta") else {}
        )
    return replace(keys, values=values)


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(Fields(config, where))
    result = config_from_hf(architecture, keys.values, tensors, where)
    layers = range(result.num_layers)
    return replace(result, xielu=tuple(_of_layer(i, tensors, where) for i in layers))


def _of_layer(index: int, tensors: Mapping[str, RawTensor], where: str) -> Xielu:
    values = []
    for part, initial in zip(_PARTS, _INITIAL, strict=True):
        name = f"blk.{index}.xielu.{part}"
        tensor = tensors.get(name)
        if tensor is None:
            if tensors and part.startswith("alpha"):
                raise MalformedFileError(f"{where}: the tensor {name} is missing")
            values.append(initial)
            continue
        if math.prod(tensor.shape) != 1 or len(tensor.shape) > 4:
            raise MalformedFileError(
                f"{where}: the tensor {tensor.name[:100]} has shape {list(tensor.shape)}, "
                "but it must hold one number"
            )
        values.append(_checked(float(tensor.to_f32().reshape(-1)[0]), where, tensor.name[:100]))
    return _xielu(values)


def _checked(value: float, where: str, name: str) -> float:
    if not abs(value) < 1e4:  # NaN too
        raise MalformedFileError(f"{where}: {name} holds {value:g}, no constant of xIELU")
    return value


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    config = config_from_gguf(architecture, metadata, tensors, where)
    keys = Fields(metadata, where, "xielu.")
    columns = [_numbers(keys, part, config.num_layers) for part in _PARTS]
    return replace(config, xielu=tuple(_xielu(row) for row in zip(*columns, strict=True)))


def _numbers(keys: Fields, part: str, layers: int) -> list[float]:
    """One number for each layer; a lone one is that of all."""
    value = keys.get(part)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = [value] * layers
    if (
        not isinstance(value, list)
        or len(value) != layers
        or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value)
    ):
        raise keys.bad(part, f"a list of {layers} numbers")
    if any(not abs(number) < 1e4 for number in value):
        raise keys.bad(part, "a list of numbers of ordinary size")
    return [float(number) for number in value]


def _bare_keys(config: ModelConfig) -> dict[str, Any]:
    rows = [
        (_inverse_softplus(x.alpha_p), _inverse_softplus(x.alpha_n - x.beta), x.beta, x.eps)
        for x in config.xielu
    ]
    columns = zip(*rows, strict=True)
    return {
        f"xielu.{part}": np.array(column, dtype=np.float32)
        for part, column in zip(_PARTS, columns, strict=True)
    }


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    bare_keys=_bare_keys,
    constant_tensors=re.compile(r"blk\.\d+\.xielu\.\w+"),
    layer_names={
        "attention_layernorm": "attn_norm",
        "feedforward_layernorm": "ffn_norm",
        **{f"mlp.act_fn.{part}": f"xielu.{part}" for part in _PARTS},
    },
)
LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional", qk_norm="required", gated=False)


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
