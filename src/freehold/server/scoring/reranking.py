# SPDX-License-Identifier: Apache-2.0
"""Documents in the order in which they answer a query: ``POST /v1/rerank``, and where Jina's and
Cohere's newer clients look for it, ``/rerank`` and ``/v2/rerank``.

In the shape that Cohere and Jina have in common. Models here were not made to rank, so the answer
says how they were made to: ``likelihood`` asks about each document and takes the probability of yes
as opposed to no, and `coverage` is how probable either is; ``embedding`` takes the cosine of the
angle between query and document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from freehold._llm_labels import LabelTask
from freehold.async_llm import AsyncLLM
from freehold.documents import prompts
from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.openai import format as fmt
from freehold.server.request_context import current
from freehold.server.scoring.classification import document_prompt, usage
from freehold.server.services import Body, Dialect, Services

MAX_DOCUMENTS = 1000
Method = Literal["likelihood", "embedding"]


class RerankDocument(Body):
    """A document in the longer spelling."""

    text: str


class RerankBody(Body):
    """The request."""

    model: str
    query: str
    documents: list[str | RerankDocument]
    top_n: int | None = None
    return_documents: bool | None = None
    # beyond Cohere's and Jina's; None: likelihood where the model can be asked, else embedding
    method: Method | None = None
    user: str | None = None  # a label for the caller's own books


async def scores(
    model: AsyncLLM, method: Method, query: str, documents: Sequence[str]
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """(what there is to say of each document, usage)."""
    if method == "embedding":
        ids = [await model.text(lambda llm, t=text: llm.ids(t)) for text in (query, *documents)]  # type: ignore[misc]
        vectors = await model.embed(ids)
        count = sum(map(len, ids))
        current().count(prompt=count)
        return [{"relevance_score": float(vector @ vectors[0])} for vector in vectors[1:]], {
            "prompt_tokens": count,
            "total_tokens": count,
        }
    task = await model.text(lambda llm: _task(llm, query, documents))
    found, outputs = await model.classify(task)
    return [
        {"relevance_score": each.scores[0].probability, "coverage": each.coverage} for each in found
    ], usage(task, outputs)


def _task(llm: LLM, query: str, documents: Sequence[str]) -> LabelTask:
    texts = [
        document_prompt(llm, lambda document: prompts.relevant(document, query), text)
        for text in documents
    ]
    spoken = llm.has_chat_template
    space = "" if spoken else " "
    return llm.label_task(texts, [f"{space}yes", f"{space}no"], ends=spoken)


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["decisions"])

    @routes.post("/rerank", include_in_schema=False)
    @routes.post("/v2/rerank", include_in_schema=False)
    @routes.post("/v1/rerank")
    async def rerank(body: RerankBody) -> Response:
        """The documents, the most relevant first."""
        texts = [d if isinstance(d, str) else d.text for d in body.documents]
        if not 1 <= len(texts) <= MAX_DOCUMENTS:
            raise RequestError(
                f"documents must be between 1 and {MAX_DOCUMENTS}", param="documents"
            )
        if body.top_n is not None and body.top_n < 1:
            raise RequestError("top_n must be at least 1", param="top_n")
        async with services.registry.lease(body.model) as model:
            asked = "likelihood" if model.loaded.llm.has_chat_template else "embedding"
            method: Method = body.method or asked  # type: ignore[assignment]
            work = scores(model.loaded, method, body.query, texts)
            found, counts = await work
        order = sorted(range(len(texts)), key=lambda i: -found[i]["relevance_score"])[: body.top_n]
        results = [
            {"index": i, **found[i]}
            | ({"document": {"text": texts[i]}} if body.return_documents else {})
            for i in order
        ]
        head = {"id": fmt.new_id("rerank-"), "object": "list", "model": model.name}
        head["method"] = method
        return JSONResponse({**head, "results": results, "usage": counts})

    return routes


DIALECT = Dialect("reranking", ("/v1/rerank", "/rerank", "/v2/rerank"), router, fmt.error_body)
