# SPDX-License-Identifier: Apache-2.0
"""Vocabularies for every syntax of tool calls, and answers drawn from its grammar."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from chat_data import gguf_metadata_tokenizer

import tiny_chat
from freehold._llm_grammar import GrammarCompiler
from freehold.chat.answer_format import AnswerFormat
from freehold.chat.answer_grammar import answer_grammar
from freehold.chat.output_parser import OutputParser
from freehold.chat.parse_events import ParsedOutput
from freehold.chat.reasoning import ReasoningStyle
from freehold.chat.tokenizer import Tokenizer
from freehold.chat.tool_formats import tool_formats
from freehold.engine.structured import Grammar
from freehold.types import Constraint, ToolChoice

WITH_SYNTAX = sorted(name for name, f in tool_formats().items() if f.syntax is not None)
NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|odd|>")
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 12},
                    "days": {"type": "integer", "minimum": 1, "maximum": 30},
                    "units": {"enum": ["metric", "imperial"]},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "note-2",
            "parameters": {
                "type": "object",
                "properties": {"tags": {"type": "array", "items": {"type": "boolean"},
                                        "maxItems": 3}, "deep": {"type": ["object", "null"]}},
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]  # fmt: skip


@dataclass(frozen=True)
class CallModel:
    """A tokenizer, and how its model would write answers."""

    tokenizer: Tokenizer
    answers: AnswerFormat
    compiler: GrammarCompiler

    @property
    def end(self) -> int:
        return self.tokenizer.eos_ids[0]

    def grammar(
        self, choice: ToolChoice, prompt: str = "", tools=TOOLS, body: Constraint | None = None
    ) -> Grammar | None:
        text = answer_grammar(
            self.answers, self.tokenizer, prompt=prompt, constraint=body, tools=tools, choice=choice
        )
        return None if text is None else self.compiler.compile(text)

    def ids(self, text: str) -> list[int]:
        """Tokens of an answer, the names of control tokens in it standing for those."""
        return list(self.tokenizer.encode(text, add_special=False, parse_special=True))

    def text(self, ids) -> str:
        return self.tokenizer.decode([i for i in ids if i not in self.tokenizer.eos_ids])

    def parse(self, text: str, prompt: str = "", tools=TOOLS) -> ParsedOutput:
        """The answer's parts, read letter by letter."""
        parser: OutputParser = self.answers.parser(prompt, tools=tools)
        for char in text:
            parser.feed(char)
        parser.finish()
        return parser.result()


@functools.cache
def call_model(
    name: str | None, reasoning: ReasoningStyle | None = None, *, control: bool
) -> CallModel:
    """A model of one syntax, whose markers are control tokens, or text like any other."""
    tool_format = None if name is None else tool_formats()[name]
    answers = AnswerFormat(tool_format, reasoning)
    markers = sorted(m for m in answers.markers() if not any(c.isspace() for c in m))
    names = [*NAMES, *(m for m in markers if control and _looks_special(m))]
    tokens = [*tiny_chat.byte_tokens(), "th", *names]
    tokenizer = gguf_metadata_tokenizer(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [1] * 257 + [3] * len(names),
            "tokenizer.ggml.merges": ["t h"],
            "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        }
    )
    return CallModel(tokenizer, answers, GrammarCompiler(tokenizer, tokenizer.vocab_size))


def _looks_special(marker: str) -> bool:
    return (marker[0], marker[-1]) in (("<", ">"), ("[", "]"), ("\uff5c", "\uff5c"))


def drawn(model: CallModel, grammar: Grammar, rng: random.Random, limit: int = 2000) -> list[int]:
    """An answer out of a grammar, the end and what closes JSON taken more often than else."""
    constraint = grammar.start()
    ends = set(model.tokenizer.eos_ids)
    closers = {*ends, *(model.ids(c)[0] for c in '"]}')}
    out: list[int] = []
    while not constraint.done and not ends & set(out):
        assert len(out) < limit, "an answer without an end"
        allowed = np.flatnonzero(constraint.mask()).tolist()
        closing = [t for t in allowed if t in closers]
        out.append(rng.choice(closing if closing and rng.random() < 0.4 else allowed))
        constraint.accept(out[-1])
    return out


def arguments_text(value: Any) -> str:
    """Arguments in our layout."""
    return json.dumps(value, ensure_ascii=False)
