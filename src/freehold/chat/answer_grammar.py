# SPDX-License-Identifier: Apache-2.0
"""The grammar of a whole answer: a thought, then what was asked for, or calls of tools.

Knows how a model marks its thoughts and writes its calls (`AnswerFormat`), and says it in the
words of llguidance: a main grammar that refers to others by name. Compiles nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import llguidance

from freehold.chat.answer_format import AnswerFormat
from freehold.chat.grounded_json import grounded_grammar
from freehold.chat.json_schema import schema_grammar, unsupported
from freehold.chat.tokenizer import Tokenizer
from freehold.chat.tool_format import NUMBER, CallSyntax
from freehold.errors import ConstraintError, InvalidParameterError
from freehold.types import Constraint, ToolChoice

MAX_PATTERN = 64 * 1024  # characters of a regular expression
MAX_LARK = 128 * 1024  # of a grammar
MAX_CHOICES = 20_000
MAX_CHOICE_TEXT = 1024 * 1024  # characters of all of them
_TEXT = "TEXT: /(?s:.*)/"
_AUTO = ToolChoice()
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}

Part = dict[str, Any]


def constraint_grammar(constraint: Constraint) -> Part:
    """A member of llguidance's list of grammars; ConstraintError for what is none."""
    kind, value = constraint.kind, constraint.value
    if kind == "json":
        return schema_grammar({"type": "object"})
    if kind == "json_schema":
        return schema_grammar(value)
    if kind == "grounded":
        return grounded_grammar(value)
    if kind == "choice":
        return {"lark_grammar": f"start: {_choices(value)}"}
    if kind not in ("regex", "lark"):
        raise ConstraintError(f"there is no kind of constraint {kind!r:.40}")
    limit = MAX_PATTERN if kind == "regex" else MAX_LARK
    if not isinstance(value, str) or not value.strip():
        raise ConstraintError(f"a {kind} constraint is a text, not {value!r:.60}")
    if len(value) > limit:
        raise ConstraintError(f"the {kind} has {len(value):,} characters; {limit:,} are read")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ConstraintError(f"the {kind} holds a lone surrogate, which no encoding has")
    if kind == "lark":
        if re.search(r"^\s*[\w-]+\s*::=", value, re.MULTILINE):
            raise ConstraintError(
                "the grammar is written with ::= as in GBNF; grammars are read in Lark's notation"
            )
        if "%json" in value:  # none of what is asked of schemas would be asked of it
            raise ConstraintError("the grammar holds a schema with %json: ask for a schema instead")
        return {"lark_grammar": value}
    whole: Part = json.loads(llguidance.LLMatcher.grammar_from_regex(value))["grammars"][0]
    return {"lark_grammar": whole["lark_grammar"]}


