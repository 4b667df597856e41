# SPDX-License-Identifier: Apache-2.0
"""A made document and what is known about it. Knows no prompts and no answers' format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Document:
    """`facts` maps concepts to values exactly as `text` writes them.

    `askable` are the concepts that a question may name; those missing in `facts` have the answer
    null. `gist` is the part of the summary that is not copied (what a ticket is about).
    """

    kind: str
    text: str
    facts: Mapping[str, str]
    askable: tuple[str, ...] = ()
    summary: str = ""
    key_facts: tuple[str, ...] = ()
    intent: str | None = None
    topic: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
