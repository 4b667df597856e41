# SPDX-License-Identifier: Apache-2.0
"""`EndpointAsker`: tasks ask a model that a server elsewhere runs, over OpenAI's HTTP API.

Knows the routes: chat completions, ``/tokenize`` as vLLM and freehold have it, and freehold's
``/v1/classify``. Waits and asks again where a server is busy or gone for a moment. Knows one
endpoint; who asks which of several is `executors.endpoint`.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from freehold._llm_label_rule import EXACT, Precision
from freehold.documents.asking import Forms, LabelScores, Reply, Usage, spread
from freehold.documents.form_fields import form_fields
from freehold.documents.prompts import Messages
from freehold.errors import (
    AnswerError,
    ContextLengthError,
    FreeholdError,
    InvalidParameterError,
    JobError,
)
from freehold.types import Constraint

DEFAULT_CONCURRENCY = 16  # requests at one endpoint at a time
TIMEOUT = 600.0  # seconds for one answer
PATIENCE = 60.0  # seconds a server may be gone or busy before it counts as lost
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 15.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_REPLY = 64 << 20  # bytes; no answer to one document is longer
_COUNTS = 4096  # token counts remembered

T = TypeVar("T")


class EndpointLostError(JobError):
    """A server did not answer for as long as one waits for it. Another may do its work."""


class EndpointAsker:
    """Asks `model` at `url`, the address of an OpenAI-compatible API (``http://host:8000/v1``).

    Requests of one call go out together, `concurrency` of them at a time over all threads.
    `context_length`, where the server cannot say it. The key is sent to this address and to no
    other: redirects are not followed. Raises InvalidParameterError for what is no such address.
    """

    def __init__(
        self, url: str, model: str, *, api_key: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY, context_length: int | None = None,
        patience: float = PATIENCE,
    ) -> None:  # fmt: skip
        self.url, self.model = checked_url(url), model
        self._root = self.url.removesuffix("/v1")
        self._context, self._patience = context_length, patience
        if concurrency < 1:
            raise InvalidParameterError("an endpoint is asked at least one thing at a time")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # trust_env: a proxy or a .netrc would be somebody else to whom documents or keys go.
        self._http = httpx.Client(
            headers=headers, timeout=httpx.Timeout(TIMEOUT, connect=10.0), trust_env=False,
            limits=httpx.Limits(max_connections=concurrency + 2), follow_redirects=False,
        )  # fmt: skip
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="freehold-endpoint")
        self._counts: dict[str, int] = {}
        self._closing = threading.Event()

    def stop(self) -> None:
        """Whoever waits for a server that is busy or gone gives up."""
        self._closing.set()

    def close(self) -> None:
        """Let go of the connections."""
        self.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._http.close()

    # -- what an Asker is ------------------------------------------------------------------
    @cached_property
    def context_length(self) -> int:
        """Tokens of a conversation and its answer together. Raises JobError where neither the
        server nor the caller says it."""
        if self._context is not None:
            return self._context
        found = self._tokens({"prompt": "a"}).get("max_model_len")
        if not isinstance(found, int) or found < 1:
            raise self._strange("does not say how long a context may be", "--endpoint-context N")
        return found

    @cached_property
    def model_digest(self) -> str:
        """The digest of the model's files where the server tells it, as freehold's does: then a
        job is the same job wherever it is run. Else a digest of the model's name."""
        digest = self._card.get("digest")
        if isinstance(digest, str) and digest:
            return digest.removeprefix("sha256:")
        return hashlib.sha256(b"endpoint\0" + self.model.encode()).hexdigest()

    @cached_property
    def _card(self) -> dict[str, Any]:
        """What the server says of the model."""
        with suppress(ContextLengthError, AnswerError):
            self._tokens({"prompt": "a"})  # freehold tells of loaded models, and this loads it
        return self._json("GET", f"{self.url}/models/{self.model}")

    def count(self, messages: Messages) -> int:
        """Tokens of a rendered conversation, the opening of its answer included."""
        return self._count({"messages": messages})

    def count_text(self, text: str) -> int:
        """Tokens of a text by itself."""
        return self._count({"prompt": text, "add_special_tokens": False, "parse_special": False})

    def chat(
        self,
        conversations: Sequence[Messages],
        *,
        max_tokens: int | Sequence[int],
        constraint: Forms = None,
    ) -> list[Reply]:
        """A greedy answer to each."""
        limits, forms = spread(len(conversations), max_tokens, constraint)
        bodies = [
            {
                "model": self.model, "messages": messages, "temperature": 0, "max_tokens": limit,
                **form_fields(form, grounding=self._grounds(form)),
            }
            for messages, limit, form in zip(conversations, limits, forms, strict=True)
        ]  # fmt: skip
        return self._each(bodies, self._reply, lambda error: Reply(error=error))

    def label_logprobs(
        self, conversations: Sequence[Messages], labels: Sequence[str],
        precision: Precision = EXACT,
    ) -> list[LabelScores]:  # fmt: skip
        """How likely each is answered with each of the labels, by ``/v1/classify``."""
        bodies = [
            {"model": self.model, "messages": messages, "labels": list(labels)}
            for messages in conversations
        ]
        return self._each(bodies, self._scores, lambda error: LabelScores(error=error))

    def _grounds(self, form: Constraint | None) -> bool:
        """Whether this server can hold words to a text; asked only where it matters."""
        grounded = form is not None and form.kind == "grounded"
        return grounded and self._card.get("owned_by") == "freehold"

    # -- one request -------------------------------------------------------------------------
    def _each(
        self, bodies: Sequence[dict[str, Any]], ask: Callable[[dict[str, Any]], T],
        failed: Callable[[FreeholdError], T],
    ) -> list[T]:  # fmt: skip
        """Results in order; what the server finds wrong with one is that one's error."""

        def one(body: dict[str, Any]) -> T:
            try:
                return ask(body)
            except JobError:
                raise
            except FreeholdError as error:
                return failed(error)

        return list(self._threads.map(one, bodies))

    def _reply(self, body: dict[str, Any]) -> Reply:
        found = self._json("POST", f"{self.url}/chat/completions", body)
        try:
            choice = found["choices"][0]
            text, reason = choice["message"]["content"] or "", choice["finish_reason"]
        except (KeyError, IndexError, TypeError):
            raise AnswerError(f"{self.url} gave something that is no completion") from None
        if not isinstance(text, str):
            raise AnswerError(f"{self.url} gave an answer that is no text")
        if reason not in ("stop", "length"):
            raise AnswerError(f"the server ended its answer with {str(reason)!r:.40}")
        return Reply(text, reason, _usage(found.get("usage")))

    def _scores(self, body: dict[str, Any]) -> LabelScores:
        found = self._json("POST", f"{self.url}/classify", body)
        try:
            rows = {row["label"]: float(row["logprob"]) for row in found["data"][0]["scores"]}
            logprobs = tuple(rows[label] for label in body["labels"])
        except (KeyError, IndexError, TypeError, ValueError):
            raise AnswerError(f"{self.url} gave something that is no classification") from None
        return LabelScores(logprobs, _usage(found.get("usage")))

    def _count(self, what: dict[str, Any]) -> int:
        key = hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).hexdigest()
        known = self._counts.get(key)
        if known is None:
            found = self._tokens(what).get("count")
            if not isinstance(found, int):
                raise self._strange("does not count tokens", "use a server that has /tokenize")
            if len(self._counts) >= _COUNTS:
                self._counts.clear()
            known = self._counts[key] = found
        return known

    def _tokens(self, what: dict[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"{self._root}/tokenize", {"model": self.model, **what})

    def _json(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The object that came. Raises EndpointLostError after `patience`, JobError where every
        request would fare as this one did, and else what is wrong with this one."""
        began, wait = time.monotonic(), _FIRST_WAIT
        while True:
            least = 0.0
            try:
                status, headers, content = self._send(method, url, body)
                if status not in _BUSY:
                    return _object(url, status, content)
                why = f"answered {status}: {_said(content)}"
                least = _retry_after(headers)
            except httpx.HTTPError as error:
                why = str(error) or type(error).__name__
            pause = max(least, wait * random.uniform(0.5, 1.0))  # not all of them at once
            if time.monotonic() + pause - began > self._patience or self._closing.wait(pause):
                raise EndpointLostError(f"{self.url}: {why:.300}")
            wait = min(2 * wait, _LONGEST_WAIT)

    def _send(
        self, method: str, url: str, body: dict[str, Any] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body, which may be only so long."""
        with self._http.stream(method, url, json=body) as answer:
            content = bytearray()
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > _MAX_REPLY:
                    raise AnswerError(f"the server gave over {_MAX_REPLY:,} bytes for one document")
            return answer.status_code, answer.headers, bytes(content)

    def _strange(self, what: str, hint: str) -> JobError:
        return JobError(f"{self.url} {what}", hint=hint)


def _object(url: str, status: int, content: bytes) -> dict[str, Any]:
    """The object of an answer that is none of a busy server."""
    said = "" if status == 200 else _said(content)
    if status in (401, 403, 404, 405) or 300 <= status < 400:
        key = status in (401, 403)
        raise JobError(
            f"{url}: {status}: {said}",
            hint="set FREEHOLD_ENDPOINT_KEY" if key
            else "is there such a model, and does this server have this route?",
        )  # fmt: skip
    if status != 200:
        long = any(word in said.lower() for word in ("context", "too long", "maximum length"))
        kind = ContextLengthError if long else AnswerError
        raise kind(f"the server refused: {status}: {said}")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AnswerError(f"{url} answered with something that is no JSON object")
    return found


def checked_url(url: str) -> str:
    """An address without a slash at its end. Raises InvalidParameterError."""
    parts = urlsplit(url)
    try:
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment:
        raise InvalidParameterError(
            f"{url!r:.200} is no address of an API", hint="such as http://127.0.0.1:8080/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidParameterError(
            "a key does not belong into an address", hint="set FREEHOLD_ENDPOINT_KEY"
        )
    return url.rstrip("/")


def _usage(given: Any) -> Usage:
    def number(where: Any, name: str) -> int:
        value = where.get(name) if isinstance(where, Mapping) else None
        return value if isinstance(value, int) else 0

    details = given.get("prompt_tokens_details") if isinstance(given, Mapping) else None
    return Usage(
        number(given, "prompt_tokens"), number(details, "cached_tokens"),
        number(given, "completion_tokens"),
    )  # fmt: skip


def _said(content: bytes) -> str:
    """What a server says went wrong, short enough for a sentence."""
    try:
        body = json.loads(content)
        error = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
        text = error.get("message", "") if isinstance(error, dict) else str(error)
    except (ValueError, RecursionError):
        text = content[:2000].decode("utf-8", "replace")
    return " ".join(str(text).split())[:300] or "it does not say why"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds a server asks to wait; a date, or nonsense, is none."""
    try:
        return min(max(float(headers.get("retry-after", "")), 0.0), 60.0)
    except ValueError:
        return 0.0
