# SPDX-License-Identifier: Apache-2.0
"""One of OpenAI's responses while it is written: its items, and the events that tell of them.

A response that is not streamed is written by the same code, so both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from freehold.llm import LLM
from freehold.server.failures import Failure
from freehold.server.openai import format as fmt
from freehold.types import Completion, StreamEvent, TokenLogprob, ToolCall

Event = dict[str, Any]
FINAL = ("completed", "incomplete", "failed", "cancelled")
_CODES = {
    "invalid_request": "invalid_prompt",
    "context_length": "invalid_prompt",
    "rate_limited": "rate_limit_exceeded",
}


@dataclass(slots=True)
class _Open:
    """A thought or a text that is being written."""

    kind: Literal["reasoning", "message"]
    item_id: str
    pieces: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


class ResponseWriter:
    """Writes `response`, which begins as `responses.head` made it.

    `begin`, then `take` for every event, then once `finish`, `fail` or `cancel`; each returns the
    events to send. Nothing an event holds is changed later.
    """

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self._sequence = 0
        self._open: _Open | None = None
        self._reasoning_tokens = 0
        # Tokens whose text the parser still holds back: what they belong to is not known yet.
        self._held_tokens = 0
        self._held_logprobs: list[TokenLogprob] = []

    @property
    def over(self) -> bool:
        """Whether the last event has been told."""
        return self.response["status"] in FINAL

    def begin(self, *, queued: bool = False) -> list[Event]:
        """It has been created; where it waits in the background, it is queued first."""
        if not queued:
            return [self._whole("created"), self._whole("in_progress")]
        self.response["status"] = "queued"
        return [self._whole("created"), self._whole("queued")]

    def resume(self) -> list[Event]:
        """What was queued begins."""
        self.response["status"] = "in_progress"
        return [self._whole("in_progress")]

    def take(self, llm: LLM, event: StreamEvent) -> list[Event]:
        """Write what one event brought."""
        events: list[Event] = []
        self._held_tokens += len(event.token_ids)
        self._held_logprobs += event.logprobs or ()
        if event.reasoning:
            self._reasoning_tokens += self._held_tokens
            self._release()
            events += self._write("reasoning", event.reasoning, [])
        if event.text:
            logprobs = fmt.logprob_content(llm, self._release())
            events += self._write("message", event.text, logprobs)
        for call in event.tool_calls:
            self._release()
            events += self._close("completed") + self._call(call)
        return events

    def finish(self, llm: LLM, completion: Completion, prompt_tokens: int) -> list[Event]:
        """The answer is over."""
        cut = completion.finish_reason != "stop"
        events: list[Event] = []
        if not cut and all(item["type"] == "reasoning" for item in self._output()):
            events += self._write("message", "", [])  # whoever reads the text finds one
        if self._open is not None and self._open.kind == "message":
            self._open.logprobs += fmt.logprob_content(llm, self._release())
        events += self._close("incomplete" if cut else "completed")
        made = len(completion.token_ids)
        self.response["usage"] = {
            "input_tokens": prompt_tokens,
            # nothing is charged for what the cache takes up
            "input_tokens_details": {
                "cached_tokens": completion.cached_tokens, "cache_write_tokens": 0,
            },
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": prompt_tokens + made,
        }  # fmt: skip
        if cut:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self.response["completed_at"] = fmt.now()
        return [*events, self._end("incomplete" if cut else "completed")]

    def fail(self, failure: Failure) -> list[Event]:
        """Something went wrong after the response was begun."""
        code = _CODES.get(failure.kind, "server_error")
        self.response["error"] = {"code": code, "message": failure.message}
        return [*self._close("incomplete"), self._end("failed")]

    def cancel(self) -> list[Event]:
        """Nobody wants it any more."""
        events = self._close("incomplete")
        self.response["status"] = "cancelled"
        return events

    # -- items -----------------------------------------------------------------------------------
    def _output(self) -> list[dict[str, Any]]:
        """Items that are there, an open one as far as its kind goes."""
        begun = [] if self._open is None else [{"type": self._open.kind}]
        return [*self.response["output"], *begun]

    def _release(self) -> list[TokenLogprob]:
        held, self._held_logprobs, self._held_tokens = self._held_logprobs, [], 0
        return held

    def _write(
        self, kind: Literal["reasoning", "message"], text: str, logprobs: Sequence[dict[str, Any]]
    ) -> list[Event]:
        events: list[Event] = []
        if self._open is None or self._open.kind != kind:
            events = self._close("completed") + self._begin(kind)
        assert self._open is not None
        if text:
            self._open.pieces.append(text)
            self._open.logprobs += logprobs
            delta = {"delta": text}
            if kind == "reasoning":
                events.append(self._about("reasoning_text.delta", **delta, content_index=0))
            else:
                events.append(
                    self._about("output_text.delta", **delta, content_index=0, logprobs=logprobs)
                )
        return events

    def _begin(self, kind: Literal["reasoning", "message"]) -> list[Event]:
        self._open = _Open(kind, fmt.new_id("rs_" if kind == "reasoning" else "msg_"))
        item = {**self._item("in_progress"), "content": []}
        return [
            self._event("output_item.added", output_index=self._index, item=item),
            self._about("content_part.added", content_index=0, part=self._part("", [])),
        ]

    def _close(self, status: str) -> list[Event]:
        opened = self._open
        if opened is None:
            return []
        text = "".join(opened.pieces)
        part = self._part(text, opened.logprobs)
        if opened.kind == "reasoning":
            events = [self._about("reasoning_text.done", content_index=0, text=text)]
        else:
            events = [
                self._about(
                    "output_text.done", content_index=0, text=text, logprobs=opened.logprobs
                )
            ]
        events.append(self._about("content_part.done", content_index=0, part=part))
        item = {**self._item(status), "content": [part]}
        events.append(self._event("output_item.done", output_index=self._index, item=item))
        self.response["output"].append(item)
        self._open = None
        return events

    def _item(self, status: str) -> dict[str, Any]:
        assert self._open is not None
        item: dict[str, Any] = {"id": self._open.item_id, "type": self._open.kind}
        if self._open.kind == "reasoning":
            return item | {"summary": [], "status": status}
        return item | {"role": "assistant", "status": status}

    def _part(self, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        assert self._open is not None
        if self._open.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _call(self, call: ToolCall) -> list[Event]:
        """A call is told once it is whole: a piece of one could not be taken back."""
        item: dict[str, Any] = {
            "id": fmt.new_id("fc_"), "type": "function_call", "name": call.name,
            "call_id": call.id or fmt.new_id("call_"), "arguments": "", "status": "in_progress",
        }  # fmt: skip
        whole = {**item, "arguments": call.arguments, "status": "completed"}
        at = {"item_id": item["id"], "output_index": self._index}
        events = [
            self._event("output_item.added", output_index=self._index, item=item),
            self._event("function_call_arguments.delta", **at, delta=call.arguments),
            self._event("function_call_arguments.done", **at, arguments=call.arguments,
                        name=call.name),
            self._event("output_item.done", output_index=self._index, item=whole),
        ]  # fmt: skip
        self.response["output"].append(whole)
        return events

    # -- events ----------------------------------------------------------------------------------
    @property
    def _index(self) -> int:
        return len(self.response["output"])

    def _event(self, kind: str, **values: Any) -> Event:
        event = {"type": f"response.{kind}", "sequence_number": self._sequence, **values}
        self._sequence += 1
        return event

    def _about(self, kind: str, **values: Any) -> Event:
        """An event about the open item."""
        assert self._open is not None
        return self._event(kind, item_id=self._open.item_id, output_index=self._index, **values)

    def _whole(self, kind: str) -> Event:
        return self._event(kind, response=self.snapshot())

    def _end(self, status: str) -> Event:
        self.response["status"] = status
        return self._whole(status)

    def snapshot(self) -> dict[str, Any]:
        """The response as far as it is written, whole items only."""
        return {**self.response, "output": list(self.response["output"])}
