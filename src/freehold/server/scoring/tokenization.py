# SPDX-License-Identifier: Apache-2.0
"""``POST /tokenize``, ``/detokenize`` and ``GET /tokenizer_info``, in the shapes vLLM gave them.

What a text or a conversation is to the model, without running it; enough for a client that has no
tokenizer of its own (lm-eval's "remote" one).
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter

from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.openai import format as fmt
from freehold.server.openai.chat import message
from freehold.server.services import Body, Dialect, Services


class TokenizeBody(Body):
    """The request: either a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    # Of a prompt: the begin and end tokens round it, as completions put them. A conversation's are
    # the template's own.
    add_special_tokens: bool | None = None
    # Names of control tokens in a prompt are those tokens, which is how clients ask for their ids;
    # false is how completions read a prompt.
    parse_special: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: Literal[False] = False
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """The request."""

    model: str | None = None
    tokens: list[int]


def token_ids(llm: LLM, body: TokenizeBody) -> list[int]:
    """What the model would see. Raises RequestError where the body is of both kinds or none."""
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("give either prompt or messages", param="prompt")
    if body.messages is None:
        assert body.prompt is not None
        special = body.add_special_tokens is not False
        return llm.tokenizer.encode(
            body.prompt, add_special=special, parse_special=body.parse_special is not False
        )
    if body.add_special_tokens or body.parse_special:
        name = "add_special_tokens" if body.add_special_tokens else "parse_special"
        raise RequestError("a conversation's control tokens are its template's", param=name)
    if not body.messages:
        raise RequestError("messages must hold at least one message", param="messages")
    return llm.chat_ids(
        [message(raw, i) for i, raw in enumerate(body.messages)],
        tools=body.tools or None,
        add_generation_prompt=body.add_generation_prompt,
        **fmt.template_variables(body.chat_template_kwargs),
    )


def only_model(services: Services, name: str | None) -> str:
    """The model a request names, or the only one there is."""
    models = services.registry.bases()
    if name is not None or len(models) != 1:
        if name is None:
            raise RequestError("there are several models: name one", param="model")
        return name
    return models[0].name


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["tokens"])

    @routes.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        """Token ids of a text or a conversation."""
        async with services.registry.lease(only_model(services, body.model)) as model:
            ids = await model.loaded.text(lambda llm: token_ids(llm, body))
            names = None
            if body.return_token_strs:
                names = [model.loaded.llm.tokenizer.token_text(token) for token in ids]
            return {
                "count": len(ids),
                "max_model_len": model.loaded.llm.context_length,
                "tokens": ids,
                "token_strs": names,
            }

    @routes.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        """Text of token ids, control tokens by their names."""
        async with services.registry.lease(only_model(services, body.model)) as model:
            text = await model.loaded.text(lambda llm: llm.tokenizer.decode(llm.ids(body.tokens)))
            return {"prompt": text}

    @routes.get("/tokenizer_info")
    async def tokenizer_info(model: str | None = None) -> dict[str, Any]:
        """What a tokenizer's files say: begin and end tokens, the chat template."""
        async with services.registry.lease(only_model(services, model)) as served:
            return await served.loaded.text(_info)

    return routes


def _info(llm: LLM) -> dict[str, Any]:
    tokenizer, template = llm.tokenizer, llm.chat_template

    def named(token: int | None) -> str | None:
        return None if token is None else tokenizer.token_text(token)

    return {
        "bos_token": named(tokenizer.bos_id),
        "eos_token": named(tokenizer.eos_id),
        "pad_token": None,
        "add_bos_token": tokenizer.add_bos,
        "add_eos_token": tokenizer.add_eos,
        "chat_template": None if template is None else template.source,
        "model_max_length": llm.context_length,
        "vocab_size": tokenizer.vocab_size,
    }


DIALECT = Dialect(
    "tokenization", ("/tokenize", "/detokenize", "/tokenizer_info"), router, fmt.error_body
)
