# SPDX-License-Identifier: Apache-2.0
"""Writes into a request's record how its answers go, as they go.

Tokens count when they come, so that leaving early does not save a key from having used them.
"""

from __future__ import annotations

import time

from freehold.async_llm import Answer, AnswerWatch
from freehold.engine.sequence import StepOutput
from freehold.server.request_context import RequestRecord, current
from freehold.types import Completion

MAX_ANSWERS = 128  # texts of answers that a record keeps for the log


class RecordWatch:
    """Watches the answers of one model, and lets `also` watch them too."""

    def __init__(self, model: str, also: AnswerWatch | None) -> None:
        self._model, self._also = model, also

    def begin(self, prompt_tokens: int) -> RecordedAnswer:
        """An answer to a prompt of so many tokens is wanted."""
        record = current()
        record.model = self._model
        also = None if self._also is None else self._also.begin(prompt_tokens)
        return RecordedAnswer(record, prompt_tokens, also)


class RecordedAnswer:
    """One answer on its way."""

    __slots__ = ("_also", "_begun", "_first", "_prompt_tokens", "_record")

    def __init__(self, record: RequestRecord, prompt_tokens: int, also: Answer | None) -> None:
        self._record, self._prompt_tokens, self._also = record, prompt_tokens, also
        self._begun, self._first = time.monotonic(), True

    def take(self, output: StepOutput) -> None:
        """A step brought something."""
        count, record = len(output.new_token_ids), self._record
        if count and self._first:
            self._first = False
            now = time.monotonic()
            if record.first_token is None:
                record.first_token = now
                record.queued = max(0.0, now - self._begun - output.prefill_seconds)
            record.count(prompt=self._prompt_tokens, cached=output.cached_tokens, completion=count)
        elif count:
            record.count(completion=count)
        if self._also is not None:
            self._also.take(output)

    def end(self, completion: Completion | None, error: BaseException | None) -> None:
        """It is over: whole, or by an error, or because nobody wants it any more."""
        record = self._record
        if record.keep_texts and completion is not None and len(record.answers) < MAX_ANSWERS:
            record.answers.append(completion.text)
        if self._also is not None:
            self._also.end(completion, error)
