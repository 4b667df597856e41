# SPDX-License-Identifier: Apache-2.0
"""How tokens are chosen: the flags of commands that answer prompts, and what they come to beside
the model's own recommendation. What each sampler does is `engine/samplers.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

from freehold.cli import console
from freehold.cli.options import opt
from freehold.errors import InvalidParameterError
from freehold.types import SAMPLER_ORDER, SamplingParams

if TYPE_CHECKING:
    from freehold.llm import LLM

_S = "Sampling"


@dataclass(frozen=True)
class SamplingFlags:
    """One flag for every field of `SamplingParams`; None means "not given"."""

    max_tokens: Annotated[
        int | None,
        opt(
            "--max-tokens",
            "-n",
            help="Stop after so many new tokens; default: the context's end.",
            panel=_S,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        opt(
            "--temperature", "-t", help="0 is greedy; 1 leaves the distribution as it is.", panel=_S
        ),
    ] = None
    top_k: Annotated[
        int | None, opt("--top-k", help="Keep the k most probable tokens; 0 is off.", panel=_S)
    ] = None
    top_p: Annotated[
        float | None,
        opt(
            "--top-p", help="Keep the smallest set with this much probability; 1 is off.", panel=_S
        ),
    ] = None
    min_p: Annotated[
        float | None,
        opt(
            "--min-p",
            help="Drop tokens below this share of the best one's probability; 0 is off.",
            panel=_S,
        ),
    ] = None
    typical_p: Annotated[
        float | None, opt("--typical-p", help="Locally typical sampling; 1 is off.", panel=_S)
    ] = None
    top_n_sigma: Annotated[
        float | None,
        opt(
            "--top-n-sigma",
            help="Keep logits within n standard deviations of the best; 0 is off.",
            panel=_S,
        ),
    ] = None
    xtc_probability: Annotated[
        float | None,
        opt(
            "--xtc-probability",
            help="Chance of excluding the top choices at a token; 0 is off.",
            panel=_S,
        ),
    ] = None
    xtc_threshold: Annotated[
        float | None,
        opt(
            "--xtc-threshold",
            help="Probability from which XTC counts a token as a top choice.",
            panel=_S,
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        opt(
            "--repetition-penalty",
            help="Divide the logits of seen tokens by this; 1 is off.",
            panel=_S,
        ),
    ] = None
    presence_penalty: Annotated[
        float | None,
        opt("--presence-penalty", help="Subtract this from the logits of seen tokens.", panel=_S),
    ] = None
    frequency_penalty: Annotated[
        float | None,
        opt(
            "--frequency-penalty", help="Subtract this per earlier occurrence of a token.", panel=_S
        ),
    ] = None
    penalty_last_n: Annotated[
        int | None,
        opt(
            "--penalty-last-n",
            help="Tokens the penalties look back at; -1 is all, 0 is off.",
            panel=_S,
        ),
    ] = None
    dry_multiplier: Annotated[
        float | None,
        opt(
            "--dry-multiplier",
            help="Strength of the penalty on repeated sequences; 0 is off.",
            panel=_S,
        ),
    ] = None
    dry_base: Annotated[
        float | None,
        opt("--dry-base", help="Growth of the DRY penalty per repeated token.", panel=_S),
    ] = None
    dry_allowed_length: Annotated[
        int | None,
        opt("--dry-allowed-length", help="Longest repetition DRY leaves alone.", panel=_S),
    ] = None
    dry_penalty_last_n: Annotated[
        int | None,
        opt("--dry-penalty-last-n", help="Tokens DRY looks back at; -1 is all.", panel=_S),
    ] = None
    dry_sequence_breakers: Annotated[
        list[str] | None,
        opt(
            "--dry-sequence-breaker",
            help="Text across which DRY sees no repetition; repeatable.",
            panel=_S,
        ),
    ] = None
    sampler_order: Annotated[
        str | None,
        opt("--sampler-order", help=f"Comma list; default: {','.join(SAMPLER_ORDER)}.", panel=_S),
    ] = None
    seed: Annotated[
        int | None,
        opt("--seed", "-s", help="Same seed, same text; default: a fresh one.", panel=_S),
    ] = None
    stop: Annotated[
        list[str] | None, opt("--stop", help="Stop before this text; repeatable.", panel=_S)
    ] = None
    stop_token_ids: Annotated[
        list[int] | None, opt("--stop-token-id", help="Stop at this token; repeatable.", panel=_S)
    ] = None
    ignore_eos: Annotated[
        bool | None, opt("--ignore-eos", help="Go on after the model's end token.", panel=_S)
    ] = None
    min_tokens: Annotated[
        int | None,
        opt("--min-tokens", help="Forbid end tokens before so many new tokens.", panel=_S),
    ] = None
    logit_bias: Annotated[
        list[str] | None,
        opt(
            "--logit-bias",
            help="ID=BIAS added to a token's logit; -inf forbids it; repeatable.",
            panel=_S,
        ),
    ] = None
    logprobs: Annotated[
        int | None,
        opt("--logprobs", help="Report log-probabilities with n alternatives per token.", panel=_S),
    ] = None
    prompt_logprobs: Annotated[
        int | None, opt("--prompt-logprobs", help="The same for the prompt's tokens.", panel=_S)
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


def resolve(flags: SamplingFlags, llm: LLM, recommended: bool) -> SamplingParams:
    """The parameters to use; says on stderr which of them the model's vendor chose."""
    given = flags.given()
    vendor = dict(llm.recommended_sampling) if recommended else {}
    used = {name: value for name, value in vendor.items() if name not in given}
    if used:
        listed = ", ".join(f"{name} {value:g}" for name, value in used.items())
        console.note(f"note: {listed} as the model recommends (--no-recommended turns it off)")
    return flags.params(vendor)
