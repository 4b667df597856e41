# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, each with its help text, in one place.

A group of options is a dataclass; a command takes it as one parameter and `with_options`
spreads its fields over the command line. Knows the spelling of flags, not what they do.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console
from freehold.errors import InvalidParameterError
from freehold.types import SAMPLER_ORDER, SamplingParams

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


def _opt(*names: str, help: str, panel: str | None = None) -> Any:
    """An option that is None unless given."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)


_S = "Sampling"
_E = "Engine"


@dataclass(frozen=True)
class SamplingFlags:
    """One flag for every field of `SamplingParams`; None means "not given"."""

    max_tokens: Annotated[
        int | None,
        _opt(
            "--max-tokens",
            "-n",
            help="Stop after so many new tokens; default: the context's end.",
            panel=_S,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        _opt(
            "--temperature", "-t", help="0 is greedy; 1 leaves the distribution as it is.", panel=_S
        ),
    ] = None
    top_k: Annotated[
        int | None, _opt("--top-k", help="Keep the k most probable tokens; 0 is off.", panel=_S)
    ] = None
    top_p: Annotated[
        float | None,
        _opt(
            "--top-p", help="Keep the smallest set with this much probability; 1 is off.", panel=_S
        ),
    ] = None
    min_p: Annotated[
        float | None,
        _opt(
            "--min-p",
            help="Drop tokens below this share of the best one's probability; 0 is off.",
            panel=_S,
        ),
    ] = None
    typical_p: Annotated[
        float | None, _opt("--typical-p", help="Locally typical sampling; 1 is off.", panel=_S)
    ] = None
    top_n_sigma: Annotated[
        float | None,
        _opt(
            "--top-n-sigma",
            help="Keep logits within n standard deviations of the best; 0 is off.",
            panel=_S,
        ),
    ] = None
    xtc_probability: Annotated[
        float | None,
        _opt(
            "--xtc-probability",
            help="Chance of excluding the top choices at a token; 0 is off.",
            panel=_S,
        ),
    ] = None
    xtc_threshold: Annotated[
        float | None,
        _opt(
            "--xtc-threshold",
            help="Probability from which XTC counts a token as a top choice.",
            panel=_S,
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        _opt(
            "--repetition-penalty",
            help="Divide the logits of seen tokens by this; 1 is off.",
            panel=_S,
        ),
    ] = None
    presence_penalty: Annotated[
        float | None,
        _opt("--presence-penalty", help="Subtract this from the logits of seen tokens.", panel=_S),
    ] = None
    frequency_penalty: Annotated[
        float | None,
        _opt(
            "--frequency-penalty", help="Subtract this per earlier occurrence of a token.", panel=_S
        ),
    ] = None
    penalty_last_n: Annotated[
        int | None,
        _opt(
            "--penalty-last-n",
            help="Tokens the penalties look back at; -1 is all, 0 is off.",
            panel=_S,
        ),
    ] = None
    dry_multiplier: Annotated[
        float | None,
        _opt(
            "--dry-multiplier",
            help="Strength of the penalty on repeated sequences; 0 is off.",
            panel=_S,
        ),
    ] = None
    dry_base: Annotated[
        float | None,
        _opt("--dry-base", help="Growth of the DRY penalty per repeated token.", panel=_S),
    ] = None
    dry_allowed_length: Annotated[
        int | None,
        _opt("--dry-allowed-length", help="Longest repetition DRY leaves alone.", panel=_S),
    ] = None
    dry_penalty_last_n: Annotated[
        int | None,
        _opt("--dry-penalty-last-n", help="Tokens DRY looks back at; -1 is all.", panel=_S),
    ] = None
    dry_sequence_breakers: Annotated[
        list[str] | None,
        _opt(
            "--dry-sequence-breaker",
            help="Text across which DRY sees no repetition; repeatable.",
            panel=_S,
        ),
    ] = None
    sampler_order: Annotated[
        str | None,
        _opt("--sampler-order", help=f"Comma list; default: {','.join(SAMPLER_ORDER)}.", panel=_S),
    ] = None
    seed: Annotated[
        int | None,
        _opt("--seed", "-s", help="Same seed, same text; default: a fresh one.", panel=_S),
    ] = None
    stop: Annotated[
        list[str] | None, _opt("--stop", help="Stop before this text; repeatable.", panel=_S)
    ] = None
    stop_token_ids: Annotated[
        list[int] | None, _opt("--stop-token-id", help="Stop at this token; repeatable.", panel=_S)
    ] = None
    ignore_eos: Annotated[
        bool | None, _opt("--ignore-eos", help="Go on after the model's end token.", panel=_S)
    ] = None
    min_tokens: Annotated[
        int | None,
        _opt("--min-tokens", help="Forbid end tokens before so many new tokens.", panel=_S),
    ] = None
    logit_bias: Annotated[
        list[str] | None,
        _opt(
            "--logit-bias",
            help="ID=BIAS added to a token's logit; -inf forbids it; repeatable.",
            panel=_S,
        ),
    ] = None
    logprobs: Annotated[
        int | None,
        _opt(
            "--logprobs", help="Report log-probabilities with n alternatives per token.", panel=_S
        ),
    ] = None
    prompt_logprobs: Annotated[
        int | None, _opt("--prompt-logprobs", help="The same for the prompt's tokens.", panel=_S)
    ] = None

    def given(self) -> dict[str, Any]:
        """Fields the user set, in the types of `SamplingParams`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {name: value for name, value in values.items() if value not in (None, [])}
        if "sampler_order" in values:
            values["sampler_order"] = tuple(
                name.strip() for name in values["sampler_order"].split(",") if name.strip()
            )
        if "logit_bias" in values:
            values["logit_bias"] = dict(map(_parse_bias, values["logit_bias"]))
        return values

    def params(self, recommended: Mapping[str, Any] | None = None) -> SamplingParams:
        """The flags over the model's recommendation over the neutral defaults."""
        return SamplingParams(**{**(recommended or {}), **self.given()})


