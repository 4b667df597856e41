# SPDX-License-Identifier: Apache-2.0
"""Ends a thought that has taken as many tokens as it may.

Works on tokens as they are chosen, since what a model thinks does not come back until it is over:
once the budget is spent, the only tokens left are those that write the end of the thought.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freehold.chat.answer_format import AnswerFormat
from freehold.chat.tokenizer import Tokenizer
from freehold.errors import InvalidParameterError
from freehold.ops import FloatArray


class ThoughtLimit:
    """A logits processor for one answer.

    Args:
        answers: how the model marks its thoughts.
        tokenizer: the model's.
        prompt: the end of the rendered prompt, which may have opened the thought.
        budget: tokens a thought may have, its end not counted.

    Raises InvalidParameterError for a model whose thoughts have no end that can be written.
    """

    def __init__(
        self, answers: AnswerFormat, tokenizer: Tokenizer, prompt: str, budget: int
    ) -> None:
        style = answers.reasoning
        frame = None if answers.tool_format is None else answers.tool_format.frame
        if frame is not None:
            start, end, opened, self._anywhere = *frame.thought, False, False
        elif style is not None:
            start, end, opened = style.start, style.end, style.opened_by(prompt)
            self._anywhere = style.anywhere
        else:
            raise InvalidParameterError("the model marks no thoughts, so they have no budget")
        self._start, self._end = start.encode(), end.encode()
        self._tokenizer, self._budget = tokenizer, budget
        self._closing = _tokens(tokenizer, end)
        pieces = [tokenizer.piece(token, skip_special=False) for token in self._closing]
        self._written = [b"".join(pieces[:n]) for n in range(len(pieces))]
        self._begin = "inside" if opened else "before"
        self._reset()

    def _reset(self) -> None:
        self._read = 0  # tokens of the answer looked at
        self._state = self._begin  # "before" a thought, "inside" one, "after" it
        self._text = b""  # what may still be part of a marker
        self._spent = 0

    def __call__(self, ids: Sequence[int], logits: FloatArray) -> FloatArray:
        """The logits after `ids`, all of the answer so far."""
        if len(ids) < self._read:  # guesses that were taken back
            self._reset()
        for token in ids[self._read :]:
            self._take(token)
        self._read = len(ids)
        if self._state != "inside" or self._spent < self._budget:
            return logits
        # The model may have begun to write the end by itself.
        done = max(n for n, text in enumerate(self._written) if self._text.endswith(text))
        forced = np.full_like(logits, -np.inf)
        forced[self._closing[done]] = 0.0
        return forced

    def _take(self, token: int) -> None:
        if token >= self._tokenizer.vocab_size or self._state == "after":
            return
        self._text += self._tokenizer.piece(token, skip_special=False)
        if self._state == "before":
            self._look_for_start()
            return
        self._spent += 1
        if self._end in self._text:
            self._state, self._text = ("before" if self._anywhere else "after"), b""
            self._spent = 0
        else:
            self._text = self._text[-len(self._end) :]

    def _look_for_start(self) -> None:
        if self._anywhere:
            if self._start in self._text:
                self._state, self._text = "inside", b""
            else:
                self._text = self._text[-len(self._start) :]
            return
        text = self._text = self._text.lstrip()
        if text.startswith(self._start):
            self._state, self._text = "inside", b""
        elif not self._start.startswith(text):
            self._state = "after"


def _tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens that write `text`, control tokens being read as such."""
    ids: list[int] = []
    at = 0
    for start, end, token in [*tokenizer.control_spans(text), (len(text), len(text), -1)]:
        if start > at:
            spelled = tokenizer.encode_exactly(text[at:start])
            if spelled is None:
                raise InvalidParameterError("the end of the model's thoughts cannot be written")
            ids += spelled
        if token >= 0:
            ids.append(token)
        at = end
    return ids
