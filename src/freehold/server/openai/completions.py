# SPDX-License-Identifier: Apache-2.0
"""OpenAI's plain completions: ``POST /v1/completions``.

Several prompts in one request, prompts as token ids, the prompt repeated with its
log-probabilities (how evaluation harnesses score), and filling in. Knows that dialect's bodies;
generation is `generation.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from freehold.async_llm import AsyncLLM
from freehold.chat.fill_in import FillIn
from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.generation import MAX_CHOICES, Generation, GenerationRequest, merged
from freehold.server.openai import format as fmt
from freehold.server.openai.constraints import ConstraintFields
from freehold.server.openai.text_logprobs import TextLogprobs, joined
from freehold.server.services import Dialect, Services
from freehold.server.sse import frame, stream_response
from freehold.types import Completion, StreamEvent

MAX_PROMPTS = 2048  # in one request
MAX_LOGPROB_ENTRIES = 2_000_000  # of one request, all tokens together: some 200 MB of answer
DEFAULT_MAX_TOKENS = 16  # OpenAI's own
_AT_A_TIME = 32  # answers of one request that run together; the others of it wait


class CompletionBody(fmt.SamplingFields, ConstraintFields):
    """The request."""

    model: str
    prompt: fmt.Prompts
    suffix: str | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    stream: bool | None = None
    stream_options: fmt.StreamOptions | None = None
    user: str | None = None  # a label for the vendor's own books


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the body asks for besides sampling."""

    n: int  # answers to show per prompt
    made: int  # answers to make per prompt
    echo: bool
    logprobs: int | None
    empty: bool  # no token is wanted, only the prompt's numbers


@dataclass(slots=True)
class _Asked:
    """One prompt on its way."""

    generation: Generation
    text: str | None  # None where it came as ids

    def logprobs(self, llm: LLM, wish: _Wish) -> TextLogprobs:
        return TextLogprobs(llm, self.generation.prompt_token_ids, self.text, wish.logprobs or 0)


def wish_of(body: CompletionBody) -> _Wish:
    """Raises RequestError for counts that contradict each other."""
    n = 1 if body.n is None else body.n
    made = n if body.best_of is None else body.best_of
    for name, value in (("n", n), ("best_of", made)):
        if not 1 <= value <= MAX_CHOICES:
            raise RequestError(f"{name} must be between 1 and {MAX_CHOICES}", param=name)
    if made < n:
        raise RequestError("best_of must not be less than n", param="best_of")
    if body.stream and made > n:
        raise RequestError(
            "the best of several answers is known when all are over: no stream", param="best_of"
        )
    if len(body.prompt) > MAX_PROMPTS:
        raise RequestError(f"more than {MAX_PROMPTS} prompts in one request", param="prompt")
    if len(body.prompt) * made > MAX_PROMPTS:
        raise RequestError(f"more than {MAX_PROMPTS} answers in one request", param="n")
    return _Wish(n, made, bool(body.echo), body.logprobs, body.max_tokens == 0)


def sampling_of(body: CompletionBody, wish: _Wish) -> dict[str, Any]:
    """Fields of `SamplingParams`."""
    sampling = body.sampling()
    tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    # The engine always takes a token; where none is wanted it is not shown.
    sampling["max_tokens"] = 1 if wish.empty else tokens
    if wish.logprobs is not None:
        sampling["logprobs"] = wish.logprobs
        if wish.echo:
            sampling["prompt_logprobs"] = wish.logprobs
    elif wish.made > wish.n:
        sampling["logprobs"] = 0  # they say which are best
    return sampling


async def start(
    model: AsyncLLM, body: CompletionBody, wish: _Wish, recommended: bool
) -> list[_Asked]:
    """All prompts, tokenized and checked: nothing runs before the last is found sound."""
    sampling = sampling_of(body, wish)
    prompts: Sequence[str | Sequence[int]] = body.prompt
    if body.suffix:
        marks = await model.text(lambda llm: llm.fill_in)
        prompts = [await model.text(_filling(p, body, marks)) for p in body.prompt]
        assert marks is not None
        sampling["stop_token_ids"] = [*sampling.get("stop_token_ids", ()), *marks.ends]
    form, form_field = body.constraint()
    asked = []
    for given, prompt in zip(body.prompt, prompts, strict=True):
        request = GenerationRequest(
            prompt=prompt, sampling=sampling, n=wish.made, recommended=recommended,
            constraint=form, constraint_field=form_field,
        )  # fmt: skip
        generation = await Generation.start(model, request)
        asked.append(_Asked(generation, given if isinstance(given, str) else None))
    if wish.logprobs is not None:
        longest = min(sampling["max_tokens"], model.llm.context_length)
        tokens = longest * wish.made * len(asked)
        if wish.echo:
            tokens += sum(len(a.generation.prompt_token_ids) for a in asked) * wish.made
        if tokens * (wish.logprobs + 1) > MAX_LOGPROB_ENTRIES:
            raise RequestError(
                f"{wish.logprobs} log-probabilities for each of {tokens:,} tokens are too many",
                param="logprobs",
                hint="ask for fewer, or in several requests",
            )
    return asked


def _filling(
    prompt: str | Sequence[int], body: CompletionBody, marks: FillIn | None
) -> Callable[[LLM], list[int]]:
    if not isinstance(prompt, str):
        raise RequestError("a suffix needs a prompt that is text", param="suffix")
    if body.echo:
        raise RequestError("echo and suffix exclude each other", param="suffix")
    if marks is None:
        raise RequestError(
            "the model has no tokens that mark a gap, so it cannot fill in before a suffix",
            param="suffix",
            hint="use a model trained to fill in",
        )
    suffix = body.suffix or ""
    return lambda llm: marks.ids(llm.tokenizer, prompt, suffix)