def _parse_bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise InvalidParameterError(
            f"--logit-bias needs ID=BIAS, not {text!r}", hint="for example --logit-bias 13=-2.5"
        ) from None


@dataclass(frozen=True)
class EngineFlags:
    """How the model is loaded and run."""

    threads: Annotated[
        int | None,
        _opt(
            "--threads",
            help="Worker threads; default: one per physical core.",
            panel=_E,
        ),
    ] = None
    context: Annotated[
        int | None,
        _opt(
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
        str | None, _opt("--isa", help="Force a kernel level; see `freehold doctor`.", panel=_E)
    ] = None
    pre: Annotated[
        str | None,
        _opt("--pre", help="Text splitter of the vocabulary, in place of the file's.", panel=_E),
    ] = None
    speculative_tokens: Annotated[
        int,
        typer.Option(
            "--speculative-tokens",
            min=0,
            rich_help_panel=_E,
            help="Tokens drafted per step by prompt lookup; 0 is off.",
        ),
    ] = 0
    policy_override: Annotated[
        str | None,
        _opt(
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

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `LLM`."""
        return {
            "backend": self.backend,
            "threads": self.threads,
            "isa": self.isa,
            "pre": self.pre,
            "context_length": self.context,
            "kv_dtype": self.kv_type.value,
            "speculative_tokens": self.speculative_tokens,
            "policy_override": self.policy_override,
            "ignore_memory": self.ignore_memory,
        }

    def open(self, model: str, **overrides: Any) -> LLM:
        """Load the model as the flags say."""
        from freehold.llm import LLM

        return LLM(model, **{**self.settings(), **overrides})


def resolve(flags: SamplingFlags, llm: LLM, recommended: bool) -> SamplingParams:
    """The parameters to use; says on stderr which of them the model's vendor chose."""
    given = flags.given()
    vendor = dict(llm.recommended_sampling) if recommended else {}
    used = {name: value for name, value in vendor.items() if name not in given}
    if used:
        listed = ", ".join(f"{name} {value:g}" for name, value in used.items())
        console.note(f"note: {listed} as the model recommends (--no-recommended turns it off)")
    return flags.params(vendor)


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
