# SPDX-License-Identifier: Apache-2.0
"""A job's requests answered elsewhere: what vLLM's ``run-batch`` reads and what it gives back.

A request that has no reply yet is written down, one that has is answered by it. So a task that asks
one thing after another is handed over step by step. Knows lines of batch files and the journal's
replies; what a task asks is found out by letting it ask.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freehold._llm_label_rule import EXACT, Precision
from freehold.documents.answering import result_of
from freehold.documents.asking import Asker, Forms, LabelScores, Reply, Usage, spread
from freehold.documents.form_fields import form_fields
from freehold.documents.jobs.items import Item, ItemResult, dumps
from freehold.documents.jobs.journal import Journal
from freehold.documents.jobs.requests import BatchTask, request_of, usage_of
from freehold.documents.jobs.runner import JobSummary
from freehold.documents.prompts import Messages
from freehold.errors import AnswerError, DocumentError, JobError
from freehold.formats.batch_requests import raw_lines
from freehold.types import Constraint

_DIGEST = re.compile(r"[0-9a-f]{64}")
_GROUP = 200  # replies kept with one commit


@dataclass(slots=True)
class Handover:
    """One time of handing over. `write` takes lines; without it nothing is written down."""

    model: str  # its name where it is asked
    write: Callable[[str], Any] | None = None
    journal: Journal | None = None
    summary: JobSummary | None = None
    wanted: set[str] = field(default_factory=set)  # digests of requests that have no reply

    def want(self, request: str, custom_id: str, url: str, body: dict[str, Any]) -> None:
        """A request has no reply: write it down, once."""
        if request in self.wanted:
            return
        self.wanted.add(request)
        if self.write is not None:
            line = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
            self.write(dumps(line) + "\n")

    def reply(self, request: str) -> Any:
        """The body of the answer that came to a request, or None."""
        assert self.journal is not None
        return self.journal.reply(request)

    def executor(self, task: Any, asker: Any) -> AwayExecutor:
        """What answers a task with the replies that are there. Raises JobError where nobody is
        here who could cut documents for the model."""
        if asker is None and not isinstance(task, BatchTask):
            raise JobError(
                "a job whose model is on a cluster cannot be handed over from here",
                hint="give the command a --model of this machine and no --executor",
            )
        return AwayExecutor(self, asker)


class AwayExecutor:
    """Gives back what the replies answer, and leaves the rest."""

    leaves_items = True

    def __init__(self, handover: Handover, asker: Any) -> None:
        self._handover, self._asker = handover, asker

    def run(self, task: Any, blocks: Iterable[Sequence[Item]]) -> Generator[Sequence[ItemResult]]:
        """Results of those items that have all their replies."""
        answer = self._line if isinstance(task, BatchTask) else self._document
        for block in blocks:
            found = [answer(task, item) for item in block]
            yield [result for result in found if result is not None]

    def _line(self, task: Any, item: Item) -> ItemResult | None:
        """An item that is a request by itself: its digest is its content's."""
        content = str(item.content_sha256)
        body = self._handover.reply(content)
        if body is not None:
            value = {"status_code": 200, "body": body}
            return ItemResult(item.id, content, "ok", value, None, usage_of(body))
        url, asked = request_of(item)
        self._handover.want(content, item.id, url, {"model": self._handover.model, **asked})
        return None

    def _document(self, task: Any, item: Item) -> ItemResult | None:
        """An item whose task asks what it has to ask; without a reply to everything it is left."""
        asker = AwayAsker(self._handover, self._asker)
        started = time.monotonic()
        (answer,) = task.answer(asker, [item.document])
        if asker.missing:
            return None
        return result_of(item, answer, time.monotonic() - started)


