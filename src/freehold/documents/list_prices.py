# SPDX-License-Identifier: Apache-2.0
"""What hosted models ask for tokens: a small table of list prices with their date. Data, no code.

US dollars per million tokens without batch, cache or negotiated discounts, for prompts of ordinary
length. Prices change; whoever shows one shows `AS_OF` with it.
"""

from __future__ import annotations

from dataclasses import dataclass

AS_OF = "2026-11-24"
# Read from the price data of the package genai-prices 0.2.3 (MIT) on that day, which names the
# vendors' own pages: developers.openai.com/api/docs/pricing, ai.google.dev/gemini-api/docs/pricing,
# platform.claude.com/docs/en/about-claude/pricing.
SOURCE = "genai-prices 0.2.3"


@dataclass(frozen=True, slots=True)
class ListPrice:
    """One hosted model."""

    vendor: str
    model: str
    read: float  # per million tokens of prompt
    written: float  # per million tokens of answer

    def cost(self, read_tokens: float, written_tokens: float) -> float:
        """Dollars for so many tokens."""
        return (read_tokens * self.read + written_tokens * self.written) / 1e6


LIST_PRICES: tuple[ListPrice, ...] = (
    ListPrice("Anthropic", "Claude Haiku 4.5", 1.00, 5.00),
    ListPrice("Google", "Gemini 2.5 Flash", 0.30, 2.50),
    ListPrice("OpenAI", "GPT-5 mini", 0.25, 2.00),
    ListPrice("Anthropic", "Claude Haiku 5.5", 0.10, 0.50),
)
