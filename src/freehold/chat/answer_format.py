# SPDX-License-Identifier: Apache-2.0
"""How one model writes its answers: its reasoning style and its tool-call syntax, found once.

Knows where the evidence lies (chat templates, the vocabulary's special texts). What the parts mean
is `reasoning.py` and `tool_formats/`; taking answers apart is `output_parser.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from freehold.chat.output_parser import OutputParser
from freehold.chat.reasoning import ReasoningStyle, detect_reasoning
from freehold.chat.template import chat_template_sources
from freehold.chat.tokenizer import Tokenizer
from freehold.chat.tool_format import Evidence, ToolFormat
from freehold.chat.tool_formats import detect_tool_format, tool_format
from freehold.chat.vocab import TokenKind

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint

_PROMPT_TAIL = 64  # tokens of the prompt that can open the reasoning


@dataclass(frozen=True)
class AnswerFormat:
    """Reasoning style and tool format of a model; either may be None."""

    tool_format: ToolFormat | None
    reasoning: ReasoningStyle | None

    @property
    def plain(self) -> bool:
        """Whether answers are text and nothing else."""
        return self.tool_format is None and self.reasoning is None

    @property
    def thinks(self) -> bool:
        """Whether answers may hold reasoning."""
        channels = self.tool_format is not None and self.tool_format.drive is not None
        return self.reasoning is not None or channels

    def thought_only(self) -> AnswerFormat:
        """The format of answers that hold a thought at their beginning and else just text."""
        if self.tool_format is not None and self.tool_format.drive is not None:
            return self  # it knows where the text is
        style = self.reasoning
        return AnswerFormat(
            None, None if style is None else replace(style, anywhere=False, drops=())
        )

    def markers(self) -> frozenset[str]:
        """Every literal the parser has to see."""
        found = set(() if self.tool_format is None else self.tool_format.markers())
        if self.reasoning is not None:
            found.update((self.reasoning.start, self.reasoning.end, *self.reasoning.drops))
        return frozenset(found)

    def visible_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Control tokens that have to be printed for the parser (`TextStream(visible=…)`).

        Markers of which a control token is only the beginning count as well.
        """
        texts = self.markers()
        return frozenset(
            i
            for i in tokenizer.special_ids()
            if len(text := tokenizer.token_text(i)) > 2 and any(text in marker for marker in texts)
        )

    def parser(self, prompt: str = "", **options: Any) -> OutputParser:
        """A parser of one answer; `prompt` (see `prompt_tail`) and options as of `OutputParser`."""
        return OutputParser(self.tool_format, self.reasoning, prompt=prompt, **options)


def prompt_tail(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The end of a prompt as text, control tokens printed: what a parser wants to know of it."""
    return tokenizer.decode(list(ids[-_PROMPT_TAIL:]))


def answer_format(
    sources: Iterable[str], tokenizer: Tokenizer | None, *, tools: str | None = None
) -> AnswerFormat:
    """What template sources and a vocabulary say; `tools` overrides the format by its name.

    Raises InvalidParameterError where no format has that name.
    """
    tokens: frozenset[str] = frozenset()
    if tokenizer is not None:
        vocab = tokenizer.vocabulary
        kinds = (TokenKind.CONTROL, TokenKind.USER_DEFINED)
        tokens = frozenset(vocab.texts[i] for i in vocab.ids_of(*kinds))
    evidence = Evidence("\n".join(sources), tokens)
    found = detect_tool_format(evidence) if tools is None else tool_format(tools)
    return AnswerFormat(found, detect_reasoning(evidence))


def load_answer_format(
    checkpoint: Checkpoint, tokenizer: Tokenizer | None, *, tools: str | None = None
) -> AnswerFormat:
    """The answer format of a checkpoint, see `answer_format`."""
    return answer_format(chat_template_sources(checkpoint).values(), tokenizer, tools=tools)
