# SPDX-License-Identifier: Apache-2.0
"""Types of the extension module built from ``native/``."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from freehold.ops import Expert, RowUpdate, Weight

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int32]

def available_isas() -> list[str]: ...
def weight_types() -> list[str]: ...

class Matrix:
    @property
    def out_features(self) -> int: ...
    @property
    def in_features(self) -> int: ...
    @property
    def qtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

class KVStore:
    def __init__(
        self, layers: Sequence[Sequence[int]], num_blocks: int, block_size: int, dtype: str
    ) -> None: ...
    def copy_blocks(self, src: _Ints, dst: _Ints) -> None: ...
    def read_blocks(self, blocks: _Ints, out: npt.NDArray[np.uint8]) -> None: ...
    def write_blocks(self, blocks: _Ints, data: npt.NDArray[np.uint8]) -> None: ...
    @property
    def block_nbytes(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

# A `Weight` handed to a Context must be a Matrix that a Context made.
class Context:
    def __init__(self, threads: int, isa: str | None) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def self_check(self) -> bool: ...
    @property
    def weight_bytes(self) -> int: ...
    def pack_bytes(self, qtype: str, n: int, k: int, data: npt.NDArray[np.uint8]) -> Matrix: ...
    def pack_file(self, qtype: str, n: int, k: int, path: str, offset: int) -> Matrix: ...
    def linear(
        self,
        x: _Floats,
        weights: Sequence[Weight],
        biases: Sequence[_Floats | None],
        outs: Sequence[_Floats],
    ) -> None: ...
    def linear_heads(self, x: _Floats, weights: Sequence[Weight], out: _Floats) -> None: ...
    def add_low_rank(
        self, x: _Floats, outs: Sequence[_Floats], updates: Sequence[RowUpdate]
    ) -> None: ...
    def gate_up(
        self,
        x: _Floats,
        gate: Weight,
        up: Weight,
        activation: str,
        out: _Floats,
        limit: float,
        gate_bias: _Floats | None,
        up_bias: _Floats | None,
    ) -> None: ...
    def route(
        self, logits: _Floats, normalise: bool, scale: float, chosen: _Ints, weights: _Floats
    ) -> None: ...
    def moe(
        self,
        x: _Floats,
        experts: Sequence[Expert],
        chosen: _Ints,
        weights: _Floats,
        activation: str,
        limit: float,
        weigh_input: bool,
        out: _Floats,
    ) -> None: ...
    def embed(self, table: Weight, ids: _Ints, out: _Floats) -> None: ...
    def rms_norm(
        self, x: _Floats, w: _Floats, eps: float, out: _Floats, residual: _Floats | None
    ) -> None: ...
    def layer_norm(
        self, x: _Floats, w: _Floats, b: _Floats | None, eps: float, out: _Floats
    ) -> None: ...
    def activate(
        self, x: _Floats, kind: str, alpha_p: float, alpha_n: float, beta: float, eps: float
    ) -> None: ...
    def sparse_gate(self, x: _Floats, deviations: float) -> None: ...
    def mix_streams(
        self, streams: Sequence[_Floats], weights: _Floats, outs: Sequence[_Floats]
    ) -> None: ...
    def rope(
        self,
        x: _Floats,
        cos: _Floats,
        sin: _Floats,
        head_dim: int,
        interleaved: bool,
        offset: int,
    ) -> None: ...
    def write_kv(
        self, store: KVStore, layer: int, k: _Floats, v: _Floats | None, slots: _Ints
    ) -> None: ...
    def attention(
        self,
        q: _Floats,
        store: KVStore,
        layer: int,
        out: _Floats,
        query_start: _Ints,
        seq_lens: _Ints,
        block_tables: _Ints,
        num_heads: int,
        value_dim: int,
        scale: float,
        window: int,
        chunk: int,
        softcap: float,
        sinks: _Floats | None,
        selected: npt.NDArray[np.uint64] | None,
    ) -> None: ...
    def top_keys(
        self,
        q: _Floats,
        weights: _Floats,
        store: KVStore,
        layer: int,
        bits: npt.NDArray[np.uint64],
        query_start: _Ints,
        seq_lens: _Ints,
        block_tables: _Ints,
        count: int,
    ) -> None: ...
    def read_gbps(self, bytes: int) -> float: ...
    def int8_gops(self, seconds: float) -> float: ...
