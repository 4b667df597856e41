# SPDX-License-Identifier: Apache-2.0
"""One model's conversations: as token ids, with the form of their answers and what takes these
apart.

Knows the model's template and how it writes thoughts and calls, as far as its files tell; runs
nothing. May be asked on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from freehold._llm_grammar import GrammarCompiler
from freehold._llm_inputs import Constraints, is_single, per_constraint
from freehold._llm_parts import Parts
from freehold._llm_request import Asked, Batch
from freehold.chat.answer_format import AnswerFormat, load_answer_format, prompt_tail
from freehold.chat.answer_grammar import answer_grammar
from freehold.chat.output_parser import OutputParser
from freehold.chat.template import (
    TOOL_TEMPLATE,
    ChatTemplate,
    chat_template_sources,
    encode_chat,
    load_chat_template,
)
from freehold.chat.thought_limit import ThoughtLimit
from freehold.chat.tokenizer import Tokenizer
from freehold.engine.structured import Grammar
from freehold.errors import InvalidParameterError, TemplateError
from freehold.types import Constraint, Message, ToolChoice


class Conversations:
    """What the docstrings of `LLM`'s methods promise about conversations and forms of answers."""

    def __init__(self, parts: Parts) -> None:
        self._path, self._checkpoint, self._tokens = parts.path, parts.checkpoint, parts.tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises TokenizerError when the model came without one."""
        return self._tokens.tokenizer

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The model's chat template, or None."""
        return load_chat_template(self._checkpoint, self.tokenizer)

    @cached_property
    def _tool_template(self) -> ChatTemplate | None:
        """The template for conversations with tools: its own one where the model has one."""
        if TOOL_TEMPLATE not in chat_template_sources(self._checkpoint):
            return self.template
        return load_chat_template(self._checkpoint, self.tokenizer, name=TOOL_TEMPLATE)

    @cached_property
    def answer_format(self) -> AnswerFormat:
        """How the model writes reasoning and tool calls."""
        return load_answer_format(self._checkpoint, self._tokens.known)

    @cached_property
    def visible_ids(self) -> frozenset[int]:
        """Control tokens that a parser of answers has to see."""
        return self.answer_format.visible_ids(self.tokenizer)

    @cached_property
    def grammars(self) -> GrammarCompiler:
        """What compiles forms over the model's tokens."""
        return GrammarCompiler(self.tokenizer, self._tokens.vocab_size)

    # -- prompts -------------------------------------------------------------------------------

    def ids(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> list[int]:  # fmt: skip
        """The conversation rendered, the opening of its answer included."""
        template = self.template if tools is None else self._tool_template
        if template is None:
            raise TemplateError(
                f"{self._path}: the model has no chat template",
                hint="use generate (freehold run) to continue a text",
            )
        return encode_chat(self.tokenizer, template.render(messages, tools=tools, **variables))

    def answer_start(self, messages: Sequence[Message]) -> list[int]:
        """The conversation up to where the visible answer begins: a thought that the template
        opens is closed again at once."""
        ids = self.ids(messages, None, {"enable_thinking": False})
        style = self.answer_format.reasoning
        if style is not None and style.opened_by(prompt_tail(self.tokenizer, ids)):
            closing = f"{style.end}\n\n"
            ids += self.tokenizer.encode(closing, add_special=False, parse_special=True)
        return ids

    def asked(
        self, messages: Sequence[Message] | Sequence[Sequence[Message]], *,
        tools: Sequence[Mapping[str, Any]] | None, choice: ToolChoice, parse: bool | None,
        constraint: Constraints, variables: Mapping[str, Any],
    ) -> Batch:  # fmt: skip
        """All that one conversation, or a list of them, asks of the engine."""
        if not messages:
            raise InvalidParameterError("chat needs at least one message")
        single = isinstance(messages[0], Mapping)
        conversations: Any = [messages] if single else messages
        offered = None if choice.mode == "none" else tools
        prompts = [self.ids(each, offered, variables) for each in conversations]
        forms = per_constraint(constraint, len(prompts))
        grammars = [
            self.grammar(ids, form, offered or (), choice)
            for ids, form in zip(prompts, forms, strict=True)
        ]
        asked = []
        for ids, form, grammar in zip(prompts, forms, grammars, strict=True):
            wanted = parse or (parse is None and (tools is not None or form is not None))
            asked.append(Asked(ids, grammar, self.parser(ids, form, offered) if wanted else None))
        return Batch(asked, single, continues=False)

    def texts(self, prompts: Any, constraint: Constraints) -> Batch:
        """The same for one prompt, or a list of them, that answers continue."""
        single = is_single(prompts)
        ids = [self._tokens.ids(each) for each in ([prompts] if single else prompts)]
        forms = per_constraint(constraint, len(ids))
        asked = [
            Asked(each, self.text_grammar(form)) for each, form in zip(ids, forms, strict=True)
        ]
        return Batch(asked, single, continues=True)

    # -- answers -------------------------------------------------------------------------------

    def text_grammar(self, constraint: Constraint | None) -> Grammar | None:
        """The form of what continues a text."""
        if constraint is None:
            return None
        text = answer_grammar(
            AnswerFormat(None, None), self.tokenizer, prompt=None, constraint=constraint
        )
        return None if text is None else self.grammars.compile(text)

    def grammar(
        self, prompt: Sequence[int], constraint: Constraint | None,
        tools: Sequence[Mapping[str, Any]], choice: ToolChoice,
    ) -> Grammar | None:  # fmt: skip
        """The form of an answer to a rendered conversation; None: any text will do."""
        if constraint is None and not tools and choice.mode in ("auto", "none"):
            return None
        text = answer_grammar(
            self.answer_format, self.tokenizer, prompt=prompt_tail(self.tokenizer, prompt),
            constraint=constraint, tools=tools, choice=choice,
        )  # fmt: skip
        return None if text is None else self.grammars.compile(text)

    def parser(
        self, prompt: Sequence[int], constraint: Constraint | None,
        tools: Sequence[Mapping[str, Any]] | None, *, calls: bool = True,
    ) -> OutputParser | None:  # fmt: skip
        """What takes the answer apart; see `LLM.chat_parser`."""
        answers = self.answer_format
        if not calls or (constraint is not None and not tools):
            answers = answers.thought_only()
        if answers.plain:
            return None
        return self.parser_of(prompt, answers, tools=tools)

    def parser_of(
        self, prompt: Sequence[int], answers: AnswerFormat | None = None, **options: Any
    ) -> OutputParser:
        """What takes an answer apart that is written in this way, or in the model's own."""
        tail = prompt_tail(self.tokenizer, prompt)
        return (answers or self.answer_format).parser(tail, **options)

    def thought_limit(self, prompt: Sequence[int], budget: int) -> ThoughtLimit:
        """See `LLM.thought_limit`."""
        tail = prompt_tail(self.tokenizer, prompt)
        return ThoughtLimit(self.answer_format, self.tokenizer, tail, budget)
