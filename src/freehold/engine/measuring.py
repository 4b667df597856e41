# SPDX-License-Identifier: Apache-2.0
"""Numbers wanted of given tokens, instead of tokens: scores, logits, embeddings.

Says what can be asked and turns what a sequence has gathered (`results.py`) into the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from freehold.batch import IntArray
from freehold.engine.inputs import checked_ids, token_array
from freehold.engine.logprobs import any_logprob, log_chances
from freehold.engine.sequence import SequenceState, StepOutput
from freehold.errors import EngineError, FreeholdError, InvalidParameterError
from freehold.ops import FloatArray
from freehold.types import SamplingParams

if TYPE_CHECKING:
    from freehold.engine.engine import Engine
    from freehold.models.adapters import Adapter

Pooling = Literal["mean", "last"]
Measure = Literal["scores", "next", "logits", "mean", "last"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is wanted of `ids`.

    * ``scores``: the log-probability of each token from position `first` on, given those before
      it, and then of any of `endings` coming next, where there are some:
      float32 [len(ids) - first (+ 1)].
    * ``next``: the same scores (none where `first` is len(ids)), then the log-probability of each
      of `targets` coming after the last token, then of any of `endings`, where there are some:
      float32 [len(ids) - first + len(targets) (+ 1)].
    * ``logits``: after every token: float32 [len(ids), vocab_size].
    * ``mean``, ``last``: final-normed hidden states, averaged over the tokens or the last one's:
      float32 [hidden_size], not scaled to unit length.
    """

    ids: Sequence[int]
    want: Measure
    first: int = 1
    endings: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    keeps_blocks: bool = False  # of ``next``: whoever asks takes them over (`branches.py`)


_NO_SAMPLING = (
    SamplingParams()
)  # made once: checking its fields costs more than a measurement's rest


def sequence_fields(wanted: Measurement, max_length: int, vocab_size: int) -> dict[str, Any]:
    """Fields of the `SequenceState` that gathers it. Raises what `checked_ids` raises."""
    if wanted.want == "scores":
        # The last token is a target only: it is never computed, but it stays in the buffer.
        spare = 0 if wanted.endings else 1
        tokens = checked_ids(wanted.ids, max_length + spare, max_length, vocab_size)
        endings = None
        if wanted.endings:
            endings = token_array(wanted.endings, vocab_size, "endings")
            tokens = np.append(tokens, endings[:1])
        if not 1 <= wanted.first < len(tokens):
            raise InvalidParameterError("there is no token to score after the first")
        results = np.empty(len(tokens) - wanted.first, np.float32)
        return _fields(
            tokens, len(tokens) - 1, wanted.first - 1, want="scores", results=results,
            endings=endings,
        )  # fmt: skip
    if wanted.want == "next":
        return _next_fields(wanted, max_length, vocab_size)
    if wanted.want not in ("logits", "mean", "last"):
        raise InvalidParameterError(f"pooling must be mean or last, not {wanted.want!r}")
    tokens = checked_ids(wanted.ids, max_length, max_length, vocab_size)
    if wanted.want == "logits":
        table = np.empty((len(tokens), vocab_size), np.float32)
        return _fields(tokens, len(tokens), 0, want="logits", results=table)
    first = len(tokens) - 1 if wanted.want == "last" else 0
    return _fields(tokens, len(tokens), first, want="hidden")


def _next_fields(wanted: Measurement, max_length: int, vocab_size: int) -> dict[str, Any]:
    tokens = checked_ids(wanted.ids, max_length, max_length, vocab_size)
    if not 1 <= wanted.first <= len(tokens):
        raise InvalidParameterError("there is no token to score after the first")
    if not wanted.targets and not wanted.endings:
        raise InvalidParameterError("there is no token whose chance is wanted")
    targets = token_array(wanted.targets, vocab_size, "targets")
    endings = token_array(wanted.endings, vocab_size, "endings") if wanted.endings else None
    size = len(tokens) - wanted.first + len(targets) + (endings is not None)
    return _fields(
        tokens, len(tokens), wanted.first - 1, want="next", targets=targets, endings=endings,
        results=np.empty(size, np.float32), keeps_blocks=wanted.keeps_blocks,
    )  # fmt: skip


def take_rows(seq: SequenceState, rows: Sequence[FloatArray], position: int) -> None:
    """Keep what a ``next`` measurement wants of logits [vocab], the first at `position`."""
    assert seq.targets is not None
    assert seq.results is not None
    ends = seq.endings is not None
    base = len(seq.results) - len(seq.targets) - ends - (seq.num_tokens - 1)
    for at, logits in enumerate(rows, position):
        last = at == seq.num_tokens - 1
        targets = seq.targets if last else seq.tokens[at + 1 : at + 2]
        found = log_chances(logits, targets)
        seq.results[base + at : base + at + len(found)] = found
        if last and seq.endings is not None:
            seq.results[-1] = any_logprob(logits, seq.endings)
        seq.next_wanted_row = at + 1


def _fields(tokens: IntArray, count: int, first_row: int, **more: Any) -> dict[str, Any]:
    return {
        "params": _NO_SAMPLING,
        "tokens": tokens,
        "num_tokens": count,
        "prompt_len": count,
        "max_len": count,
        "next_wanted_row": first_row,
        **more,
    }


def measured(seq: SequenceState) -> StepOutput:
    """The output of a sequence that has computed all of its rows."""
    numbers: FloatArray | None = seq.results
    error: FreeholdError | None = None
    if seq.want == "hidden":
        assert seq.pooled is not None
        numbers = (seq.pooled / seq.num_pooled).astype(np.float32)
        if not np.isfinite(seq.pooled).all():
            error = EngineError("an embedding is not a number: the model's weights are broken")
    elif seq.want in ("scores", "next") and numbers is not None and np.isnan(numbers).any():
        error = EngineError("a score is not a number: the model's weights are broken")
    return StepOutput(
        seq.request_id,
        finished="stop" if error is None else "abort",
        cached_tokens=max(0, seq.cached_tokens),
        error=error,
        numbers=numbers if error is None else None,
        blocks=tuple(seq.blocks) if seq.keeps_blocks else (),
    )


def numbers_of(output: StepOutput) -> FloatArray:
    """What a measurement that did not fail has found."""
    assert output.numbers is not None
    return output.numbers


def run_to_end(
    engine: Engine, wanted: Sequence[Measurement], adapter: Adapter | None
) -> list[StepOutput]:
    """Step an engine until several measurements are there; see `Engine.measure_outputs`."""
    ids: list[str] = []
    done: dict[str, StepOutput] = {}
    held: list[StepOutput] = []
    try:
        for each in wanted:
            ids.append(engine.add_measurement(each, adapter=adapter))
        mine = set(ids)
        while len(done) < len(ids):
            for output in engine.step():
                if output.request_id not in mine:
                    held.append(output)
                elif output.error is not None:
                    raise output.error
                else:
                    done[output.request_id] = output
    finally:
        engine.reclaim(ids, held)
    return [done[request_id] for request_id in ids]
