# SPDX-License-Identifier: Apache-2.0
"""Chat templates: messages → the text the model was trained on, and that text → ids.

Knows the variables templates expect and where model files keep them. A control token spelled in
a *message* must stay text, while the same token printed by the *template* must become that token.
So, before rendering, one character of each such spelling in the caller's data is preceded by a
mark; after rendering the marks are taken out and the characters remembered as protected: no
control token may be read across one. Sandboxing is `sandbox.py`, limits are `budget.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from freehold.chat.budget import Budget, LimitExceeded, plain
from freehold.chat.matcher import LiteralMatcher
from freehold.chat.sandbox import BUDGET, TemplateEnvironment, TemplateRefusal
from freehold.chat.tokenizer import Tokenizer
from freehold.chat.tokenizer_files import read_json, read_text
from freehold.errors import TemplateError
from freehold.types import Message

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint

MAX_SOURCE = 65_536  # characters; the longest template in use has 17,000
MAX_OUTPUT = 4_000_000  # characters, plus 8 per input character
TOOL_TEMPLATE = "tool_use"  # what vendors call the template for conversations with tools
_MARKS = range(0xF0000, 0xF1000)  # private use, plane 15


class RenderedChat(str):
    """A rendered prompt that remembers which characters no control token may be read across."""

    protected: tuple[int, ...]  # ascending character positions

    def __new__(cls, text: str, protected: Sequence[int] = ()) -> RenderedChat:
        self = super().__new__(cls, text)
        self.protected = tuple(protected)
        return self


class ChatTemplate:
    """A compiled template.

    Args:
        source: Jinja text.
        bos_token, eos_token: what `{{ bos_token }}` and `{{ eos_token }}` print.
        special_texts: control tokens to be kept out of message contents (see `encode_chat`).

    Raises:
        TemplateError: the source is too long, no valid template, or wants other files.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        special_texts: Iterable[str] = (),
    ) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(
                f"the chat template has {len(source)} characters, more than {MAX_SOURCE}"
            )
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._guard = _Guard(special_texts)
        with _Limits(Budget(), "cannot be compiled"):
            self._template = _environment().from_string(source)

    def render(
        self,
        messages: Iterable[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> RenderedChat:
        """The prompt text. TemplateError on any failure or exceeded limit."""
        budget = Budget()
        with _Limits(budget, "failed"):
            given = {**plain(variables), "messages": plain(list(messages))}
            given["add_generation_prompt"] = add_generation_prompt
            if tools is not None:
                given["tools"] = plain(tools)
            marked, mark = self._guard.mark(given, self.source)
            size = budget.start(marked)
            text = self._run({**self._tokens, **marked}, MAX_OUTPUT + 8 * size)
        return _without_marks(text, mark)

    def _run(self, variables: Mapping[str, Any], limit: int) -> str:
        context = self._template.new_context(dict(variables))
        parts, size = [], 0
        for part in self._template.root_render_func(context):
            size += len(part)
            if size > limit:
                raise LimitExceeded(f"it prints more than {limit} characters")
            parts.append(part)
        return "".join(parts)


class _Guard:
    """Finds spellings of control tokens in the caller's data and marks them."""

    def __init__(self, special_texts: Iterable[str]) -> None:
        texts = [text for text in special_texts if text]
        self._matcher = LiteralMatcher(texts)
        # A spelling may be put together from the end of one content and the start of the next.
        self._beginnings = {text[:k] for text in texts for k in range(1, len(text))}
        self._longest = max(map(len, texts), default=0)

    def mark(self, variables: dict[str, Any], source: str) -> tuple[dict[str, Any], str | None]:
        """The variables with marks put in, and the mark used (None: nothing to mark)."""
        strings = list(_strings(variables))
        if not any(self._places(text) for text in strings):
            return variables, None
        everything = "".join((source, *strings))
        mark = next((chr(c) for c in _MARKS if chr(c) not in everything), None)
        if mark is None:
            raise LimitExceeded("the messages use up the private characters of plane 15")

        def put(value: Any) -> Any:
            if isinstance(value, str):
                for place in reversed(self._places(value)):
                    value = value[:place] + mark + value[place:]
                return value
            if isinstance(value, dict):
                return {put(k): put(v) for k, v in value.items()}
            return [put(item) for item in value] if isinstance(value, list) else value

        return {k: put(v) for k, v in variables.items()}, mark

    def _places(self, text: str) -> list[int]:
        """Positions of the characters to protect, ascending."""
        places = []
        start = 0
        while (found := next(self._matcher.finditer(text, start), None)) is not None:
            left, right = found
            places.append(left + (right - left > 1))
            start = left + 1
        end = len(text.rstrip())
        for k in range(1, min(end, self._longest - 1) + 1):
            if text[end - k : end] in self._beginnings:
                places.append(end - 1)
                break
        return sorted(set(places))


def _strings(value: Any) -> Iterator[str]:
    """Every string inside plain data, keys included."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack += item.keys()
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def _without_marks(text: str, mark: str | None) -> RenderedChat:
    if mark is None:
        return RenderedChat(text)
    protected = []
    pieces = text.split(mark)
    position = 0
    for piece in pieces[:-1]:
        position += len(piece)
        protected.append(position)
    return RenderedChat("".join(pieces), sorted(set(protected)))


@functools.cache
def _environment() -> TemplateEnvironment:
    return TemplateEnvironment()


class _Limits:
    """Set the budget, and turn whatever a template provokes into TemplateError."""

    def __init__(self, budget: Budget, verb: str) -> None:
        self._budget = budget
        self._verb = verb

    def __enter__(self) -> None:
        self._token = BUDGET.set(self._budget)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        BUDGET.reset(self._token)
        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, TemplateRefusal):
            raise TemplateError(
                f"the chat template refuses these messages: {error}",
                hint="change the messages, or use another template",
            ) from None
        if isinstance(error, LimitExceeded):
            raise TemplateError(f"the chat template was stopped: {error}") from None
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)[:300]
        line = ""
        if isinstance(error, jinja2.TemplateSyntaxError):
            line = f" (line {error.lineno})"
        raise TemplateError(
            f"the chat template {self._verb}{line}: {type(error).__name__}: {reason}"
        ) from None


def encode_chat(tokenizer: Tokenizer, rendered: str) -> list[int]:
    """Ids of a rendered chat: control tokens are read where the template printed them.

    Give it what `ChatTemplate.render` returned, of a template that knows the tokenizer's control
    tokens (`load_chat_template` sees to that). A plain `str` counts as written by the template
    throughout. The begin token is put in front unless the template printed it.
    """
    protected = rendered.protected if isinstance(rendered, RenderedChat) else ()
    spans = []
    start = 0
    for position in protected:
        spans.append((start, position))
        start = position + 1
    spans.append((start, len(rendered)))
    return tokenizer.encode_spans(str(rendered), spans)


def load_chat_template(
    checkpoint: Checkpoint, tokenizer: Tokenizer, *, name: str | None = None
) -> ChatTemplate | None:
    """The checkpoint's template, or None where it has none.

    GGUF: `tokenizer.chat_template`, or `tokenizer.chat_template.NAME`. A directory:
    `chat_template.jinja` (or `additional_chat_templates/NAME.jinja`), else `chat_template` in
    `tokenizer_config.json` (a text, or a list of named ones). Raises TemplateError for a `name`
    that is not there.
    """
    found = chat_template_sources(checkpoint)
    if name is not None and name not in found:
        names = ", ".join(sorted(found)) or "none"
        raise TemplateError(f"there is no chat template {name!r:.60}", hint=f"there are: {names}")
    source = found.get(name or "default")
    if source is None:
        return None

    def text_of(token_id: int | None) -> str:
        return "" if token_id is None else tokenizer.token_text(token_id)

    return ChatTemplate(
        source,
        bos_token=text_of(tokenizer.bos_id),
        eos_token=text_of(tokenizer.eos_id),
        special_texts=[tokenizer.token_text(i) for i in tokenizer.special_ids()],
    )


def chat_template_sources(checkpoint: Checkpoint) -> dict[str, str]:
    """Every chat template by name; the usual one is called "default"."""
    if checkpoint.format == "gguf":
        prefix = "tokenizer.chat_template"
        found = {
            key.removeprefix(prefix).removeprefix(".") or "default": value
            for key, value in checkpoint.metadata.items()
            if key == prefix or key.startswith(prefix + ".")
        }
    else:
        found = _sources_in(checkpoint.directory)
    for key, value in found.items():
        if not isinstance(value, str):
            raise TemplateError(f"the chat template {key!r:.60} is no text")
    return found


def _sources_in(directory: Path) -> dict[str, Any]:
    listed = read_json(directory, "tokenizer_config.json").get("chat_template")
    if listed is None:  # written by some multi-modal models
        listed = read_json(directory, "chat_template.json").get("chat_template")
    if isinstance(listed, list):
        found = {
            str(entry.get("name", "default")): entry.get("template")
            for entry in listed
            if isinstance(entry, Mapping)
        }
    else:
        found = {} if listed is None else {"default": listed}
    single = directory / "chat_template.jinja"
    if single.is_file():
        found["default"] = read_text(single)
    more = directory / "additional_chat_templates"
    if more.is_dir():
        for path in sorted(more.glob("*.jinja")):
            found[path.stem] = read_text(path)
    return found