# -- answers ------------------------------------------------------------------------------------


def _usage(asked: Sequence[_Asked], done: Sequence[Completion], wish: _Wish) -> dict[str, Any]:
    """Tokens of all prompts and all answers, those that were not the best included."""
    counts = [
        fmt.usage(len(a.generation.prompt_token_ids), done[at : at + wish.made])
        for a, at in zip(asked, range(0, len(done), wish.made), strict=True)
    ]
    made = 0 if wish.empty else sum(c["completion_tokens"] for c in counts)
    prompt = sum(c["prompt_tokens"] for c in counts)
    cached = sum(c["prompt_tokens_details"]["cached_tokens"] for c in counts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _best(done: Sequence[Completion], n: int) -> list[Completion]:
    """The `n` likeliest per token, likeliest first, as OpenAI chooses among ``best_of``."""
    if len(done) == n:
        return list(done)

    def likelihood(completion: Completion) -> float:
        entries = completion.logprobs or ()
        return sum(entry.logprob for entry in entries) / max(1, len(entries))

    return sorted(done, key=likelihood, reverse=True)[:n]


def _choice(
    llm: LLM, index: int, asked: _Asked, completion: Completion, wish: _Wish
) -> dict[str, Any]:
    text = "" if wish.empty else completion.text
    logprobs = None
    if wish.logprobs is not None or wish.echo:
        told = asked.logprobs(llm, wish)
        text = told.prompt_text + text if wish.echo else text
        if wish.logprobs is not None:
            parts = [told.prompt(completion.prompt_logprobs or ())] if wish.echo else []
            parts.append(told.answer(() if wish.empty else completion.logprobs or ()))
            logprobs = joined(parts)
    return {
        "text": text,
        "index": index,
        "logprobs": logprobs,
        "finish_reason": "length" if wish.empty else fmt.finish_reason(completion),
    }


async def results(
    llm: LLM, asked: Sequence[_Asked], wish: _Wish
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(choices, usage) of whole answers."""
    done: dict[int, Completion] = {}
    async with aclosing(_events(asked, wish)) as events:
        async for index, event in events:
            if event.completion is not None:
                done[index] = event.completion
    each = [done[i] for i in range(len(done))]
    choices: list[dict[str, Any]] = []
    for i, prompt in enumerate(asked):
        for completion in _best(each[i * wish.made : (i + 1) * wish.made], wish.n):
            choices.append(_choice(llm, len(choices), prompt, completion, wish))
    return choices, _usage(asked, each, wish)


async def _events(
    asked: Sequence[_Asked], wish: _Wish
) -> AsyncGenerator[tuple[int, StreamEvent], None]:
    """(number of the answer, event): the answers to a prompt follow each other in number."""
    limit = max(1, _AT_A_TIME // wish.made)
    async with aclosing(merged([a.generation.events for a in asked], limit=limit)) as events:
        async for prompt, (answer, event) in events:
            yield prompt * wish.made + answer, event


async def _chunks(
    llm: LLM, asked: Sequence[_Asked], wish: _Wish, head: dict[str, Any], include_usage: bool
) -> AsyncGenerator[str, None]:
    """Frames of a streamed answer, ``[DONE]`` included. The prompt, where it is repeated, comes
    with the first piece."""
    tail: dict[str, Any] = {"usage": None} if include_usage else {}
    told: dict[int, TextLogprobs] = {}
    done: dict[int, Completion] = {}
    async with aclosing(_events(asked, wish)) as events:
        async for index, event in events:
            text = "" if wish.empty else event.text
            parts = []
            if index not in told and (wish.echo or wish.logprobs is not None):
                told[index] = asked[index // wish.made].logprobs(llm, wish)
                if wish.echo:
                    text = told[index].prompt_text + text
                    if event.prompt_logprobs is not None:
                        parts.append(told[index].prompt(event.prompt_logprobs))
            if event.logprobs and not wish.empty:
                parts.append(told[index].answer(event.logprobs))
            choice: dict[str, Any] = {"text": text, "index": index, "finish_reason": None}
            choice["logprobs"] = joined(parts) if parts else None
            if event.completion is not None:
                done[index] = event.completion
                reason = fmt.finish_reason(event.completion)
                choice["finish_reason"] = "length" if wish.empty else reason
            if text or parts or event.completion is not None:
                yield frame({**head, "choices": [choice], **tail})
    if include_usage:
        counts = _usage(asked, [done[i] for i in range(len(done))], wish)
        yield frame({**head, "choices": [], "usage": counts})
    yield frame("[DONE]")


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.post("/v1/completions")
    async def completions(body: CompletionBody) -> Response:
        """Continue one text or many."""
        wish = wish_of(body)
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(services.registry.lease(body.model))
            asked = await start(model.loaded, body, wish, services.settings.recommended_sampling)
            llm = model.loaded.llm
            head = {
                "id": fmt.new_id("cmpl-"), "object": "text_completion", "created": fmt.now(),
                "model": model.name,
            }  # fmt: skip
            if body.stream:
                options = body.stream_options or fmt.StreamOptions()
                frames = _chunks(llm, asked, wish, head, options.include_usage)
                return stream_response(frames, fmt.error_frame, holding=stack.pop_all())
            choices, counts = await results(llm, asked, wish)
            return JSONResponse({**head, "choices": choices, "usage": counts})

    return routes


DIALECT = Dialect("openai_completions", ("/v1/completions",), router, fmt.error_body)
