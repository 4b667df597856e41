# SPDX-License-Identifier: Apache-2.0
"""The ways models mark their reasoning, and which one a model uses.

Knows the literals and how a prompt may have opened the reasoning already. Formats that structure
the whole answer (channels with a recipient) mark reasoning themselves and have no entry here.
"""

from __future__ import annotations

from dataclasses import dataclass

from freehold.chat.tool_format import Evidence


@dataclass(frozen=True)
class ReasoningStyle:
    """One way.

    Attributes:
        start, end: literals round the reasoning.
        anywhere: the literals are control tokens, so they count wherever they stand. Otherwise
            reasoning begins only where an answer, or the text after a call, begins: people write
            about `<think>`, too.
        opening: what a prompt ends with when it opened the reasoning (white space aside); the
            start literal where this is empty.
        drops: literals that frame the visible answer and are left out.
        needs: literals a template of this style has besides the end.
        opening_is_reasoning: the prompt's opening is itself part of the reasoning's text.
    """

    name: str
    start: str
    end: str
    anywhere: bool = False
    opening: str = ""
    drops: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    opening_is_reasoning: bool = False

    def opened_by(self, prompt: str) -> bool:
        """Whether a prompt ends inside reasoning that has no words yet."""
        return prompt.rstrip().endswith((self.opening or self.start).rstrip())


THINK = ReasoningStyle("think", "<think>", "</think>")

# The first whose literals a template has is the model's.
STYLES: tuple[ReasoningStyle, ...] = (
    ReasoningStyle("mistral", "[THINK]", "[/THINK]", anywhere=True),
    ReasoningStyle(
        "gemma4", "<|channel>thought", "<channel|>", anywhere=True, drops=("<channel|>",)
    ),
    ReasoningStyle(
        "command_r",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        anywhere=True,
        drops=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    ReasoningStyle("seed", "<seed:think>", "</seed:think>"),
    ReasoningStyle("apertus", "<|inner_prefix|>", "<|inner_suffix|>", anywhere=True),
    ReasoningStyle(
        "apriel",
        "Here are my reasoning steps:",
        "[BEGIN FINAL RESPONSE]",
        drops=("[END FINAL RESPONSE]",),
        opening_is_reasoning=True,
    ),
    ReasoningStyle("thinking", "<thinking>", "</thinking>"),
    ReasoningStyle(
        "granite",
        "<think>",
        "</think>",
        drops=("<response>", "</response>"),
        needs=("<response>",),
    ),
    THINK,
)  # fmt: skip


def detect_reasoning(evidence: Evidence) -> ReasoningStyle | None:
    """The style of a model, None where nothing says it reasons."""
    for style in STYLES:
        # Some templates only know how to take past reasoning out, so the end alone counts.
        if evidence.has(style.end, *style.needs):
            return style
    tokens = evidence.tokens
    return next((s for s in STYLES if {s.start, s.end} <= tokens), None)


def reasoning_style(name: str) -> ReasoningStyle:
    """A style by name; KeyError where there is none."""
    return {style.name: style for style in STYLES}[name]
