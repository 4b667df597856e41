# SPDX-License-Identifier: Apache-2.0
"""What a sequence wants besides tokens: prompt log-probabilities, scores, logits, embeddings.

Takes the hidden rows of a step to where they are kept on the sequence. Output heads are run
over a few rows at a time, so that memory does not grow with prompt times vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from freehold.engine.logprobs import any_logprob, target_logprobs, token_logprob
from freehold.engine.model_runner import ModelRunner
from freehold.engine.sequence import SequenceState
from freehold.ops import Array

ROWS_PER_SLICE = 64  # 64 rows of a 128 k vocabulary: 32 MiB


def collect(
    seq: SequenceState, runner: ModelRunner, hidden: Array, start: int, count: int, position: int
) -> None:
    """Keep what `seq` wants of hidden rows ``start .. start+count``, first at `position`.

    Moves ``next_wanted_row`` along, so that nothing is kept twice should a later row fail.
    """
    if seq.want == "hidden":
        rows = runner.to_host(hidden[start : start + count]).astype(np.float64)
        _add_hidden(seq, rows)
        seq.next_wanted_row = position + count
        return
    for at in range(0, count, ROWS_PER_SLICE):
        rows_here = min(ROWS_PER_SLICE, count - at)
        logits = runner.logits(hidden[start + at : start + at + rows_here])
        first = position + at
        if seq.want == "logits":
            assert seq.results is not None
            seq.results[first : first + rows_here] = logits
        elif seq.want == "scores":
            assert seq.results is not None
            targets = seq.tokens[first + 1 : first + rows_here + 1]
            base = len(seq.results) - seq.num_tokens
            scores = target_logprobs(logits, targets)
            if seq.endings is not None and first + rows_here == seq.num_tokens:
                scores[-1] = any_logprob(logits[-1], seq.endings)
            seq.results[base + first : base + first + rows_here] = scores
        else:
            assert seq.prompt_logprobs is not None
            num_top = seq.params.prompt_logprobs or 0
            for i, row in enumerate(logits):
                token = int(seq.tokens[first + i + 1])
                seq.prompt_logprobs.append(token_logprob(row, token, num_top))
        seq.next_wanted_row = first + rows_here


def _add_hidden(seq: SequenceState, rows: npt.NDArray[np.float64]) -> None:
    if seq.pooled is None:
        seq.pooled = np.zeros(rows.shape[1], np.float64)
    # One row after the other: the sum is then the same however the prompt was cut.
    for row in rows:
        seq.pooled += row
    seq.num_pooled += len(rows)
