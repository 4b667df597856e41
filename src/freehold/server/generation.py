# SPDX-License-Identifier: Apache-2.0
"""One request of any dialect, and the answers to it as they come.

A dialect turns its JSON into a `GenerationRequest`, starts it on a leased model and turns the
events back. Knows no dialect and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from freehold.async_llm import AsyncLLM
from freehold.chat.answer_format import prompt_tail
from freehold.chat.thought_limit import ThoughtLimit
from freehold.engine.structured import Grammar
from freehold.errors import ConstraintError, InvalidParameterError, TemplateError
from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.limits.request_caps import check_caps
from freehold.types import (
    Completion,
    Constraint,
    Message,
    Prompt,
    SamplingParams,
    StreamEvent,
    ToolChoice,
)

__all__ = [
    "MAX_CHOICES",
    "Generation",
    "GenerationRequest",
    "ToolChoice",
    "merged",
    "prompt_ids",
]

_Item = TypeVar("_Item")
MAX_CHOICES = 128  # answers to one prompt; a client that wants more sends more requests


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What all dialects can say. Either `messages` or `prompt` is given.

    `sampling` holds only fields of `SamplingParams` that the request named; the rest is the model's
    recommendation or neutral.
    """

    messages: Sequence[Message] | None = None
    prompt: Prompt | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    n: int = 1
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    constraint: Constraint | None = None
    constraint_field: str = "response_format"  # where the request asked for it
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    parse: bool = True  # take reasoning and calls out of the text
    recommended: bool = True  # the vendor's sampling where `sampling` says nothing
    thought_budget: int | None = None  # tokens after which a thought is ended
    prefill: str = ""  # how the answer to `messages` begins; it goes on from there
    before: Sequence[int] = ()  # tokens of an earlier conversation, in front of `messages`


class Generation:
    """The answers to one request. `start` makes it; then take `events` or `results`, once."""

    def __init__(
        self, model: AsyncLLM, request: GenerationRequest, prompt: list[int],
        params: list[SamplingParams], grammar: Grammar | None = None,
        limits: Sequence[ThoughtLimit | None] = (),
    ) -> None:  # fmt: skip
        self._model, self._request, self._params = model, request, params
        self._grammar, self._limits = grammar, limits or [None] * len(params)
        self.prompt_token_ids = prompt

    @classmethod
    async def start(cls, model: AsyncLLM, request: GenerationRequest) -> Generation:
        """Render and tokenize; whatever can be refused is refused here.

        Raises UserErrors that name what is wrong with the request.
        """
        if not 1 <= request.n <= MAX_CHOICES:
            raise RequestError(f"n must be between 1 and {MAX_CHOICES}, not {request.n}", param="n")
        check_caps(request.sampling, request.messages, request.tools)
        vendor = dict(model.llm.recommended_sampling) if request.recommended else {}
        params = SamplingParams(**{**vendor, **request.sampling})
        each = [params] * request.n
        if params.seed is not None:  # the same seed n times would be the same answer n times
            each = [replace(params, seed=(params.seed + i) % 2**64) for i in range(request.n)]
        ids = await model.text(lambda llm: prompt_ids(llm, request))
        model.check(ids, params)  # not after a stream has begun
        grammar = await model.grammar(lambda llm: _grammar(llm, request, ids))
        limits: list[ThoughtLimit | None] = [None] * request.n
        if (budget := request.thought_budget) is not None:
            limits = await model.text(lambda llm: [llm.thought_limit(ids, budget) for _ in each])
        return cls(model, request, ids, each, grammar, limits)

    async def events(self) -> AsyncGenerator[tuple[int, StreamEvent], None]:
        """(index of the answer, event) as they come. Leaving early aborts all answers; close the
        iterator (`contextlib.aclosing`) where that may happen."""
        if len(self._params) == 1:
            async with aclosing(self._one(0)) as stream:
                async for event in stream:
                    yield 0, event
            return
        each = [partial(self._one, index) for index in range(len(self._params))]
        async with aclosing(merged(each, limit=len(each))) as streams:
            async for item in streams:
                yield item

    async def results(self) -> list[Completion]:
        """All answers, whole."""
        done: dict[int, Completion] = {}
        async with aclosing(self.events()) as events:
            async for index, event in events:
                if event.completion is not None:
                    done[index] = event.completion
        return [done[i] for i in range(len(self._params))]

    async def _one(self, index: int) -> AsyncGenerator[StreamEvent, None]:
        request, llm = self._request, self._model.llm
        parser = None
        if request.messages is not None and request.parse:
            offered = _offered(request)
            parser = llm.chat_parser(
                self.prompt_token_ids, request.constraint, offered, calls=offered is not None
            )
        stream = self._model.stream(
            self.prompt_token_ids, self._params[index],
            continues=request.messages is None or bool(request.prefill), parser=parser,
            constraint=self._grammar, logits_processor=self._limits[index],
        )  # fmt: skip
        async with aclosing(stream) as events:
            async for event in events:
                yield event


