# SPDX-License-Identifier: Apache-2.0
"""One request as its caller sees it: token ids from the engine become text and a `Completion`.

Knows stop strings and what belongs to the visible answer. Knows neither engine nor model: `LLM`
feeds it the outputs of its request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freehold.chat.detokenizer import TextStream
from freehold.chat.output_parser import OutputParser
from freehold.chat.parse_events import ReasoningDelta, TextDelta
from freehold.chat.tokenizer import Tokenizer
from freehold.errors import FreeholdError
from freehold.types import (
    Completion,
    FinishReason,
    SamplingParams,
    StreamEvent,
    TokenLogprob,
    ToolCall,
)

if TYPE_CHECKING:
    from freehold.engine.sequence import StepOutput
    from freehold.engine.structured import Grammar


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request is about: a prompt, the form of its answer and what takes it apart."""

    ids: list[int]
    grammar: Grammar | None = None
    parser: OutputParser | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that are made together."""

    asked: list[Asked]
    single: bool  # the caller gave one, not a list of one
    continues: bool  # answers go on from their prompts' texts


class Request:
    """Collects the outputs of one request; `events` is what the caller has not taken yet."""

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        *,
        continues: bool,
        parser: OutputParser | None = None,
        visible: frozenset[int] = frozenset(),
    ) -> None:
        """`parser` takes the answer apart; `visible` are the control tokens it has to see."""
        self.request_id = ""  # given by the engine
        self.prompt = tuple(prompt)
        self.params = params
        self.events: deque[StreamEvent] = deque()
        self.error: FreeholdError | None = None
        self.done = False
        self.completion: Completion | None = None
        self.stopped_by_text = False  # the engine does not know yet that this one is over
        self._stream: TextStream | None = None
        self._vocab_size = 0
        if tokenizer is not None:
            self._vocab_size = tokenizer.vocab_size
            self._stream = TextStream(tokenizer, params.stop, visible=visible, continues=continues)
        self._parser = parser
        self._text: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
        self._cached_tokens = 0
        self._forced_tokens = 0

    def take(self, output: StepOutput) -> None:
        """Add what one step brought."""
        if self.done:
            return
        self._cached_tokens = max(self._cached_tokens, output.cached_tokens)
        self._forced_tokens += output.num_forced
        if output.prompt_logprobs is not None:
            self._prompt_logprobs = output.prompt_logprobs
        if output.error is not None:
            self.error, self.done = output.error, True
            return
        ended_by_token = output.finished == "stop" and output.stop_reason is not None
        text, used = self._push(output.new_token_ids, ended_by_token)
        ids = output.new_token_ids[:used]
        logprobs = None if output.logprobs is None else output.logprobs[:used]
        self._ids.extend(ids)
        self._logprobs.extend(logprobs or ())
        stop: str | int | None = None if self._stream is None else self._stream.stopped
        finished = output.finished
        if stop is not None:
            self.stopped_by_text = finished is None
            finished = "stop"
        elif finished is not None:
            stop = output.stop_reason
            text += "" if self._stream is None else self._stream.finish()
            # A stop string may be completed by what the stream still held.
            if self._stream is not None and self._stream.stopped is not None:
                stop, finished = self._stream.stopped, "stop"
        text, reasoning, calls = self._parse(text, finished is not None)
        self._text.append(text)
        completion = None
        if finished is not None:
            completion = self.completion = self._complete(finished, stop, output)
            self.done = True
        if text or ids or completion:
            prompt = output.prompt_logprobs
            self.events.append(
                StreamEvent(text, ids, logprobs, completion, reasoning, calls, prompt)
            )

    def result(self) -> Completion:
        """The whole answer of a request that is done; raises what made it fail."""
        if self.error is not None:
            raise self.error
        assert self.completion is not None
        return self.completion

    def _push(self, ids: Sequence[int], ended_by_token: bool) -> tuple[str, int]:
        """Text of the new ids, and how many of them count: those up to a stop string's end.

        A token that ended the answer is no part of its text, whatever it stands for.
        """
        if self._stream is None:
            return "", len(ids)
        text = ""
        visible = len(ids) - 1 if ended_by_token else len(ids)
        for position, token_id in enumerate(ids[:visible]):
            # Embedding tables are often longer than the vocabulary; such rows have no text.
            if token_id < self._vocab_size:
                text += self._stream.push((token_id,))
            if self._stream.stopped is not None:
                return text, position + 1
        return text, len(ids)

    def _parse(self, text: str, finished: bool) -> tuple[str, str, tuple[ToolCall, ...]]:
        """(visible text, reasoning, whole calls) that are certain after this piece."""
        if self._parser is None:
            return text, "", ()
        events = self._parser.feed(text) + (self._parser.finish() if finished else [])
        return (
            "".join(e.text for e in events if isinstance(e, TextDelta)),
            "".join(e.text for e in events if isinstance(e, ReasoningDelta)),
            tuple(e for e in events if isinstance(e, ToolCall)),
        )

    def _complete(
        self, finished: FinishReason, stop: str | int | None, output: StepOutput
    ) -> Completion:
        parsed = None if self._parser is None else self._parser.result()
        return Completion(
            text="".join(self._text),
            token_ids=tuple(self._ids),
            finish_reason=finished,
            prompt_token_ids=self.prompt,
            cached_tokens=self._cached_tokens,
            forced_tokens=self._forced_tokens,
            stop_reason=stop,
            logprobs=tuple(self._logprobs) if self.params.logprobs is not None else None,
            prompt_logprobs=self._prompt_logprobs,
            prefill_seconds=output.prefill_seconds,
            decode_seconds=output.decode_seconds,
            reasoning="" if parsed is None else parsed.reasoning,
            tool_calls=() if parsed is None else parsed.tool_calls,
            notes=() if parsed is None else parsed.notes,
        )


class EventStream(Iterator[StreamEvent]):
    """The events of one request as they come; closing it, or letting it go, aborts the request.

    Not a generator: the engine must hear of a stream that is dropped before its first event too.
    """

    def __init__(
        self, request: Request, step: Callable[[], None], drop: Callable[[str], None]
    ) -> None:
        self._request = request
        self._step = step
        self._drop = drop

    def __next__(self) -> StreamEvent:
        request = self._request
        while not request.events:
            if request.done:
                if request.error is not None:
                    raise request.error
                raise StopIteration
            try:
                self._step()
            except BaseException:
                self.close()
                raise
        return request.events.popleft()

    def close(self) -> None:
        """Abort the request if it still runs. May be called twice."""
        self._request.done = True
        self._request.events.clear()
        self._drop(self._request.request_id)

    def __del__(self) -> None:
        self.close()
