# SPDX-License-Identifier: Apache-2.0
"""What planning needs to know of a model, in numbers: `ModelSizes`.

Read from the headers of an open checkpoint, or made out of a vendor's config.json and the name of
a quantisation, by the same tables that loading checks files with. No weight is read. What reads
files and knows families is imported where it is needed: whoever has sizes needs neither.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from freehold.ops import KVLayerSpec

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint
    from freehold.models.base import ModelConfig

# What a matrix is to one token: read for every token, looked up a row at a time, one of the experts
# of which some are read, or read where logits are wanted.
Use = Literal["layer", "lookup", "expert", "head"]

# Small matrices that loading turns into float32, whatever the file has.
_IN_FLOAT32 = re.compile(
    r"(ffn_gate_inp(_shexp)?|indexer(_\w+)?\.proj|altup_(router|predict_coef|correct_coef)"
    r"|\w*hc_\w*fn)\.weight$"
)
_LOOKUPS = ("token_embd.weight", "per_layer_token_embd.weight")


@dataclass(frozen=True, slots=True)
class Matrices:
    """All matrices of one use and one stored type."""

    use: Use
    qtype: str
    resident_bytes: int
    elements: int


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """A model as far as its memory and speed go."""

    architecture: str
    context_length: int
    vocab_size: int
    hidden_size: int
    num_layers: int
    query_width: int  # values of all heads' queries of a token
    feed_forward_width: int  # of the widest layer; of experts, those one token passes together
    num_heads: int
    num_experts: int
    top_k: int  # experts a token passes
    caches: tuple[tuple[KVLayerSpec, int], ...]  # kinds of cache layers, how many of each
    matrices: tuple[Matrices, ...]
    vector_bytes: int  # norms and biases, in float32
    stored_bytes: int  # of all tensors, in the file
    parameters: int

    @property
    def resident_bytes(self) -> int:
        """Bytes of the weights once they are loaded."""
        return self.vector_bytes + sum(m.resident_bytes for m in self.matrices)

    @property
    def main_type(self) -> str:
        """The stored type that most of the bytes a token reads are in."""
        read: Counter[str] = Counter()
        for m in self.matrices:
            if m.use != "lookup":
                read[m.qtype] += m.resident_bytes
        return read.most_common(1)[0][0] if read else "F32"

    @property
    def kv_layers(self) -> tuple[KVLayerSpec, ...]:
        """One for each cache layer, those of a kind together."""
        return tuple(spec for spec, count in self.caches for _ in range(count))

    @property
    def kv_width(self) -> int:
        """Keys and values of the widest layer, values of a token."""
        return max((s.num_kv_heads * (s.key_dim + s.value_dim) for s, _ in self.caches), default=0)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str  # canonical
    shape: tuple[int, ...]
    qtype: str
    nbytes: int  # stored


def sizes_of(checkpoint: Checkpoint, config: ModelConfig | None = None) -> ModelSizes:
    """The sizes of an open checkpoint. Raises what `read_config` raises."""
    from freehold.models.config import read_config, weight_tensors

    config = config or read_config(checkpoint)
    tensors = weight_tensors(checkpoint, config)
    stored = (_Tensor(name, tuple(t.shape), t.qtype, t.nbytes) for name, t in tensors.items())
    return _sizes(config, stored)


def sizes_of_shape(shape: Mapping[str, Any], quant: str, where: str = "config.json") -> ModelSizes:
    """The sizes of a model described by its vendor's config.json, quantised as `quant` names it
    (`quants.mixes`). Raises UnsupportedModelError and MalformedFileError as a file would."""
    from freehold.models.config import family_of, read_config

    checkpoint = as_checkpoint(shape, where)
    return sizes_of_config(read_config(checkpoint), family_of(checkpoint), quant)


def as_checkpoint(shape: Mapping[str, Any], where: str) -> Checkpoint:
    """The keys of a config.json as a checkpoint without tensors, for `models.config` to read."""
    from freehold.formats.checkpoint import Checkpoint

    # How a vendor's own files are quantised says nothing of the files that are planned for.
    metadata = {key: value for key, value in shape.items() if key != "quantization_config"}
    return Checkpoint(
        path=Path(where), directory=Path(), format="safetensors",
        architecture=str(metadata.get("model_type") or ""), metadata=metadata,
        value_types=MappingProxyType({}), tensors=MappingProxyType({}), files=[], _open=[],
    )  # fmt: skip


def sizes_of_config(config: ModelConfig, family: str, quant: str) -> ModelSizes:
    """The sizes of a model with this configuration under a named quantisation."""
    from freehold.models.blocks import expected_of
    from freehold.planner.layout import stored_bytes
    from freehold.quants import mixes

    mix = mixes.get(quant)
    model = mixes.ModelShape(
        config.architecture, config.num_layers, config.num_heads, config.num_kv_heads,
        config.num_experts, config.tied_embeddings,
    )  # fmt: skip

    def tensor(name: str, shape: tuple[int, ...], whole: bool) -> _Tensor:
        qtype = "I32" if whole else mixes.choose(mix, name, shape, model)
        return _Tensor(name, shape, qtype, stored_bytes(shape, qtype))

    expected = expected_of(family, config).items()
    return _sizes(config, (tensor(n, w.shape, w.whole) for n, w in expected if w.required))


def _sizes(config: ModelConfig, tensors: Iterable[_Tensor]) -> ModelSizes:
    from freehold.formats.gguf_types import TENSOR_TYPES_BY_NAME
    from freehold.planner.layout import packed_bytes

    resident: Counter[tuple[Use, str]] = Counter()
    elements: Counter[tuple[Use, str]] = Counter()
    vectors = stored = parameters = 0
    for tensor in tensors:
        count = math.prod(tensor.shape)
        parameters += count
        stored += tensor.nbytes
        if len(tensor.shape) < 2 or tensor.name.endswith(".bias"):
            vectors += 4 * count
            continue
        qtype = "F32" if _IN_FLOAT32.search(tensor.name) else tensor.qtype
        use = _use(tensor.name, config.tied_embeddings)
        # A type that freehold only describes: as it is stored.
        known = qtype in TENSOR_TYPES_BY_NAME
        resident[use, qtype] += packed_bytes(tensor.shape, qtype) if known else tensor.nbytes
        elements[use, qtype] += count
    moe = config.moe
    top_k = moe.routing.top_k if moe else 0
    widths = [config.ffn_size, top_k * moe.expert_ffn_size if moe else 0]
    layers = config.kv_layers()
    return ModelSizes(
        architecture=config.architecture,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        query_width=config.num_heads * max([config.head_dim, *(s.key_dim for s in layers)]),
        feed_forward_width=max(widths),
        num_heads=config.num_heads,
        num_experts=config.num_experts,
        top_k=top_k,
        caches=tuple(Counter(layers).items()),
        matrices=tuple(
            Matrices(use, qtype, nbytes, elements[use, qtype])
            for (use, qtype), nbytes in resident.items()
        ),
        vector_bytes=vectors,
        stored_bytes=stored,
        parameters=parameters,
    )


def _use(name: str, tied: bool) -> Use:
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "head"
    if name in _LOOKUPS:
        return "lookup"
    return "expert" if "_exps." in name else "layer"