class AwayAsker:
    """Answers a task with the replies that are there, and writes down what has none.

    Lengths are counted by the model that the job names, so pieces of documents are cut for it.
    """

    def __init__(self, handover: Handover, asker: Asker) -> None:
        self._handover, self._asker = handover, asker
        self.missing = 0  # requests without a reply

    @property
    def context_length(self) -> int:
        """Tokens of a conversation and its answer together."""
        return self._asker.context_length

    @property
    def model_digest(self) -> str:
        """Of the model that the job names."""
        return self._asker.model_digest

    def count(self, messages: Messages) -> int:
        """Tokens of a rendered conversation."""
        return self._asker.count(messages)

    def count_text(self, text: str) -> int:
        """Tokens of a text by itself."""
        return self._asker.count_text(text)

    def chat(
        self, conversations: Sequence[Messages], *, max_tokens: int | Sequence[int],
        constraint: Forms = None,
    ) -> list[Reply]:  # fmt: skip
        """The replies; an error stands for one that is not there."""
        limits, forms = spread(len(conversations), max_tokens, constraint)
        return [
            self._reply(messages, limit, form)
            for messages, limit, form in zip(conversations, limits, forms, strict=True)
        ]

    def label_logprobs(
        self, conversations: Sequence[Messages], labels: Sequence[str],
        precision: Precision = EXACT,
    ) -> list[LabelScores]:  # fmt: skip
        """No batch file can ask for these."""
        raise JobError(
            "labels are scored without decoding, which no batch file can ask for",
            hint="run the job here, or with --endpoint",
        )

    def _reply(self, messages: Messages, limit: int, form: Constraint | None) -> Reply:
        asked = {"messages": messages, "max_tokens": limit, "temperature": 0.0, **form_fields(form)}
        text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        request = hashlib.sha256(text.encode()).hexdigest()
        body = self._handover.reply(request)
        if body is not None:
            return _read(body)
        self.missing += 1
        body = {"model": self._handover.model, **asked}
        self._handover.want(request, request, "/v1/chat/completions", body)
        return Reply(error=AnswerError("not answered yet"))


def _read(body: Any) -> Reply:
    """The reply in the body of a chat completion."""
    try:
        choice = body["choices"][0]
        text, reason = choice["message"]["content"] or "", choice.get("finish_reason")
        if not isinstance(text, str):
            raise TypeError
    except (KeyError, IndexError, TypeError, AttributeError):
        return Reply(error=AnswerError("the result that came back is no chat completion"))
    counts = usage_of(body)
    usage = Usage(
        counts.get("prompt_tokens", 0), counts.get("cached_tokens", 0),
        counts.get("answer_tokens", 0),
    )  # fmt: skip
    return Reply(text, "length" if reason == "length" else "stop", usage)


@dataclass(slots=True)
class Taken:
    """What a file of results held."""

    replies: int = 0
    failed: int = 0  # answered with an error: still wanted
    unknown: int = 0  # of no request of this job
    damaged: int = 0  # lines that are no results: torn, or of something else
    first_error: str = ""


def take_results(path: Path, journal: Journal) -> Taken:
    """Keep the replies in a file of results, in whatever order they are; taking one twice does no
    harm. Raises DocumentError where the file cannot be read."""
    taken = Taken()
    group: list[tuple[str, Any]] = []
    try:
        with path.open("rb") as file:
            for _, raw in raw_lines(file):
                reply = _reply(raw, journal, taken)
                if reply is not None:
                    group.append(reply)
                    taken.replies += 1
                if len(group) == _GROUP:
                    journal.add_replies(group)
                    group = []
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    if group:
        journal.add_replies(group)
    return taken


def _reply(raw: bytes | None, journal: Journal, taken: Taken) -> tuple[str, Any] | None:
    try:
        line = json.loads(raw or b"")
    except (ValueError, RecursionError):
        line = None
    custom_id = line.get("custom_id") if isinstance(line, dict) else None
    if not isinstance(custom_id, str):
        taken.damaged += 1
        return None
    response, error = line.get("response"), line.get("error")
    body = response.get("body") if isinstance(response, dict) else None
    status = response.get("status_code", 200) if isinstance(response, dict) else None
    if error or status != 200 or not isinstance(body, dict):
        taken.failed += 1
        taken.first_error = taken.first_error or f"{custom_id}: {error or body}"[:300]
        return None
    request = journal.content_of(custom_id)  # of an item that is a request by itself
    if request is None and _DIGEST.fullmatch(custom_id):
        request = custom_id
    if request is None:
        taken.unknown += 1
        return None
    return request, body
