# SPDX-License-Identifier: Apache-2.0
"""The requests of one `LLM` that are under way: handed to its engine, stepped, ended.

Several batches and streams may be open at once and share every step, whoever asks for it. Knows
no prompt and no form of answers; one request's text is `_llm_request`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold._llm_adapters import AdapterNames
from freehold._llm_chat import Conversations
from freehold._llm_inputs import Params, per_prompt
from freehold._llm_parts import Parts
from freehold._llm_request import Batch, EventStream, Request
from freehold.chat.output_parser import OutputParser
from freehold.engine.structured import Grammar
from freehold.errors import InvalidParameterError, TokenizerError
from freehold.models.adapters import Adapter
from freehold.types import Completion, SamplingParams


class Running:
    """Requests by the engine's id for them."""

    def __init__(self, parts: Parts, conversations: Conversations) -> None:
        self._parts = parts
        self._conversations = conversations
        self.requests: dict[str, Request] = {}

    def answer(self, batch: Batch, params: Params, adapter: AdapterNames, *, stream: bool) -> Any:
        """A completion for each of the batch, or the only one's, or its events."""
        asked = batch.asked
        adapters = self._parts.adapters.per_prompt(adapter, len(asked))
        if stream and not batch.single:
            raise InvalidParameterError("only a single prompt can be streamed")
        requests = [
            self.make_request(
                each.ids, settings, batch.continues or each.grammar is not None, each.parser
            )
            for each, settings in zip(asked, per_prompt(params, len(asked)), strict=True)
        ]
        self._start(requests, [each.grammar for each in asked], adapters)
        if stream:
            return EventStream(requests[0], self.step, self.drop)
        completions = [self._wait(request, requests) for request in requests]
        return completions[0] if batch.single else completions

    def make_request(
        self, ids: Sequence[int], params: SamplingParams, continues: bool,
        parser: OutputParser | None,
    ) -> Request:  # fmt: skip
        """A request that is not queued; see `LLM.make_request`."""
        tokenizer = self._parts.tokens.known
        if params.stop and tokenizer is None:
            raise TokenizerError(
                "stop strings need a tokenizer, and the model has none", hint="use stop_token_ids"
            )
        visible = frozenset[int]()
        if parser is not None:
            visible = self._conversations.visible_ids
        return Request(ids, params, tokenizer, continues=continues, parser=parser, visible=visible)

    def _start(
        self,
        requests: list[Request],
        grammars: Sequence[Grammar | None],
        adapters: Sequence[Adapter | None],
    ) -> None:
        """Hand all requests to the engine, or none when one of them is refused."""
        started: list[str] = []
        try:
            for request, grammar, adapter in zip(requests, grammars, adapters, strict=True):
                constraint = None if grammar is None else grammar.start()
                request_id = self._parts.engine.add(
                    request.prompt, request.params, constraint=constraint, adapter=adapter
                )
                request.request_id = request_id
                self.requests[request_id] = request
                started.append(request_id)
        except BaseException:
            for request_id in started:
                self.drop(request_id)
            raise

    def step(self) -> None:
        """One engine step; its outputs go to the requests they belong to, whoever asked."""
        engine = self._parts.engine
        for output in engine.step():
            request = self.requests.get(output.request_id)
            if request is None:
                continue
            request.take(output)
            if request.done:
                del self.requests[output.request_id]
            if request.stopped_by_text:
                engine.finish(output.request_id)

    def _wait(self, request: Request, batch: list[Request]) -> Completion:
        """Step until the request is over; a failure takes the rest of its batch with it."""
        try:
            while not request.done:
                self.step()
            return request.result()
        except BaseException:
            for other in batch:
                self.drop(other.request_id)
            raise

    def drop(self, request_id: str) -> None:
        """Abort a request if it still runs."""
        if self.requests.pop(request_id, None) is not None:
            self._parts.engine.abort(request_id)

    def drop_all(self) -> None:
        """Abort whatever runs."""
        for request_id in list(self.requests):
            self.drop(request_id)
