# SPDX-License-Identifier: Apache-2.0
"""What was typed, for commands that note down how they can be repeated."""

from __future__ import annotations

from contextvars import ContextVar

# The words behind ``freehold``; None where a command was called in another way.
typed: ContextVar[tuple[str, ...] | None] = ContextVar("typed", default=None)
