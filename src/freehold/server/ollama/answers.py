# SPDX-License-Identifier: Apache-2.0
"""An answer as Ollama's lines: pieces, then one line with what it took. Whole, it is that line."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from freehold.llm import LLM
from freehold.server.generation import Generation
from freehold.server.ollama.format import ending, line, moment
from freehold.server.openai.format import logprob_content, new_id
from freehold.types import Completion, ToolCall

# (text, thought, calls) -> the fields of one line
Shape = Callable[[str, str, Sequence[ToolCall]], dict[str, Any]]


def generated(text: str, thought: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """A line of ``/api/generate``."""
    return {"response": text, **({"thinking": thought} if thought else {})}


def said(text: str, thought: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """A line of ``/api/chat``."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id or new_id("call_"),
                "function": {
                    "index": call.index,
                    "name": call.name,
                    "arguments": json.loads(call.arguments),
                },
            }
            for call in calls
        ]
    return {"message": message}


class Answer:
    """One answer, to be streamed or taken whole, once. `begun` and `loaded` are
    `time.perf_counter`'s; `context`: whether the tokens are told, for a later request."""

    def __init__(
        self, llm: LLM, name: str, generation: Generation, shape: Shape, *, begun: float,
        loaded: float, context: bool,
    ) -> None:  # fmt: skip
        self._llm, self._name, self._generation, self._shape = llm, name, generation, shape
        self._begun, self._loaded, self._context = begun, loaded, context

    async def lines(self) -> AsyncGenerator[str, None]:
        """As lines of JSON."""
        async with aclosing(self._generation.events()) as events:
            async for _, event in events:
                if event.text or event.reasoning or event.tool_calls or event.logprobs:
                    piece = self._head(self._shape(event.text, event.reasoning, event.tool_calls))
                    if event.logprobs:
                        piece["logprobs"] = logprob_content(self._llm, event.logprobs)
                    yield line({**piece, "done": False})
                if event.completion is not None:
                    last = self._head(self._shape("", "", ()))
                    yield line({**last, **self._end(event.completion)})

    async def whole(self) -> dict[str, Any]:
        """As one object."""
        (done,) = await self._generation.results()
        answer = self._head(self._shape(done.text, done.reasoning, done.tool_calls))
        if done.logprobs is not None:
            answer["logprobs"] = logprob_content(self._llm, done.logprobs)
        return {**answer, **self._end(done)}

    def _head(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"model": self._name, "created_at": moment(), **fields}

    def _end(self, completion: Completion) -> dict[str, Any]:
        end = ending(completion, self._begun, self._loaded)
        if self._context:
            end["context"] = [*completion.prompt_token_ids, *completion.token_ids]
        return end