async def merged(
    streams: Sequence[Callable[[], AsyncGenerator[_Item, None]]], *, limit: int
) -> AsyncGenerator[tuple[int, _Item], None]:
    """(index of the stream, item) of all streams as they come, `limit` of them open at a time.

    Leaving early closes those that are open; the first failure ends all.
    """
    queue: asyncio.Queue[tuple[int, _Item] | BaseException | None] = asyncio.Queue()
    todo = iter(enumerate(streams))  # the pumps share it

    async def pump() -> None:
        try:
            for index, opened in todo:
                async with aclosing(opened()) as stream:
                    async for item in stream:
                        queue.put_nowait((index, item))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    pumps = [asyncio.create_task(pump()) for _ in range(min(limit, len(streams)))]
    try:
        running = len(pumps)
        while running:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


_TAKEN = {"self", "messages", "tools"}  # what a template is given in any case


def _offered(request: GenerationRequest) -> Sequence[Mapping[str, Any]] | None:
    return None if request.tool_choice.mode == "none" else request.tools or None


def _grammar(llm: LLM, request: GenerationRequest, prompt: list[int]) -> Grammar | None:
    """The form of the answer; what cannot be kept is refused by the name of its field."""
    try:
        if request.messages is None:
            return llm.text_grammar(request.constraint)
        return llm.chat_grammar(
            prompt, request.constraint, tools=_offered(request) or (), choice=request.tool_choice
        )
    except ConstraintError as error:
        field = request.constraint_field if request.constraint is not None else "tools"
        raise RequestError(error.message, param=field, hint=error.hint) from error
    except InvalidParameterError as error:
        raise RequestError(error.message, param="tool_choice", hint=error.hint) from error


def prompt_ids(llm: LLM, request: GenerationRequest) -> list[int]:
    """The tokens that the model is given; to be run on the thread for text.

    Raises TemplateError for a conversation that the model's template does not take.
    """
    if request.messages is None:
        assert request.prompt is not None
        return llm.ids(request.prompt)
    if not llm.has_chat_template:
        raise TemplateError(
            f"the model has no chat template: {llm.path.rpartition('/')[2]}",
            hint="ask for a completion instead of a chat",
        )
    if taken := _TAKEN & request.template_variables.keys():
        raise RequestError(f"{min(taken)!r} is no variable of a template", param=min(taken))
    ids = llm.chat_ids(
        request.messages, tools=_offered(request), **dict(request.template_variables)
    )
    if request.before:
        begin = llm.tokenizer.bos_id
        ids = [*llm.ids(request.before), *(ids[1:] if ids[:1] == [begin] else ids)]
    if request.prefill:
        style = llm.answer_format.reasoning
        if style is not None and style.opened_by(prompt_tail(llm.tokenizer, ids)):
            raise RequestError(
                "the model thinks before it answers, so its answer cannot be begun for it",
                param="messages", hint="turn thinking off, or end with a message of the user",
            )  # fmt: skip
        ids += llm.tokenizer.encode(request.prefill, add_special=False)
    return ids
