# SPDX-License-Identifier: Apache-2.0
"""``adapter_config.json`` of PEFT: what a low-rank adapter declares about its matrices.

Whatever would change the arithmetic and is not done here is refused by the name of its key; so is
a key nobody here knows, unless it is switched off. Knows no tensors and no model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.strict_json import describe

MAX_RANK = 1024
MAX_ALPHA = 1e6
MAX_PATTERNS = 65_536
# Read below.
_READ = frozenset(
    {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias",
     "init_lora_weights"}
)  # fmt: skip
# About training, or about which modules the tensors belong to, which the tensors say themselves.
_HARMLESS = frozenset(
    {"auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode",
     "peft_version", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform",
     "layers_pattern", "megatron_core", "qalora_group_size", "runtime_config", "eva_config",
     "lora_ga_config", "ensure_weight_tying"}
)  # fmt: skip
# Ways to begin training that also change the model the adapter is added to.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
# A module's name, or its last parts. Patterns may be regular expressions; no more is read of them.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """What an adapter's matrices are multiplied by. Patterns go by the last parts of a name."""

    rank: int
    alpha: float
    rooted: bool  # alpha / √rank (rank-stabilised, arXiv:2312.03732) instead of alpha / rank
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def rank_of(self, module: str) -> int:
        """Rank of the matrices of `module`, "model.layers.0.self_attn.q_proj"."""
        return _matching(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Factor of the product of its two matrices."""
        rank, alpha = self.rank_of(module), _matching(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rooted else rank)


def peft_config(raw: Mapping[str, Any], where: str) -> PeftConfig:
    """Read the object of an ``adapter_config.json``; `where` begins every message.

    Raises MalformedFileError for values that cannot be, UnsupportedModelError for what
    freehold lacks."""
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModelError(
            f"{where}: peft_type is {describe(kind)}; freehold runs adapters of type LORA"
        )
    if raw.get("bias", "none") != "none":
        raise UnsupportedModelError(
            f"{where}: bias is {describe(raw['bias'])}; adapters that change biases are not run"
        )
    start = raw.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise UnsupportedModelError(
            f"{where}: init_lora_weights is {describe(start)}, which changes the base model too",
            hint="convert the adapter to plain LoRA (path_initial_model_for_weight_conversion)",
        )
    for key, value in raw.items():
        if key not in _READ and key not in _HARMLESS and not _is_off(value):
            raise UnsupportedModelError(
                f"{where}: {key[:60]} is {describe(value)}, which freehold does not do"
            )
    rooted = raw.get("use_rslora", False)
    if not isinstance(rooted, bool):
        raise MalformedFileError(f"{where}: use_rslora must be true or false")
    return PeftConfig(
        rank=_rank(raw.get("r"), f"{where}: r"),
        alpha=_alpha(raw.get("lora_alpha"), f"{where}: lora_alpha"),
        rooted=rooted,
        ranks={k: _rank(v, f"{where}: rank_pattern") for k, v in _patterns(raw, "rank", where)},
        alphas={k: _alpha(v, f"{where}: alpha_pattern") for k, v in _patterns(raw, "alpha", where)},
    )


def _is_off(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def _rank(value: object, what: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise MalformedFileError(
            f"{what} must be a whole number from 1 to {MAX_RANK}, not {describe(value)}"
        )
    return value


def _alpha(value: Any, what: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not abs(value) <= MAX_ALPHA:  # a NaN is not at most anything
        raise MalformedFileError(f"{what} must be a number up to 1e6, not {describe(value)}")
    return float(value)


def _patterns(raw: Mapping[str, Any], kind: str, where: str) -> list[tuple[str, Any]]:
    table = raw.get(f"{kind}_pattern") or {}
    if not isinstance(table, dict) or len(table) > MAX_PATTERNS:
        raise MalformedFileError(f"{where}: {kind}_pattern must map names to numbers")
    for key in table:
        if not _PLAIN_NAME.fullmatch(key):
            raise UnsupportedModelError(
                f"{where}: {kind}_pattern has the expression {describe(key)}; names of modules, "
                "or the last parts of them, are read"
            )
    return list(table.items())


def _matching(table: Mapping[str, _Value], module: str, otherwise: _Value) -> _Value:
    """The entry whose key is `module` or its last parts. Where several are, the first counts."""
    if not table:
        return otherwise
    parts = module.split(".")
    keys = {".".join(parts[i:]) for i in range(len(parts))}
    return next((value for key, value in table.items() if key in keys), otherwise)
