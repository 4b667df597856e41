# SPDX-License-Identifier: Apache-2.0
"""Named mixes: which type each tensor of a model gets when one asks for "Q4_K_M".

A mix has a base type; tensors that hurt most get more bits, by their role and layer. The rules
are the published ones of the GGUF world, so that a file called Q4_K_M holds what readers expect.
Knows tensor names and shapes, no values and no files. Norms, biases and routers stay F32.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from freehold import quants
from freehold.errors import InvalidParameterError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the rules ask of a model."""

    architecture: str  # GGUF name
    num_layers: int
    num_heads: int
    num_kv_heads: int
    num_experts: int = 0
    tied_embeddings: bool = False

    @property
    def group_size(self) -> int:
        """Query heads that share a key-value head."""
        return self.num_heads // max(1, self.num_kv_heads)

    @property
    def is_70b(self) -> bool:
        """The 80-layer shape, whose one value matrix serves eight heads and is cheap to widen."""
        return self.num_layers == 80 and self.architecture in ("llama", "qwen2")


@dataclass(frozen=True, slots=True)
class Site:
    """Where a tensor sits."""

    layer: int
    model: ModelShape

    @property
    def in_first_eighth(self) -> bool:
        """One of the first eighth of the layers."""
        return self.layer < self.model.num_layers // 8

    @property
    def more_bits(self) -> bool:
        """The first and last eighth of the layers, and every third between them."""
        n, i = self.model.num_layers, self.layer
        return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


# A rule gives the type for a site, or None for the mix's base type.
Rule = Callable[[Site], str | None]


def _base(site: Site) -> None:
    """No wish of its own."""


def _always(name: str) -> Rule:
    return lambda site: name


def _when(test: Callable[[Site], bool], name: str, otherwise: str | None = None) -> Rule:
    return lambda site: name if test(site) else otherwise


def _many_share(site: Site) -> bool:
    return site.model.group_size >= 4


def _q3_down(site: Site) -> str:
    return "Q5_K" if site.layer < site.model.num_layers // 16 else "Q4_K"


@dataclass(frozen=True, slots=True)
class Mix:
    """A named choice of types."""

    name: str
    base: str
    file_type: int  # general.file_type
    attn_v: Rule = _base
    ffn_down: Rule = _base
    attn_output: Rule = _base
    eight_experts_output: str | None = None  # attn_output of a model with eight experts
    experts: str | None = None  # matrices of experts, if another than the base

    @property
    def is_float(self) -> bool:
        """The base is a plain floating-point format, so that no rule applies."""
        return quants.get(self.base).is_float


_more_bits: Rule = _when(lambda s: s.more_bits, "Q6_K")
_first_eighth: Rule = _when(lambda s: s.in_first_eighth, "Q5_K")

_MIXES: dict[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("F32", "F32", 0),
        Mix("F16", "F16", 1),
        Mix("BF16", "BF16", 32),
        Mix("Q8_0", "Q8_0", 7),
        Mix("Q6_K", "Q6_K", 18),
        Mix("Q5_K_M", "Q5_K", 17, attn_v=_more_bits, ffn_down=_more_bits),
        Mix("Q5_K_S", "Q5_K", 16),
        Mix("Q5_1", "Q5_1", 9),
        Mix("Q5_0", "Q5_0", 8),
        Mix(
            "Q4_K_M", "Q4_K", 15,
            attn_v=_more_bits, ffn_down=_more_bits, eight_experts_output="Q5_K",
        ),
        Mix(
            "Q4_K_S", "Q4_K", 14,
            attn_v=_when(lambda s: s.layer < 4, "Q5_K"),
            ffn_down=_first_eighth,
            eight_experts_output="Q5_K",
        ),
        Mix("MXFP4_MOE", "Q8_0", 38, experts="MXFP4"),
        Mix("Q4_1", "Q4_1", 3),
        Mix("Q4_0", "Q4_0", 2),
        Mix(
            "IQ4_NL", "IQ4_NL", 25,
            attn_v=_when(_many_share, "Q5_K"), ffn_down=_first_eighth, eight_experts_output="Q5_K",
        ),
        Mix(
            "IQ4_XS", "IQ4_XS", 30,
            attn_v=_when(_many_share, "Q5_K"), ffn_down=_first_eighth, eight_experts_output="Q5_K",
        ),
        Mix(
            "Q3_K_L", "Q3_K", 13,
            attn_v=_always("Q5_K"), ffn_down=_always("Q5_K"), attn_output=_always("Q5_K"),
        ),
        Mix(
            "Q3_K_M", "Q3_K", 12,
            attn_v=_when(lambda s: s.layer < 2, "Q5_K", "Q4_K"),
            ffn_down=_q3_down,
            attn_output=_always("Q4_K"),
            eight_experts_output="Q5_K",
        ),
        Mix("Q3_K_S", "Q3_K", 11, eight_experts_output="Q5_K"),
        Mix(
            "Q2_K", "Q2_K", 10,
            attn_v=_when(_many_share, "Q4_K", "Q3_K"),
            ffn_down=_always("Q3_K"),
            attn_output=_always("Q3_K"),
            eight_experts_output="Q5_K",
        ),
        Mix(
            "Q2_K_S", "Q2_K", 21,
            attn_v=_when(_many_share, "Q4_K"),
            ffn_down=_when(lambda s: s.in_first_eighth, "Q4_K"),
        ),
    )
}  # fmt: skip

