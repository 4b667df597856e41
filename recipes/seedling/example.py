# SPDX-License-Identifier: Apache-2.0
"""What passes between generator, trainer and evaluation: one asked and answered task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "heldout"]
Task = Literal["classify", "extract", "summarize", "code", "chat"]


@dataclass(frozen=True)
class Example:
    """One conversation whose last answer is known.

    `facts` is what the scoring of the task needs: for classify `{"label": str, "labels": [...]}`,
    for extract `{"fields": {name: str | None}}`, for summarize `{"key_facts": [str, ...]}` (each
    must appear in the summary), for code `{"beginning": str, "entry": str, "tests": str}`,
    for chat `{"words": [str, ...]}` (each must appear in the answer).
    """

    task: Task
    kind: str  # ticket, invoice, order, contract, incident, record, function, chat
    messages: tuple[Mapping[str, str], ...]  # role and content, the last one from the user
    answer: str
    facts: Mapping[str, Any] = field(default_factory=dict)
