# SPDX-License-Identifier: Apache-2.0
"""The op set: all that a model may ask of a device.

Models are written against the `Ops` protocol and hold opaque handles (`Weight`, `KVCache`)
that the backend made for them. `backends/reference.py` defines what each op means; every other
backend is judged against it within the budgets of ``tests/budgets.py``.

Activations are float32 arrays, row-major, one row per token. A row may be strided (a slice of
a wider array); its elements are contiguous. Ops never change their inputs unless they say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from freehold.batch import ForwardBatch
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:  # importing NumPy takes as long as a command that only looks something up
    import numpy as np
    import numpy.typing as npt

# NumPy on the CPU backends, a torch tensor on later ones. Models use only .shape, slicing of
# rows and columns, and .reshape, which both share.
Array: TypeAlias = Any
FloatArray: TypeAlias = "npt.NDArray[np.float32]"

# "swiglu_oai" is no function of the gate alone; see `Ops.gate_up`.
Activation = Literal["silu", "gelu_tanh", "gelu", "swiglu_oai"]
KVDtype = Literal["f32", "f16", "bf16", "q8_0"]
Scoring = Literal["softmax", "sigmoid", "sqrt_softplus"]


class RawTensor(Protocol):
    """A stored tensor, as `formats.checkpoint.TensorView` gives it."""

    name: str
    shape: tuple[int, ...]  # outermost first: [out_features, in_features]
    qtype: str  # name of a module-level type in `quants`, upper case: "Q4_K"

    @property
    def nbytes(self) -> int: ...

    def bytes(self) -> npt.NDArray[np.uint8]:
        """The stored bytes, little-endian, one dimension; usually a view of the mapped file."""

    def to_f32(self) -> FloatArray:
        """Decoded copy with `shape`."""

    def file_span(self) -> tuple[str, int] | None:
        """Path and offset where exactly `bytes` lie, or None when they must be asked for."""


class Weight(Protocol):
    """A matrix in the form a backend likes, still in the file's own quantisation."""

    @property
    def out_features(self) -> int: ...

    @property
    def in_features(self) -> int: ...

    @property
    def qtype(self) -> str: ...

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class KVLayerSpec:
    """Shape of one layer's cache. A model may have fewer of them than layers: one that shares
    another's keys names the other's.

    ``window`` above 0 promises that a query at p looks at nothing before p - window + 1, so that
    older keys and values need not be kept.
    ``value_dim`` 0 stores keys alone: for a latent cache, whose values are the first dimensions
    of the keys, and for the keys that `Ops.top_keys` searches.

    Compressed attention (DeepSeek V4) has ``rows``: layers that `Ops.compress` and
    `Ops.attention_with_entries` read. One with a ``stride`` above 1 has a slot for every so many
    positions, for an entry made of them all: entry e belongs to the block of position
    (e + 1) · stride - 1, the last it is made of."""

    num_kv_heads: int
    key_dim: int
    value_dim: int
    window: int = 0
    rows: bool = False
    stride: int = 1

    def block_slots(self, block_size: int) -> int:
        """Slots in a block that covers so many positions."""
        return -(-block_size // self.stride)


def kv_groups(layers: Sequence[KVLayerSpec]) -> tuple[int, ...]:
    """The group of each layer: layers of equal window share one pool of blocks.

    Groups are numbered in the order in which their windows first occur: group 0 is that of the
    first layer.
    """
    order = list(dict.fromkeys(spec.window for spec in layers))
    return tuple(order.index(spec.window) for spec in layers)


def blocks_per_group(
    layers: Sequence[KVLayerSpec], num_blocks: int | Sequence[int]
) -> tuple[int, ...]:
    """One number per group out of what `Ops.alloc_kv` takes. Raises InvalidParameterError when
    there are too many or too few, or one is below 1."""
    groups = len(set(kv_groups(layers)))
    counts = (num_blocks,) * groups if isinstance(num_blocks, int) else tuple(num_blocks)
    if len(counts) != groups:
        raise InvalidParameterError(
            f"these layers form {groups} groups, but {len(counts)} numbers of blocks are given"
        )
    if any(count < 1 for count in counts):
        raise InvalidParameterError(f"a cache needs at least one block, not {min(counts)}")
    return counts


class KVCache(Protocol):
    """Paged keys and values of all layers; contents are the backend's business."""

    num_blocks: tuple[int, ...]  # of each group
    block_size: int
    dtype: KVDtype
    nbytes: int


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of the first ``2 * len(inv_freq)`` dimensions of each head.

    ``interleaved`` pairs dimensions (2i, 2i+1), as GGUF files of the Llama family store them;
    otherwise (i, i + rotary_dim/2). ``magnitude`` multiplies cosine and sine (yarn).
    """

    inv_freq: npt.NDArray[np.float64]  # [rotary_dim / 2]
    interleaved: bool
    magnitude: float = 1.0


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What one attention layer does besides the plain causal softmax(q·k·scale)·v.

    Over a cache that stores keys alone, the first ``value_dim`` dimensions of a key are its value
    (multi-head latent attention in its absorbed form, arXiv:2405.04434 §2.1)."""

    num_heads: int
    num_kv_heads: int
    head_dim: int  # of queries and keys
    value_dim: int
    scale: float
    window: int = 0  # 0 = all; else a query at p sees keys at p - window + 1 .. p
    softcap: float = 0.0  # 0 = none; else c * tanh(score / c)
    chunk: int = 0  # 0 = all; else a query at p sees keys from p // chunk * chunk on

    @property
    def reach(self) -> int:
        """A query at p sees nothing before p - reach + 1; 0 = it may see all."""
        return min((limit for limit in (self.window, self.chunk) if limit), default=0)


@dataclass(frozen=True, slots=True)
class RoutingSpec:
    """How a token's router logits become experts and weights.

    Every expert has a score; the ``top_k`` with the largest score + bias are chosen (the bias, an
    argument of `Ops.route`, counts for nothing else). With groups of experts, only those of the
    ``top_groups`` best groups can be chosen; a group is as good as its best expert ("max",
    arXiv:2405.04434 §2.2) or its best two together ("sum2", arXiv:2412.19437 §2.1.2). A softmax
    over the chosen alone is the softmax over all, normalised."""

    top_k: int
    normalise: bool  # divide the chosen weights by their sum
    scale: float = 1.0  # then multiply by this
    scoring: Scoring = "softmax"  # the weights are the scores of the chosen
    num_groups: int = 1  # of equal size, expert after expert
    top_groups: int = 1
    group_score: Literal["max", "sum2"] = "max"


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert's matrices and perhaps biases; it computes down(gate_up(x))."""

    gate: Weight  # [F, K]
    up: Weight  # [F, K]
    down: Weight  # [K, F]
    gate_bias: Array | None = None  # [F]
    up_bias: Array | None = None  # [F]
    down_bias: Array | None = None  # [K]


@dataclass(frozen=True, slots=True)
class LowRank:
    """scale · up · down, a change of a matrix [N, K] (LoRA, arXiv:2106.09685)."""

    down: Weight  # [rank, K]
    up: Weight  # [N, rank]
    scale: float


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """What some rows of a call are multiplied by beside its matrices. No row is in two updates of
    one call."""

    rows: npt.NDArray[np.int32] | None  # an array of the host, each once; None = all rows
    changes: tuple[LowRank | None, ...]  # one for each matrix of the call


@dataclass(frozen=True, slots=True)
class Xielu:
    """xIELU (arXiv 2411.13010): alpha_p·x² + beta·x above 0, and below
    (expm1(min(x, eps)) - x)·alpha_n + beta·x."""

    alpha_p: float
    alpha_n: float
    beta: float
    eps: float


# Activations of a feed-forward without a gate, all but "swiglu_oai"; "relu2" is max(x, 0)².
PlainActivation: TypeAlias = Activation | Literal["relu2"] | Xielu


class Ops(Protocol):
    """One device. Shapes: T tokens, R rows, N out_features, K in_features."""

    name: str

    # -- loading ---------------------------------------------------------------------------
    def load_weight(self, tensor: RawTensor) -> Weight:
        """Take a 2-D tensor [N, K] of any known type; keeps no reference to the file."""

    def load_vector(self, values: FloatArray) -> Array:
        """Take a float32 vector (norm weight, bias)."""

    def alloc_kv(
        self,
        layers: Sequence[KVLayerSpec],
        num_blocks: int | Sequence[int],
        block_size: int,
        dtype: KVDtype,
    ) -> KVCache:
        """Zeroed cache with `num_blocks` blocks for every group, or one number per group (see
        `kv_groups`). Raises CapacityError when the memory is not there."""

    # -- per token -------------------------------------------------------------------------
    def embed(self, table: Weight, ids: npt.NDArray[np.int32]) -> Array:
        """Rows of the table, decoded: [T, K]."""

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """x / sqrt(mean(x²) + eps) · weight over the last len(weight) elements.

        When a row is a multiple of len(weight) wide, each stretch (head) is normed alone."""

    def add_rms_norm(
        self, residual: Array, delta: Array, weight: Array, eps: float
    ) -> tuple[Array, Array]:
        """(residual + delta, its rms_norm). The memory of `residual` may be reused."""

    def add(self, residual: Array, delta: Array) -> Array:
        """residual + delta. The memory of `residual` may be reused."""

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        """(x - mean(x)) / sqrt(mean((x - mean(x))²) + eps) · weight + bias over each row."""

    def scale(self, x: Array, factor: float) -> Array:
        """x · factor. The memory of `x` may be reused."""

    def scale_rows(self, x: Array, factors: FloatArray) -> Array:
        """Row t times factors[t], an array of the host: [T, K]. The memory of `x` may be
        reused."""

    def softcap(self, x: Array, cap: float) -> Array:
        """cap · tanh(x / cap), cap above 0. The memory of `x` may be reused."""

    def multiply(self, x: Array, factor: Array) -> Array:
        """x · factor, elementwise; factor is [T, N] like x, [T, 1] or [N]. Both stay as they
        are."""

    def sparse_gate(self, x: Array, deviations: float) -> Array:
        """max(0, x - mean(x) - deviations · √mean((x - mean(x))²)) over each row: all but the
        values that stand out become zero. The memory of `x` may be reused."""

    def mix_streams(self, streams: Sequence[Array], weights: Array) -> tuple[Array, ...]:
        """Stream r of the result is Σ_s weights[t, r·S + s] · streams[s][t], added in order; each
        is [T, K], weights are [T, R · S]."""

    def stream_weights(
        self, x: Array, base: Array, scale: Array, streams: int, rounds: int, eps: float
    ) -> tuple[Array, Array | None]:
        """What `mix_streams` takes to gather S streams into one, [T, S], and to make S of those
        and of what was computed from that one, [T, S · (S + 1)] (hyper-connections with a
        doubly stochastic mix, arXiv:2512.24880).

        x is [T, (2 + S) · S], base as wide. After x · scale + base, with scale [3] for its three
        parts, the first S columns become sigmoid + eps, the shares of the gathered; the next S
        2 · sigmoid, the shares of the result in each stream; the others, from stream (row) to
        stream (column), a softmax over each row, plus eps, whose columns and then, `rounds` - 1
        times, rows and columns are divided by their sum plus eps. An x of S columns and a scale
        [1] have the first part only; None then stands for the second result."""

    def match_magnitude(self, x: Array, like: Array, floor: float) -> Array:
        """x · √(mean(like²) / max(mean(x²), floor)) over each row: [T, K]. The memory of `x` may
        be reused."""

    def linear(self, x: Array, weight: Weight, bias: Array | None = None) -> Array:
        """x · weightᵀ + bias: [R, N]."""

    def linear_many(
        self, x: Array, weights: Sequence[Weight], biases: Sequence[Array | None]
    ) -> tuple[Array, ...]:
        """Several `linear` over the same input (q, k and v); same numbers as one by one."""

    def add_low_rank(self, x: Array, outs: Sequence[Array], updates: Sequence[RowUpdate]) -> None:
        """Add scale · (x · downᵀ) · upᵀ to each of `outs`, which come from as many matrices and the
        input `x`, in the rows of each update; other rows keep their bits. The one op that writes
        into arrays it is given: `outs` are the fresh results of `linear` or `linear_many`."""

    def linear_heads(self, x: Array, weights: Sequence[Weight]) -> Array:
        """Each head's first K values times a matrix [N, K] of its own; what a head has beyond
        K stays behind its result: [T, H · S] to [T, H · (N + S - K)], H matrices of one shape."""

    def join(self, parts: Sequence[Array]) -> Array:
        """Rows side by side: [T, N₁], [T, N₂] … to [T, N₁ + N₂ + …]."""

    def gate_up(
        self,
        x: Array,
        gate: Weight,
        up: Weight,
        activation: Activation,
        *,
        limit: float = 0.0,
        gate_bias: Array | None = None,
        up_bias: Array | None = None,
        updates: Sequence[RowUpdate] = (),
    ) -> Array:
        """activation(g) · u, elementwise, of g = x · gateᵀ + bias and u = x · upᵀ + bias: [R, N].

        With a `limit` above 0, g is first cut to at most that, u to ± that (DeepSeek V4).
        "swiglu_oai" (gpt-oss) is g · sigmoid(1.702 g) · (u + 1), with a limit of 7 where none is
        given. ``updates`` change g and u before anything else, as in `add_low_rank`; a row in none
        of them has the same bits as without any."""

    def activate(self, x: Array, activation: PlainActivation) -> Array:
        """activation(x), elementwise. The memory of `x` may be reused."""

    def sigmoid_gate(self, x: Array, gate: Array) -> Array:
        """x · sigmoid(gate), elementwise; gate is [T, N] like x, or [T, 1]. The memory of `x`
        may be reused."""

    def route(
        self,
        logits: Array,
        spec: RoutingSpec,
        bias: Array | None = None,
        fixed: npt.NDArray[np.int32] | None = None,
    ) -> tuple[Array, Array]:
        """Experts of each token, the best first, and their weights: int32 and float32
        [T, top_k], out of logits [T, E] and a bias [E] of the choice. Of equal ones the lower
        expert, or group, comes first. ``fixed`` [T, top_k], an array of the host, is a choice
        already made; only its weights are then computed."""

    def moe(
        self,
        x: Array,
        experts: Sequence[Expert],
        chosen: Array,
        weights: Array,
        activation: Activation,
        *,
        limit: float = 0.0,
        weigh_input: bool = False,
    ) -> Array:
        """Sum over slots s of weights[t, s] · experts[chosen[t, s]](x[t]): [T, K].

        `chosen` (int32) and `weights` are [T, S], S at least 1; `activation` and `limit` as in
        `gate_up`. With `weigh_input` (Llama 4) it is the input that is multiplied: the sum of
        experts[chosen[t, s]](weights[t, s] · x[t]). A token's slots are added in their order, so
        its result is the same in any company; an expert nobody chose is not read."""

    def rope_tables(self, spec: RopeSpec, positions: npt.NDArray[np.int32]) -> tuple[Array, Array]:
        """cos and sin, each [T, rotary_dim / 2], angles computed in float64. Once a step."""

    def rope(
        self,
        x: Array,
        cos: Array,
        sin: Array,
        head_dim: int,
        interleaved: bool,
        offset: int = 0,
    ) -> Array:
        """Rotate every head of x [T, heads · head_dim], in the dimensions from `offset` on.
        The memory of `x` may be reused."""

    def write_kv(
        self, cache: KVCache, layer: int, k: Array, v: Array | None, batch: ForwardBatch
    ) -> None:
        """Store the batch's keys and values at the ``slot_mapping`` of the layer's group.

        `v` is None exactly where the layer stores no values. A layer with a stride takes one row
        for each position of the batch that ends an entry, in the order of the batch."""

    def attention(
        self,
        q: Array,
        cache: KVCache,
        layer: int,
        batch: ForwardBatch,
        spec: AttentionSpec,
        sinks: Array | None = None,
        selected: Array | None = None,
    ) -> Array:
        """Causal attention over the paged cache (write_kv comes first): [T, heads · value_dim].

        Query head h reads key head ``h // (num_heads // num_kv_heads)``. ``sinks`` [num_heads]
        adds exp(sink) to the head's softmax denominator, as a key without a value would; it is
        neither scaled nor capped. ``selected`` is what `top_keys` gave for this batch: of what
        the spec lets a query see, only these positions count. Blocks that no query of the batch
        sees are not read, whatever their table entries say."""

    def top_keys(
        self, q: Array, weights: Array, cache: KVCache, layer: int, batch: ForwardBatch, count: int
    ) -> Array | None:
        """The `count` positions each query finds most relevant, itself and earlier ones only.

        Position t scores Σ_h weights[·, h] · max(0, q_h · k_t) with q [T, heads · key_dim],
        weights [T, heads] and the one key head of a layer without values (the indexer of
        DeepSeek V3.2's sparse attention). Of equal scores the lower position comes first; one that
        is not a number comes last. Returns bits, uint64 [T, ceil(longest sequence / 64)]:
        position p is bit ``p % 64`` of word ``p // 64``. None when no sequence is longer than
        `count`: every query then keeps all it sees. Of a layer with a stride it is entries that
        are found and counted, of those that end at the query's position or before."""

    def compress(
        self, cache: KVCache, layer: int, batch: ForwardBatch, bias: Array, overlap: bool
    ) -> Array:
        """The entry that each position p of the batch ends, i.e. where p + 1 is a multiple of
        len(bias): Σ_i softmax_i(gate_i + bias_i) · key_i, dimension by dimension, over as many
        positions up to p: [C, key_dim], in the order of the batch.

        `layer` has rows, one head, and gates for values; bias is [ratio, key_dim]. With `overlap`
        there are key_dim / 2 dimensions and 2 · ratio positions, if there are so many: the latter
        half with the last dimensions of key, gate and bias, the former with the first ones."""

    def attention_with_entries(
        self,
        q: Array,
        cache: KVCache,
        layer: int,
        entries: int,
        batch: ForwardBatch,
        spec: AttentionSpec,
        sinks: Array,
        selected: Array | None = None,
    ) -> Array:
        """`attention` in which the keys that `spec` shows and the entries in layer `entries`
        (see `KVLayerSpec`) share one softmax. A query at p sees entries that end at p or before,
        and of those with ``selected`` (of `top_keys` in such a layer) only the selected. Both
        layers have rows and one head without values; `spec` has no cap."""

    def take_rows(self, x: Array, rows: npt.NDArray[np.int32]) -> Array:
        """x[rows]."""

    # -- between steps -----------------------------------------------------------------------
    def copy_blocks(
        self, cache: KVCache, group: int, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32]
    ) -> None:
        """Copy whole blocks of every layer of one group."""

    def read_blocks(
        self, cache: KVCache, group: int, blocks: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.uint8]:
        """All that some blocks of a group hold, as the backend keeps it: [blocks, bytes]."""

    def write_blocks(
        self,
        cache: KVCache,
        group: int,
        blocks: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
    ) -> None:
        """Put back what `read_blocks` of a cache of the same shape gave. Raises
        InvalidParameterError where it does not fit."""

    def to_numpy(self, x: Array) -> FloatArray:
        """Bring an activation to the host as float32."""