# Where a row is no multiple of 256, the type of 32-blocks that comes nearest from above.
_NARROW = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}  # fmt: skip

_IN_LAYER = re.compile(r"blk\.(\d+)\.(attn_[a-z]+|ffn_[a-z]+)[a-z_]*(?:\.\d+)?\.weight")
# Small matrices that are added, looked up or convolved, not multiplied in bulk: all architectures
# of GGUF, as any of its files may be quantised.
_KEPT = re.compile(
    r"(?:_norm\w*|ffn_gate_inp\w*|rope_freqs|rope_factors_\w+|position_embd|token_types|ssm_conv1d"
    r"|shortconv\.conv|indexer\.proj|time_mix_\w+|attn_rel_b\w*|altup\w*|laurel\w*|per_layer_model_proj)\.weight$"
)


def names() -> tuple[str, ...]:
    """All mixes, most bits first."""
    return tuple(_MIXES)


def get(name: str) -> Mix:
    """The mix called `name`, in either case. Raises InvalidParameterError naming them all."""
    mix = _MIXES.get(name.upper())
    if mix is None:
        raise InvalidParameterError(
            f"unknown quantisation {name!r}", hint=f"one of {', '.join(names())}"
        )
    return mix


def choose(mix: Mix, name: str, shape: tuple[int, ...], model: ModelShape) -> str:
    """The type of one tensor.

    `name` is the GGUF name, `shape` is outermost first: rows run along its last dimension."""
    if len(shape) < 2 or not name.endswith(".weight") or _KEPT.search(name):
        return "F32"
    return _fitting(mix.base if mix.is_float else _wanted(mix, name, model), shape[-1])


def _wanted(mix: Mix, name: str, model: ModelShape) -> str:
    output = "token_embd.weight" if model.tied_embeddings else "output.weight"
    if name == output:
        return "Q8_0" if mix.base == "Q8_0" else "Q6_K"
    found = _IN_LAYER.fullmatch(name)
    if found is None:
        return mix.base
    if mix.experts is not None and name.endswith("_exps.weight"):
        return mix.experts
    site, role = Site(int(found[1]), model), found[2]
    eight_experts = model.num_experts == 8
    chosen: str | None = None
    if role == "attn_v":
        chosen = mix.attn_v(site) or mix.base
        if model.is_70b and chosen in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        if eight_experts:
            chosen = "Q8_0"  # shared by all experts: nearly free
    elif role == "attn_k" and eight_experts:
        chosen = "Q8_0"
    elif role == "attn_output":
        chosen = mix.eight_experts_output if eight_experts else mix.attn_output(site)
    elif role == "ffn_down":
        chosen = mix.ffn_down(site)
    return chosen or mix.base


def _fitting(name: str, row: int) -> str:
    """`name`, or where its blocks do not divide the row, what takes its place."""
    for candidate in (name, _NARROW.get(name, name)):
        if row % quants.get(candidate).block_size == 0:
            return candidate
    return "F16"
