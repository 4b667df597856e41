# SPDX-License-Identifier: Apache-2.0
"""An answer as Anthropic's content blocks, event by event; a whole message is the sum of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from freehold.llm import LLM
from freehold.server.anthropic import format as fmt
from freehold.server.generation import Generation
from freehold.server.openai.format import new_id
from freehold.server.sse import frame
from freehold.types import Completion, StreamEvent, ToolCall

PING_SECONDS = 15.0  # of silence, after which a client is told that the server still works
_Item = TypeVar("_Item")
Event = dict[str, Any]


class Blocks:
    """Turns the events of one answer into events of content blocks.

    `thoughts`: "shown"; "omitted", where a block says only that there was one; or "hidden", for a
    client that asked for none.
    """

    def __init__(self, thoughts: str) -> None:
        self._thoughts = thoughts
        self._index = -1
        self._open: str | None = None  # the type of the block that is being written
        self._digest = hashlib.blake2b(digest_size=16)
        self.thinking_tokens = 0

    def take(self, event: StreamEvent) -> Iterator[Event]:
        """What a piece of the answer adds."""
        if event.reasoning:
            if not event.text and not event.tool_calls:
                self.thinking_tokens += len(event.token_ids)
            if self._thoughts != "hidden":
                yield from self._thought(event.reasoning)
        if event.text:
            yield from self._begin("text", {"text": ""})
            yield self._delta({"type": "text_delta", "text": event.text})
        for call in event.tool_calls:
            yield from self._call(call)

    def end(self) -> Iterator[Event]:
        """Close the block that is open."""
        if self._open is None:
            return
        if self._open == "thinking":
            # Clients send thoughts back with what came with them; nobody here asks for it.
            yield self._delta({"type": "signature_delta", "signature": self._digest.hexdigest()})
        self._open = None
        yield {"type": "content_block_stop", "index": self._index}

    def _thought(self, text: str) -> Iterator[Event]:
        yield from self._begin("thinking", {"thinking": "", "signature": ""})
        self._digest.update(text.encode("utf-8", "surrogatepass"))
        if self._thoughts == "shown":
            yield self._delta({"type": "thinking_delta", "thinking": text})

    def _call(self, call: ToolCall) -> Iterator[Event]:
        yield from self.end()  # every call is a block
        head = {"id": call.id or new_id("toolu_"), "name": call.name, "input": {}}
        yield from self._begin("tool_use", head)
        yield self._delta({"type": "input_json_delta", "partial_json": call.arguments})
        yield from self.end()

    def _begin(self, kind: str, fields: Event) -> Iterator[Event]:
        if self._open == kind:
            return
        yield from self.end()
        self._open = kind
        self._index += 1
        block = {"type": kind, **fields}
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: Event) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


class Answer:
    """One answer to a leased model's generation, to be streamed or taken whole, once.

    `silent`: the prompt is computed for its keys alone, and what is generated does not count.
    """

    def __init__(
        self, llm: LLM, name: str, generation: Generation, max_tokens: int, thoughts: str,
        silent: bool = False,
    ) -> None:  # fmt: skip
        self._llm, self._generation = llm, generation
        self._max_tokens, self._silent = max_tokens, silent
        self._blocks = Blocks("hidden" if silent else thoughts)
        self._message: Event = {
            "id": new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    async def events(self) -> AsyncGenerator[Event, None]:
        """From message_start to message_stop."""
        counts = fmt.usage(len(self._generation.prompt_token_ids), 0, 0)
        yield {"type": "message_start", "message": {**self._message, "usage": counts}}
        async with aclosing(self._generation.events()) as events:
            async for _, event in events:
                if not self._silent:
                    for block in self._blocks.take(event):
                        yield block
                if event.completion is not None:
                    for block in self._blocks.end():
                        yield block
                    yield self._end(event.completion)
        yield {"type": "message_stop"}

    async def frames(self) -> AsyncGenerator[str, None]:
        """The same as server-sent events, with pings."""
        async with aclosing(self.events()) as events:
            started = False
            async for event in _or_silence(events, PING_SECONDS):
                if event is not None:
                    yield frame(event, event["type"])
                if event is None or not started:
                    yield frame({"type": "ping"}, "ping")
                started = True

    async def whole(self) -> Event:
        """The message."""
        message: Event = {}
        arguments = ""
        async with aclosing(self.events()) as events:
            async for event in events:
                kind = event["type"]
                if kind == "message_start":
                    message = event["message"]
                elif kind == "content_block_start":
                    message["content"].append(event["content_block"])
                elif kind == "content_block_delta":
                    delta = event["delta"]
                    block = message["content"][event["index"]]
                    if delta["type"] == "input_json_delta":
                        arguments += delta["partial_json"]
                    else:
                        field = delta["type"].removesuffix("_delta")
                        block[field] += delta[field]
                elif kind == "content_block_stop" and arguments:
                    message["content"][event["index"]]["input"] = json.loads(arguments)
                    arguments = ""
                elif kind == "message_delta":
                    message |= {**event["delta"], "usage": event["usage"]}
        return message

    def _end(self, completion: Completion) -> Event:
        reason, sequence = fmt.stop_reason(self._llm, completion, self._max_tokens)
        made = 0 if self._silent else len(completion.token_ids)
        if self._silent:
            reason, sequence = "max_tokens", None
        counts = fmt.usage(
            len(completion.prompt_token_ids), completion.cached_tokens, made,
            self._blocks.thinking_tokens,
        )  # fmt: skip
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return {"type": "message_delta", "delta": delta, "usage": counts}


async def _or_silence(
    items: AsyncIterator[_Item], seconds: float
) -> AsyncGenerator[_Item | None, None]:
    """`items`, and None whenever none has come for so long."""
    pending: asyncio.Future[_Item] | None = None
    try:
        while True:
            if pending is None:
                pending = asyncio.ensure_future(anext(items))
            await asyncio.wait({pending}, timeout=seconds)
            if not pending.done():
                yield None
                continue
            done, pending = pending, None
            try:
                item = done.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
