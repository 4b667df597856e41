# SPDX-License-Identifier: Apache-2.0
"""`SharedAsker`: one loaded model for the tasks of several threads, whose requests share steps.

So the engine has another block's conversations while the last ones of a block are answered. Knows
how threads take turns; how a model is asked is `llm_asker.py`'s.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from freehold._llm_label_rule import EXACT, Precision
from freehold._llm_request import EventStream
from freehold.documents.asking import LabelScores, Reply
from freehold.documents.llm_asker import LLMAsker
from freehold.documents.prompts import Messages
from freehold.errors import JobError
from freehold.types import Completion, Constraint, SamplingParams


class Turns:
    """A lock that is handed over in the order of asking: who steps the engine again and again does
    not keep out who has something new for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # until it is handed over

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class SharedAsker(LLMAsker):
    """An `LLMAsker` that any number of threads may ask. Nobody else may use its model meanwhile."""

    def __init__(self, asker: LLMAsker) -> None:
        """Asks the same model under the same adapter as `asker`."""
        super().__init__(asker.llm, asker.adapter)
        self._turn = Turns()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Whoever waits for an answer, or asks from now on, gets a JobError instead."""
        self._stopped.set()

    def count(self, messages: Messages) -> int:
        """Tokens of a rendered conversation, the opening of its answer included."""
        with self._turn:
            return super().count(messages)

    def count_text(self, text: str) -> int:
        """Tokens of a text by itself."""
        with self._turn:
            return super().count_text(text)

    def search(
        self, conversations: Sequence[Messages], *, max_tokens: int,
        constraint: Sequence[Constraint], width: int,
    ) -> list[Reply]:  # fmt: skip
        """The likeliest answer of a form to each; one block at a time."""
        with self._turn:
            self._check()
            return super().search(
                conversations, max_tokens=max_tokens, constraint=constraint, width=width
            )

    def label_logprobs(
        self, conversations: Sequence[Messages], labels: Sequence[str],
        precision: Precision = EXACT,
    ) -> list[LabelScores]:  # fmt: skip
        """How likely each is answered with each of the labels; nothing is decoded, so nothing is
        waited for and one block at a time does as well as several."""
        with self._turn:
            self._check()
            return super().label_logprobs(conversations, labels, precision)

    def _complete(
        self, conversations: Sequence[Messages], params: list[SamplingParams],
        forms: list[Constraint | None],
    ) -> list[Completion]:  # fmt: skip
        """Answers of the model, which share steps with those that other threads ask for."""
        streams: list[EventStream] = []
        try:
            with self._turn:
                for messages, each, form in zip(conversations, params, forms, strict=True):
                    stream = self.llm.chat(
                        messages, each, constraint=form, adapter=self.adapter, stream=True
                    )
                    streams.append(stream)
            return [self._completion(stream) for stream in streams]
        except BaseException:
            with self._turn:
                for stream in streams:
                    stream.close()
            raise

    def _completion(self, stream: EventStream) -> Completion:
        while True:
            with self._turn:
                self._check()
                event = next(stream)
            if event.completion is not None:
                return event.completion

    def _check(self) -> None:
        if self._stopped.is_set():
            raise JobError("the job was stopped")