def _choices(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ConstraintError("a choice constraint is a list of texts")
    if not all(isinstance(text, str) and text for text in value):
        raise ConstraintError("a choice constraint holds texts, none of them empty")
    if len(value) > MAX_CHOICES or sum(map(len, value)) > MAX_CHOICE_TEXT:
        raise ConstraintError(f"there are too many choices: {MAX_CHOICES:,} are the most")
    return " | ".join(_string(text) for text in dict.fromkeys(value))


def answer_grammar(
    answers: AnswerFormat,
    tokenizer: Tokenizer,
    *,
    prompt: str | None,
    constraint: Constraint | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    choice: ToolChoice = _AUTO,
) -> str | None:
    """llguidance's text for an answer; None where any text will do.

    `prompt` is the end of a rendered conversation; None: the answer continues a text, and has
    neither thoughts nor calls.

    Raises ConstraintError for a form that cannot be kept and InvalidParameterError where the
    model's way of calling tools cannot be forced.
    """
    body = None if constraint is None else constraint_grammar(constraint)
    if prompt is None:
        return None if body is None else json.dumps({"grammars": [body]})
    writer = _Writer(answers, tokenizer, prompt)
    forced = choice.mode in ("required", "named")
    offered = list(tools) if choice.mode != "none" else []
    calls = writer.syntax_for(offered, forced, constraint is not None)
    if calls is None and body is None:
        return None
    if calls is None:
        assert body is not None
        return writer.answer(body)
    if choice.mode == "named":
        offered = [tool for tool in offered if _function(tool).get("name") == choice.name]
        if not offered:
            raise InvalidParameterError(f"there is no tool {choice.name!r:.80}")
    return writer.with_calls(calls, offered, choice, None if forced else body)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def _strict(tool: Mapping[str, Any]) -> bool:
    return _function(tool).get("strict") is True or tool.get("strict") is True


class _Writer:
    """Rules of one answer's main grammar, and the grammars they refer to."""

    def __init__(self, answers: AnswerFormat, tokenizer: Tokenizer, prompt: str) -> None:
        self._answers = answers
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._rules: list[str] = [_TEXT]
        self._parts: list[Part] = []
        self._format = answers.tool_format
        self._opened = False  # the prompt has opened a thought

    def syntax_for(
        self, tools: Sequence[Mapping[str, Any]], forced: bool, constrained: bool
    ) -> CallSyntax | None:
        """How calls are written where the grammar has to know; None: leave them as they come."""
        if not tools:
            if forced:
                raise InvalidParameterError("tool_choice needs tools")
            return None
        found = self._format
        syntax = None if found is None else found.syntax
        strict = any(map(_strict, tools))
        if syntax is None or not (syntax.marker or forced):
            if forced or strict or constrained:
                name = "no known way" if found is None else f"the format {found.name!r}"
                what = "forced" if forced else "kept to a form"
                raise InvalidParameterError(
                    f"the model calls tools in {name}, which cannot be {what}",
                    hint="use tool_choice auto, without strict tools or a response format",
                )
            return None
        return syntax

    # -- answers ---------------------------------------------------------------------------------
    def answer(self, body: Part) -> str:
        """A thought, then the body."""
        thought = self._whole_thought()
        if not thought and not self._lead():
            return json.dumps({"grammars": [body]})
        return self._finish(f"{thought} {self._lead()} @{self._part('body', body)}")

    def with_calls(
        self, syntax: CallSyntax, tools: Sequence[Mapping[str, Any]], choice: ToolChoice,
        body: Part | None,
    ) -> str:  # fmt: skip
        """Calls, or with a body that instead; where neither has to be, text with calls in it."""
        heads = [self._head(syntax, i, tool) for i, tool in enumerate(tools)]
        self._rules.append(f"tool: {' | '.join(heads)}")
        after = self._literal(syntax.after)
        self._rules.append(f"call: {self._literal(syntax.before)} tool {after}")
        more = ""
        if choice.parallel and syntax.several:
            more = f"({self._literal(syntax.separator)} call)*"
        closes = self._literal(syntax.closes)
        if choice.mode in ("required", "named") or body is not None:
            thought = self._whole_thought()
            calls = f"{self._literal(syntax.opens)} call {more} {closes}"
            if body is None:
                return self._finish(f"{thought} {calls}")
            name = self._part("body", body)
            return self._finish(f"{thought} ({self._lead()} @{name} | {calls})")
        # Whatever the model writes where nothing is asked of it, up to the marker of a call.
        opens = self._literal((syntax.opens + syntax.before).removeprefix(syntax.marker))
        self._rules.append(f"calls: {opens} tool {after} {more} {closes}")
        apart = self._starts() if any(map(_strict, tools)) else ()
        return self._finish(self._free_answer(syntax.marker, apart))

    def _free_answer(self, marker: str, apart: Sequence[str]) -> str:
        """Symbols for any answer in which `marker` is followed by ``calls``."""
        thought, unended = self._thought()
        style = self._answers.reasoning
        ends = self._format is not None and self._format.ends_reasoning
        if not thought or style is None or ends or self._tokenizer.control_spans(marker):
            self._answer_rule("answer", marker, apart)
            return "answer"
        # A marker that is plain text may be written about in a thought, and is no call there.
        self._answer_rule("answer", marker, (*apart, style.start))
        either = f"{thought} answer | {unended} TEXT"
        if self._opened:
            return either
        if self._tokenizer.control_spans(style.start):
            return f"{either} | answer"
        start = re.sub(r"([^\w<> ])", r"\\\1", style.start)
        self._rules.append(f"UNTHOUGHT: TEXT & ~/(?s:\\s*{start}.*)/")
        self._answer_rule("unthought", marker, apart, first="UNTHOUGHT")
        return f"{either} | unthought"

    def _answer_rule(
        self, name: str, marker: str, apart: Sequence[str], first: str = "TEXT"
    ) -> None:
        """A rule for anything in which `marker` is followed by ``calls``; its first text is of the
        kind `first`."""
        other, until = self._until(marker, apart, first)
        more = ""
        if other:
            more = f" | {first} {other} answer | {other} answer"
        self._rules.append(f"{name}: {first} | {until} calls{more}")

    def _head(self, syntax: CallSyntax, index: int, tool: Mapping[str, Any]) -> str:
        function = _function(tool)
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidParameterError("a tool has no name")
        schema = function.get("parameters", function.get("input_schema")) or _NO_ARGUMENTS
        if isinstance(schema, Mapping) and "type" not in schema:
            schema = {"type": "object", **schema}
        reason = unsupported(schema)
        if reason is not None:
            if _strict(tool):
                raise ConstraintError(f"the tool {name!r:.80} is strict, and {reason}")
            schema = {"type": "object"}  # no promise was made but that it is one
        part = self._part(f"arguments{index}", schema_grammar(schema))
        written = json.dumps(name)[1:-1] if syntax.before.endswith('"') else name
        # A name is text, whatever it looks like.
        return f"{_string(written)} {self._literal(syntax.between)} @{part}"

    # -- parts -----------------------------------------------------------------------------------
    def _thought(self) -> tuple[str, str]:
        """The symbols of a thought before the answer, "" where there is none; and those of one that
        has no end, but for its last text."""
        frame = None if self._format is None else self._format.frame
        if self._format is not None and self._format.drive is not None and frame is None:
            raise ConstraintError(
                f"the model's answers are written in the format {self._format.name!r}, which "
                "cannot be kept to another form"
            )
        style = self._answers.reasoning
        if frame is not None:
            start, end, opened = *frame.thought, False
        elif style is None:
            return "", ""
        else:
            start, end, opened = style.start, style.end, style.opened_by(self._prompt)
            if not opened and self._prompt.rstrip().endswith(style.end):
                return "", ""  # the template has closed it before it began
        other, until = self._until(end)
        free = ""
        if other and frame is None:  # in a frame, control tokens begin other parts of the answer
            free = f"({other} | TEXT {other})*"
        rest = f"{free} {until}" + (" /[ \\n]{0,2}/" if frame is None else "")
        self._opened = opened
        begins = "" if opened else self._literal(start)
        return f"{begins} {rest}", f"{begins} {free}"

    def _whole_thought(self) -> str:
        """Symbols of a thought where the prompt has opened one, else of one or none."""
        thought, _ = self._thought()
        return thought if self._opened or not thought else f"({thought})?"

    def _lead(self) -> str:
        frame = None if self._format is None else self._format.frame
        return "" if frame is None else self._literal(frame.answer)

    def _until(self, marker: str, apart: Sequence[str] = (), text: str = "TEXT") -> tuple[str, str]:
        """Symbols for a control token that may stand in text, "" if there is none, and for text
        that ends with the first `marker`. A control token that begins one of `apart` may not."""
        spans = self._tokenizer.control_spans(marker)
        if spans and spans[0][0] > 0:
            raise ConstraintError(f"nothing can be made to end with {marker!r:.60}")
        number = len(self._rules)
        firsts = [self._tokenizer.control_spans(literal)[:1] for literal in (marker, *apart)]
        meant = {span[0][2] for span in firsts if span and span[0][0] == 0}
        others = self._tokenizer.special_ids() - meant - set(self._tokenizer.eos_ids)
        other = ""
        if others:
            other = f"other{number}"
            self._rules.append(f"{other}: <[{_ranges(others)}]>")
        if spans:  # no text holds a control token
            return other, f"{text} {self._literal(marker)}"
        self._rules.append(f"until{number}[suffix={_string(marker)}]: {text}")
        return other, f"until{number}"

    def _starts(self) -> tuple[str, ...]:
        return () if self._format is None else self._format.starts

    def _literal(self, text: str) -> str:
        """Symbols for exactly this text; names of control tokens stand for those."""
        symbols: list[str] = []
        at = 0
        for start, end, token in [*self._tokenizer.control_spans(text), (len(text), 0, -1)]:
            for i, plain in enumerate(text[at:start].split(NUMBER)):
                symbols += ["/[0-9]{1,2}/"] * (i > 0) + [_string(plain)] * bool(plain)
            if token >= 0:
                symbols.append(f"<[{token}]>")
            at = end
        return " ".join(symbols)

    def _part(self, name: str, part: Part) -> str:
        self._parts.append({"name": name, **part})
        return name

    def _finish(self, start: str) -> str:
        main = "\n".join([f"start: {start}", *self._rules])
        return json.dumps({"grammars": [{"name": "main", "lark_grammar": main}, *self._parts]})


def _ranges(ids: Collection[int]) -> str:
    """Token ids as the grammar lists them: ``3,7-9``."""
    parts: list[list[int]] = []
    for token in sorted(ids):
        if parts and parts[-1][1] == token - 1:
            parts[-1][1] = token
        else:
            parts.append([token, token])
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in parts)


def _string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConstraintError("a text holds a lone surrogate, which no encoding has") from None
    return json.dumps(text, ensure_ascii=False)
