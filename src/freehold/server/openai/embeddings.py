# SPDX-License-Identifier: Apache-2.0
"""OpenAI's embeddings: ``POST /v1/embeddings``.

Vectors are the model's final hidden states, pooled as its files say. Inputs of one request share
the engine's steps.
"""

from __future__ import annotations

import base64
from typing import Any, Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from freehold.engine.measuring import Pooling
from freehold.ops import FloatArray
from freehold.server.failures import RequestError
from freehold.server.openai import format as fmt
from freehold.server.request_context import current
from freehold.server.services import Body, Dialect, Services

MAX_INPUTS = 2048  # OpenAI's own


class EmbeddingBody(Body):
    """The request."""

    model: str
    input: fmt.Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None  # a label for the vendor's own books
    # beyond OpenAI's
    pooling: Pooling | None = None


def encoded(vector: FloatArray, kind: str | None) -> list[float] | str:
    """A vector as JSON has it, or its bytes: float32, least significant first."""
    if kind == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.post("/v1/embeddings")
    async def embeddings(body: EmbeddingBody) -> Response:
        """Texts as vectors of length 1."""
        if len(body.input) > MAX_INPUTS:
            raise RequestError(f"more than {MAX_INPUTS} inputs in one request", param="input")
        async with services.registry.lease(body.model) as model:
            llm, own = model.loaded.llm, model.loaded.llm.config.hidden_size
            if body.dimensions not in (None, own):
                raise RequestError(
                    f"the model's vectors have {own} dimensions, and it was not trained for fewer",
                    param="dimensions",
                    hint="leave dimensions out",
                )
            ids = [await model.loaded.text(lambda llm, p=p: llm.ids(p)) for p in body.input]  # type: ignore[misc]
            for index, each in enumerate(ids):
                if not each:
                    raise RequestError(f"input {index} is empty", param="input")
                if len(each) > llm.engine.max_length:
                    raise RequestError(
                        f"input {index} has {len(each)} tokens and the context holds "
                        f"{llm.engine.max_length}",
                        param="input",
                        kind="context_length",
                    )
            vectors = await model.loaded.embed(ids, body.pooling)
            current().count(prompt=sum(map(len, ids)))
        data: list[dict[str, Any]] = [
            {"object": "embedding", "index": i, "embedding": encoded(v, body.encoding_format)}
            for i, v in enumerate(vectors)
        ]
        count = sum(map(len, ids))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": usage})

    return routes


DIALECT = Dialect("openai_embeddings", ("/v1/embeddings",), router, fmt.error_body)
