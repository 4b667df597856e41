# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, each with its help text, in one place.

A group of options is a dataclass; a command takes it as one parameter and `with_options`
spreads its fields over the command line. Knows the spelling of flags, not what they do.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM


class KVType(StrEnum):
    """Element types of the key-value cache."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A GGUF file, a safetensors file, a Hugging Face model directory, a name that "
        "`freehold list` shows, or `seedling`, which is built in.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program to read.")]

Recommended = Annotated[
    bool,
    typer.Option(
        "--recommended/--no-recommended",
        help="Start from the sampling settings its vendor wrote into the model.",
        rich_help_panel="Sampling",
    ),
]


Thinking = Annotated[
    bool | None,
    typer.Option(
        "--thinking/--hide-thinking",
        help="Show what a reasoning model thinks, on stderr. Default: on a terminal only.",
        show_default=False,
    ),
]


def shows_thinking(chosen: bool | None) -> bool:
    """What `Thinking` means here."""
    return sys.stderr.isatty() if chosen is None else chosen


def opt(*names: str, help: str, panel: str | None = None) -> Any:
    """An option that is None unless given."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)


_E = "Engine"
# In two runs over 64 invoices summaries were written 1.3 and 1.8 times as fast with it; extraction
# was neither faster nor slower beyond the noise.
_DOCUMENT_DRAFTS = 4


@dataclass(frozen=True)
class EngineFlags:
    """How the model is loaded and run."""

    threads: Annotated[
        int | None,
        opt(
            "--threads",
            help="Worker threads; default: one per physical core.",
            panel=_E,
        ),
    ] = None
    context: Annotated[
        int | None,
        opt(
            "--context",
            "-c",
            help="Positions a sequence may use; default: the model's own.",
            panel=_E,
        ),
    ] = None
    kv_type: Annotated[
        KVType,
        typer.Option("--kv-type", help="Element type of the key-value cache.", rich_help_panel=_E),
    ] = KVType.f16
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="Device: 'cpu', or 'reference', which is exact and slow.",
            rich_help_panel=_E,
        ),
    ] = "cpu"
    isa: Annotated[
        str | None, opt("--isa", help="Force a kernel level; see `freehold doctor`.", panel=_E)
    ] = None
    pre: Annotated[
        str | None,
        opt("--pre", help="Text splitter of the vocabulary, in place of the file's.", panel=_E),
    ] = None
    speculative_tokens: Annotated[
        int | None,
        typer.Option(
            "--speculative-tokens",
            min=0,
            rich_help_panel=_E,
            show_default=False,
            help="Tokens drafted per step by prompt lookup; default: 4 for documents, which "
            "repeat themselves in their answers, else 0, which is off.",
        ),
    ] = None
    policy_override: Annotated[
        str | None,
        opt(
            "--policy-override",
            help="Why the model is used although the policy of this machine forbids it; the reason "
            "is written down.",
            panel=_E,
        ),
    ] = None

    ignore_memory: Annotated[
        bool,
        typer.Option(
            "--ignore-memory",
            rich_help_panel=_E,
            help="Load weights for which there is not enough free memory all the same.",
        ),
    ] = False

    def for_documents(self) -> EngineFlags:
        """Flags with what is the default where documents are read. Drafts are left out by the
        engine for as long as they do not pay."""
        if self.speculative_tokens is None:
            return replace(self, speculative_tokens=_DOCUMENT_DRAFTS)
        return self

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `LLM`."""
        return {
            "backend": self.backend,
            "threads": self.threads,
            "isa": self.isa,
            "pre": self.pre,
            "context_length": self.context,
            "kv_dtype": self.kv_type.value,
            "speculative_tokens": self.speculative_tokens or 0,
            "policy_override": self.policy_override,
            "ignore_memory": self.ignore_memory,
        }

    def open(self, model: str, **overrides: Any) -> LLM:
        """Load the model as the flags say."""
        from freehold.llm import LLM

        return LLM(model, **{**self.settings(), **overrides})


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Spread every parameter whose type is a group of options over the command line."""
    hints = typing.get_type_hints(function, include_extras=True)
    groups: dict[str, type] = {}
    spread: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if not (isinstance(kind, type) and is_dataclass(kind)):
            spread.append(parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = kind
        kinds = typing.get_type_hints(kind, include_extras=True)
        for f in fields(kind):
            spread.append(
                inspect.Parameter(
                    f.name, parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name]
                )
            )

    @wraps(function)
    def call(**values: Any) -> None:
        collected = {
            name: kind(**{f.name: values.pop(f.name) for f in fields(kind)})
            for name, kind in groups.items()
        }
        function(**values, **collected)

    call.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in spread}
    return call


def int_list(values: list[str] | None, name: str, default: list[int], minimum: int) -> list[int]:
    """`--prefill 128 --prefill 512` and `--prefill 128,512` alike."""
    if not values:
        return default
    numbers: list[int] = []
    for part in ",".join(values).split(","):
        try:
            number = int(part)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise InvalidParameterError(
                f"{name} must be whole numbers of {minimum} or more, not {part.strip()!r}",
                hint=f"for example {name} 128,512",
            )
        numbers.append(number)
    return numbers
