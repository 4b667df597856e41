# SPDX-License-Identifier: Apache-2.0
"""Which of some labels a text has, with probabilities and without decoding: ``POST /v1/classify``.

What is computed is `_llm_labels.py`; the answer keeps the shape of vLLM's ``/classify`` and adds to
it. Several texts, and all labels of each, share the engine's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import JSONResponse, Response

from freehold._llm_labels import LabelTask, checked_labels
from freehold.documents import prompts
from freehold.engine.sequence import StepOutput
from freehold.errors import InvalidParameterError
from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.openai import format as fmt
from freehold.server.openai.chat import message
from freehold.server.request_context import current
from freehold.server.services import Body, Dialect, Services
from freehold.types import Classification, Prompt

MAX_LABELS = 1000
MAX_SCORES = 8192  # texts times labels of one request, content-free ones included
# Documents that say nothing; together they are less peculiar than any of them.
CONTENT_FREE = ("", "N/A", "[MASK]")


class ClassifyBody(Body):
    """The request: labels, and one of `input` (documents), `messages` or `prompt`."""

    model: str
    labels: list[str]
    # documents, about which the model is asked in the words of `freehold`'s own document tasks
    input: str | list[str] | None = None
    # a conversation that ends with the question
    messages: list[dict[str, Any]] | None = None
    # a text, or token ids, that the labels continue as they stand, spaces and all
    prompt: str | list[int] | None = None
    ends: bool | None = None  # the answer is the label and then over; None: in conversations
    calibration: Literal["none", "content_free"] = "none"
    normalization: Literal["none", "tokens"] = "none"
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    user: str | None = None  # a label for the caller's own books


Make = Callable[[LLM, str], Prompt]


def document_prompt(llm: LLM, ask: Callable[[str], prompts.Messages], text: str) -> Prompt:
    """A question about a document, as the model's template has it; without one, as plain text."""
    messages = ask(text)
    if llm.has_chat_template:
        return llm.answer_start(messages)
    return f"{messages[-1]['content']}\n\nAnswer:"


def label_task(llm: LLM, body: ClassifyBody) -> LabelTask:
    """What the body asks for. Raises RequestError and what `LLM.label_task` raises."""
    labels = _labels(body)
    given = [n for n in ("input", "messages", "prompt") if getattr(body, n) is not None]
    if len(given) != 1:
        raise RequestError("give one of input, messages and prompt", param=(given or ["input"])[-1])
    texts: list[Prompt]
    free: list[Prompt] = []
    spoken = llm.has_chat_template and given != ["prompt"]
    if body.input is not None:
        documents = [body.input] if isinstance(body.input, str) else body.input
        if not documents:
            raise RequestError("input must hold at least one text", param="input")
        _limit(len(documents) + len(CONTENT_FREE), len(labels), "input")
        texts = [_about(llm, text, labels) for text in documents]
        if body.calibration == "content_free":
            free = [_about(llm, text, labels) for text in CONTENT_FREE]
    elif body.messages is not None:
        if not body.messages:
            raise RequestError("messages must hold at least one message", param="messages")
        texts = [llm.answer_start([message(raw, i) for i, raw in enumerate(body.messages)])]
    else:
        assert body.prompt is not None
        texts = [body.prompt if isinstance(body.prompt, str) else llm.ids(body.prompt)]
    if body.calibration != "none" and body.input is None:
        raise RequestError(
            "what says nothing is known of documents alone", param="calibration",
            hint="give them as input",
        )  # fmt: skip
    if body.input is not None and not llm.has_chat_template:
        labels = [f" {label}" for label in labels]
    return llm.label_task(
        texts,
        labels,
        ends=spoken if body.ends is None else body.ends,
        content_free=free,
        normalization=body.normalization,
        temperature=body.temperature,
    )


def _labels(body: ClassifyBody) -> list[str]:
    if len(body.labels) > MAX_LABELS:
        raise RequestError(f"more than {MAX_LABELS} labels", param="labels")
    try:
        return list(checked_labels(body.labels))
    except InvalidParameterError as error:
        raise RequestError(error.message, param="labels") from None


def _about(llm: LLM, text: str, labels: Sequence[str]) -> Prompt:
    return document_prompt(llm, lambda document: prompts.classify(document, labels), text)


def _limit(texts: int, labels: int, field: str) -> None:
    if texts * labels > MAX_SCORES:
        raise RequestError(
            f"more than {MAX_SCORES} texts times labels in one request", param=field,
            hint="send several requests",
        )  # fmt: skip


def usage(task: LabelTask, outputs: Sequence[StepOutput]) -> dict[str, Any]:
    """Tokens of all sequences that were scored; those found in the cache were not computed."""
    count = sum(len(measurement.ids) for measurement in task.measurements)
    cached = sum(output.cached_tokens for output in outputs)
    current().count(prompt=count, cached=cached)
    return {
        "prompt_tokens": count,
        "total_tokens": count,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _shown(index: int, found: Classification, labels: Sequence[str]) -> dict[str, Any]:
    best = [score.label for score in found.scores].index(found.label)
    return {
        "index": index,
        "label": labels[best],
        "probs": [score.probability for score in found.scores],
        "num_classes": len(labels),
        "coverage": found.coverage,
        "scores": [
            {
                "label": label,
                "probability": score.probability,
                "logprob": max(score.logprob, -9999.0),
                "prior_logprob": score.prior,
                "num_tokens": score.num_tokens,
            }
            for label, score in zip(labels, found.scores, strict=True)
        ],
    }


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["decisions"])

    @routes.post("/v1/classify")
    async def classify(body: ClassifyBody) -> Response:
        """How probable each label is as the answer."""
        async with services.registry.lease(body.model) as model:
            task = await model.loaded.text(lambda llm: label_task(llm, body))
            found, outputs = await model.loaded.classify(task)
        data = [_shown(i, each, body.labels) for i, each in enumerate(found)]
        head = {"id": fmt.new_id("classify-"), "object": "list", "created": fmt.now()}
        head |= {"model": model.name}
        return JSONResponse({**head, "data": data, "usage": usage(task, outputs)})

    return routes


DIALECT = Dialect("classification", ("/v1/classify",), router, fmt.error_body)
