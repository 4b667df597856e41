# SPDX-License-Identifier: Apache-2.0
"""One request on its way through the engine: its tokens, its blocks, how far it has come.

Knows no model and no scheduling policy; the scheduler moves it, the engine feeds it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.errors import FreeholdError
from freehold.ops import FloatArray
from freehold.types import FinishReason, SamplingParams, TokenLogprob

if TYPE_CHECKING:
    from freehold.engine.sampler import SequenceSampler
    from freehold.engine.speculative import DraftControl
    from freehold.engine.structured import TokenConstraint
    from freehold.models.adapters import Adapter

# What a sequence asks of the rows it computes: tokens, or the numbers behind them.
Want: TypeAlias = Literal["tokens", "scores", "next", "logits", "hidden"]
# (ids generated so far, logits [vocab], writable) -> logits [vocab]
LogitsProcessor: TypeAlias = Callable[[Sequence[int], FloatArray], FloatArray]

ROOT_HASH = b""
_DIGEST_BYTES = 16


def hash_block(parent: bytes, token_bytes: bytes) -> bytes:
    """Name of a full block: its tokens and, through `parent`, all tokens before them.

    A 128-bit BLAKE2b digest, because a prompt must not be able to collide its way into the
    cached keys of another.
    """
    return hashlib.blake2b(parent + token_bytes, digest_size=_DIGEST_BYTES).digest()


class SequenceStatus(enum.Enum):
    """Where a sequence is. A preempted one is WAITING again."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step brought to one request. Nothing follows an output with `finished` set."""

    request_id: str
    new_token_ids: tuple[int, ...] = ()  # an end token that stopped the request is included
    logprobs: tuple[TokenLogprob, ...] | None = None  # one per new token, when asked for
    finished: FinishReason | None = None
    stop_reason: int | None = None  # the end token, when one stopped the request
    cached_tokens: int = 0  # prompt tokens found in the prefix cache at first admission
    num_forced: int = 0  # of the new tokens, those a form left no choice about
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None  # once, with the first token
    error: FreeholdError | None = None  # why `finished` is "abort", when the request failed
    numbers: FloatArray | None = None  # what a measurement has found, with its end
    blocks: tuple[HeldBlocks, ...] = ()  # that are now held by whoever asked to keep them
    prefill_seconds: float = 0.0  # from first scheduling to the first token
    decode_seconds: float = 0.0  # from the first token to this output


@dataclass(slots=True, eq=False)
class HeldBlocks:
    """A sequence's blocks in the pool of one group of layers."""

    block_ids: list[int] = field(default_factory=list)  # 0 where the block was given back
    num_dropped: int = 0  # leading blocks that lie before the window and are not held
    table_len: int = 0  # blocks already written to the runner's block table
    table_dropped: int = 0  # leading entries already cleared there

    @property
    def held(self) -> list[int]:
        """The blocks that are held."""
        return self.block_ids[self.num_dropped :]


@dataclass(slots=True, eq=False)
class SequenceState:
    """Mutable state of one request.

    ``next_wanted_row`` is the lowest position whose output is still needed: the step returns
    outputs for every computed position from there on. For generation it is the last token's;
    with prompt log-probabilities or scoring it starts at the first one that matters. A cached
    prefix may never reach beyond it, which makes every recomputation rule one comparison.
    """

    request_id: str
    arrival: int  # total order of requests
    params: SamplingParams
    tokens: npt.NDArray[np.int32]  # buffer; the first `num_tokens` are real
    num_tokens: int
    prompt_len: int
    max_len: int  # the request ends when it has this many tokens
    next_wanted_row: int
    want: Want = "tokens"
    adapter: Adapter | None = None
    salt: bytes = b""  # prefixes are shared among sequences with the same one
    keeps_blocks: bool = False  # once all is computed; whoever asked for it gives them back
    sampler: SequenceSampler | None = None
    draft_control: DraftControl | None = None
    end_token_ids: frozenset[int] = frozenset()
    constraint: TokenConstraint | None = None  # the form the answer must have
    forcing: bool = False  # tokens the constraint forces are taken without asking the model
    forced: list[int] = field(default_factory=list)  # those that are to come next

    status: SequenceStatus = SequenceStatus.WAITING
    num_computed: int = 0  # tokens whose keys and values are in the cache
    blocks: list[HeldBlocks] = field(default_factory=list)  # one per group of layers
    block_hashes: list[bytes] = field(default_factory=list)  # of full blocks, as far as computed
    num_registered: int = 0  # leading blocks known to the prefix cache
    num_pending: int = 0  # leading blocks announced to sequences that could share them
    num_ahead: int = 0  # forced tokens behind the last one that was chosen, not yet computed
    table_row: int = -1  # row of the runner's block tables
    waits_for: bytes | None = None  # hash of a block that another sequence is computing

    output_ids: list[int] = field(default_factory=list)
    cached_tokens: int = -1  # -1 = not admitted yet
    prompt_logprobs: list[TokenLogprob | None] | None = None
    results: FloatArray | None = None  # scores or logits of the rows asked for
    endings: npt.NDArray[np.int32] | None = None  # the last score is that of any of these
    targets: npt.NDArray[np.int32] | None = None  # whose chance after the last token is wanted
    pooled: npt.NDArray[np.float64] | None = None  # [hidden] sum of hidden states
    num_pooled: int = 0
    first_scheduled: float = -1.0
    first_token: float = -1.0

    @property
    def root_hash(self) -> bytes:
        """What the chain of hashes begins with: keys and values depend on the adapter too, and who
        may find them on the salt."""
        root = ROOT_HASH if self.adapter is None else self.adapter.identity
        if not self.salt:
            return root
        return hashlib.blake2b(root, key=self.salt[:64], digest_size=_DIGEST_BYTES).digest()

    @property
    def num_remaining(self) -> int:
        """Known tokens that are not in the cache yet."""
        return self.num_tokens - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """Whether a step computes only what the one before it brought."""
        return 1 <= self.num_remaining <= 1 + self.num_ahead

    def append(self, token: int) -> None:
        """Take a generated token."""
        if self.num_tokens == len(self.tokens):
            grown = np.empty(max(64, 2 * len(self.tokens)), np.int32)
            grown[: self.num_tokens] = self.tokens
            self.tokens = grown
        self.tokens[self.num_tokens] = token
        self.num_tokens += 1
        self.output_ids.append(token)

    def context(self) -> npt.NDArray[np.int32]:
        """All tokens, prompt first: a view, [num_tokens]."""
        return self.tokens[: self.num_tokens]

    def hash_blocks(self, block_size: int, upto: int) -> list[bytes]:
        """Hashes of the full blocks among the first `upto` tokens, computed once."""
        have = len(self.block_hashes)
        want = min(upto, self.num_tokens) // block_size
        if want > have:
            parent = self.block_hashes[-1] if have else self.root_hash
            raw = self.tokens[have * block_size : want * block_size].astype("<i4").tobytes()
            width = 4 * block_size
            for start in range(0, len(raw), width):
                parent = hash_block(parent, raw[start : start + width])
                self.block_hashes.append(parent)
        return self.block_hashes
