# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters on a loaded model: which matrix each pair changes, checked and loaded.

Knows how the names and the order of rows differ between an adapter's file and the model's. What
an adapter does in a forward pass is in `adapted_ops`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from freehold.errors import (
    EngineError,
    InvalidParameterError,
    MalformedFileError,
    UnsupportedModelError,
)
from freehold.formats.adapter_file import AdapterFile, LowRankPair
from freehold.formats.checkpoint import Checkpoint
from freehold.models._expert_tensors import DecodedTensor
from freehold.models._family import dialect_of
from freehold.models._gguf_config import INTERLEAVED
from freehold.models._row_order import interleaved_rows, reordered
from freehold.models._weights import Expected
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import expected_of
from freehold.models.config import family_of
from freehold.models.names import canonical_name
from freehold.ops import LowRank, Ops, RawTensor, Weight

# Of the architectures whose GGUF files have rotated pairs side by side, those whose Hugging Face
# files have them so too.
_SIDE_BY_SIDE_ANYWAY = frozenset({"llama4"})
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@runtime_checkable
class Adaptable(Protocol):
    """A `CausalLM` whose layers take adapters."""

    @property
    def matrices(self) -> Mapping[str, Weight]:
        """What an adapter may change, by canonical name: matrices that go through `Ops.linear`,
        `linear_many` and `gate_up` alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter on the device of the model it was loaded for. It lives as long as somebody
    holds it: requests under it end in peace when its name is taken away."""

    name: str
    identity: bytes  # 128 bits; two adapters with the same one compute the same
    nbytes: int
    updates: Mapping[int, LowRank] = field(repr=False)  # by the id() of the matrix they change


def check_adapter_name(name: str) -> None:
    """Raise InvalidParameterError unless an adapter can be called so."""
    if not _NAME.fullmatch(name):
        raise InvalidParameterError(
            f"{name!r:.80} cannot be the name of an adapter",
            hint="use up to 64 letters, digits, dots, dashes and underscores",
        )


def checked_pairs(
    file: AdapterFile, checkpoint: Checkpoint, config: ModelConfig
) -> dict[str, LowRankPair]:
    """The adapter's pairs by the canonical name of the model's matrix each changes.

    Reads headers only. Raises UnsupportedModelError naming a module that freehold cannot adapt,
    MalformedFileError for shapes that do not fit the model's."""
    if file.architecture and file.architecture != config.architecture:
        raise UnsupportedModelError(
            f"{file.path}: made for the architecture {file.architecture!r:.60}, and the model is "
            f"{config.architecture!r}"
        )
    known = _adaptable(family_of(checkpoint), config)
    own_names = dialect_of(family_of(checkpoint)).layer_names
    pairs: dict[str, LowRankPair] = {}
    for module, pair in file.pairs.items():
        name = f"{module}.weight"
        canonical = name if file.format == "gguf" else canonical_name(name, own_names)
        want = known.get(canonical or "")
        if canonical is None or want is None:
            raise UnsupportedModelError(
                f"{file.path}: an adapter on {module[:100]} cannot be run with this model",
                hint=_can_be_adapted(known),
            )
        if canonical in pairs:
            raise MalformedFileError(f"{file.path}: two pairs are for {canonical}")
        shape = (pair.up.shape[0], pair.down.shape[1])
        if shape != want.shape:
            raise MalformedFileError(
                f"{file.path}: the pair for {module[:100]} makes {list(shape)}, and the model's "
                f"matrix is {list(want.shape)}",
                hint="the adapter is for another model",
            )
        pairs[canonical] = pair
    return pairs


def load_adapter(
    file: AdapterFile, name: str, checkpoint: Checkpoint, model: CausalLM, ops: Ops
) -> Adapter:
    """Load an adapter onto the device of `ops`, for a model that `ops` loaded from `checkpoint`.

    The file may be closed afterwards. Raises what `checked_pairs` raises, and MalformedFileError
    for values that are no numbers."""
    pairs = checked_pairs(file, checkpoint, model.config)
    if not isinstance(model, Adaptable):
        raise EngineError(f"{type(model).__name__} does not name its matrices")
    updates: dict[int, LowRank] = {}
    nbytes = 0
    for canonical, pair in pairs.items():
        up = _rows_as_the_model_has(pair.up, canonical, file.format, model.config)
        halves = [ops.load_weight(_as_loaded(tensor, file)) for tensor in (pair.down, up)]
        updates[id(model.matrices[canonical])] = LowRank(halves[0], halves[1], pair.scale)
        nbytes += sum(half.nbytes for half in halves)
    return Adapter(name, file.digest(), nbytes, updates)


def device_bytes(file: AdapterFile) -> int:
    """Bytes an adapter takes on a device, about, before it is loaded: rows come by sixteens."""
    total = 0
    for pair in file.pairs.values():
        for half in (pair.down, pair.up):
            rows = half.shape[0]
            stored = half.nbytes * (2 if half.qtype == "BF16" else 1)
            total += stored // rows * (-(-rows // 16) * 16)
    return total


def _adaptable(family: str, config: ModelConfig) -> dict[str, Expected]:
    """Matrices of the layers that the decoder most families share multiplies by itself."""
    module = importlib.import_module(f"freehold.models.{family}")
    if hasattr(module, "expected_tensors"):
        return {}  # layers of their own
    return {
        name: expected
        for name, expected in expected_of(family, config).items()
        if name.startswith("blk.")
        and name.endswith(".weight")
        and len(expected.shape) == 2
        # Routers are asked in float32 once a layer, and what they choose is not to be moved.
        and ".ffn_gate_inp" not in name
    }


def _can_be_adapted(known: Mapping[str, Expected]) -> str:
    if not known:
        return "this family takes no adapters"
    return f"what can be adapted: {', '.join(dict.fromkeys(n.split('.')[2] for n in known))}"


def _rows_as_the_model_has(
    up: RawTensor, canonical: str, form: str, config: ModelConfig
) -> RawTensor:
    """`up` with its rows in the order of the matrix it changes: queries and keys of the Llama
    family lie otherwise in GGUF than in Hugging Face's files."""
    part = canonical.split(".")[2]
    turned = config.architecture in INTERLEAVED - _SIDE_BY_SIDE_ANYWAY
    if not turned or part not in ("attn_q", "attn_k"):
        return up
    if (form == "gguf") == config.rope.interleaved:
        return up
    heads = config.num_heads if part == "attn_q" else config.num_kv_heads
    order = interleaved_rows(heads, config.head_dim, 2 * len(config.rope.inv_freq))
    return reordered(up, order if config.rope.interleaved else np.argsort(order))


def _as_loaded(tensor: RawTensor, file: AdapterFile) -> RawTensor:
    """What is handed to the device. Devices multiply bfloat16 by rounded inputs; here the matrices
    are small and the products are small differences, so they are float32."""
    if not np.isfinite(tensor.to_f32()).all():
        raise MalformedFileError(
            f"{file.path}: the tensor {tensor.name[:100]} holds values that are no numbers"
        )
    return DecodedTensor(tensor) if tensor.qtype == "BF16" else tensor
