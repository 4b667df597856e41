# SPDX-License-Identifier: Apache-2.0
"""What is said of one published model, and on whose word.

Knows the words of the catalogue and what they mean. Does not know where they are written down
(`catalogue`), what a licence asks (`freehold.licences`) or what fits a machine
(`freehold.planner`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, TypeAlias, get_args

State: TypeAlias = Literal["open", "partial", "closed", "unknown"]
Artefact: TypeAlias = Literal["weights", "pretraining_data", "posttraining_data", "training_code"]
Task: TypeAlias = Literal[
    "chat", "completion", "code", "infill", "maths", "reasoning", "tools", "translation",
    "vision", "audio", "medicine", "moderation",
]  # fmt: skip

# How a source was read: the page itself (or a stored copy of that page), a copy of it that
# somebody else published, a list of many models that somebody gathered, others' words, or not at
# all: then the date is the day it was written down.
How: TypeAlias = Literal["page", "copy", "aggregate", "second-hand", "memory"]

HOWS: tuple[str, ...] = get_args(How)
STATES: tuple[str, ...] = get_args(State)
ARTEFACTS: tuple[str, ...] = get_args(Artefact)
TASKS: tuple[str, ...] = get_args(Task)


@dataclass(frozen=True, slots=True)
class Evidence:
    """How open one artefact of a model is, and where that was read.

    *partial* for data means a list with scripts, for code an incomplete set; prose about either
    is *closed*. *unknown* is never read as open.
    """

    state: State
    url: str  # "" only where the state is unknown
    checked: date
    licence: str | None = None  # of this artefact, an id of `freehold.licences`
    note: str = ""
    how: How = "page"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What somebody else's framework says of a model. Shown beside the evidence, never merged."""

    framework: Literal["osaid", "mof", "european-index"]
    verdict: str  # yes, no; I, II, III, none; or the index's own words
    url: str
    checked: date
    note: str = ""
    how: How = "page"


@dataclass(frozen=True, slots=True)
class Member:
    """One published model of a family: one size of one version.

    Base models, and other trainings that share every number here, are its `variants`.
    """

    name: str  # "llama3.2:3b": what a person types
    family: str  # the file it is written in: "llama"
    title: str
    vendor: str
    parameters: int  # all, towers for images and sound included
    active_parameters: int  # that a token of text passes through
    context: int  # positions, as published
    repo: str  # where the vendor publishes it on Hugging Face
    licence: tuple[str, ...]  # ids of `freehold.licences`, all that bind; () = unknown
    tasks: tuple[str, ...]  # out of TASKS
    released: date
    sources: tuple[str, ...]  # URLs
    checked: date  # the day the oldest of the sources was read
    gguf_repos: tuple[str, ...] = ()  # that hold it as GGUF, the vendor's own first
    aliases: tuple[str, ...] = ()  # other short names
    variants: Mapping[str, str] = field(default_factory=dict)  # "base" and the like to repository
    upstream: tuple[str, ...] = ()  # repositories it was made from, for licences that stack
    documents: tuple[str, ...] = ()  # that bind beside the licence: a use policy
    evidence: Mapping[str, Evidence] = field(default_factory=dict)  # by artefact
    assessments: tuple[Assessment, ...] = ()
    # The vendor's recommendation, in the words of `SamplingParams`.
    sampling: Mapping[str, Any] = field(default_factory=dict)
    # The keys of the vendor's config.json that say how large the language model is, as
    # `models.config` reads them; {} where nobody could read them.
    shape: Mapping[str, Any] = field(default_factory=dict)
    # Parameters that are in no layer of `shape`: towers, layers that guess further tokens.
    other_parameters: int = 0
    notes: tuple[str, ...] = ()

    @property
    def repos(self) -> tuple[str, ...]:
        """Every repository that holds this model, the vendor's first."""
        return (self.repo, *self.variants.values(), *self.gguf_repos)

    @property
    def names(self) -> tuple[str, ...]:
        """Everything it is called."""
        return (self.name, *self.aliases)
