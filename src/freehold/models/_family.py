# SPDX-License-Identifier: Apache-2.0
"""How a family's files differ from Llama's: keys, tensor names, the meaning of norm weights.

A family file that needs it says so in a constant ``DIALECT``; `config` and the converter ask for
it. Knows no family.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf
from freehold.models.base import ModelConfig
from freehold.ops import RawTensor

Tensors: TypeAlias = dict[str, RawTensor]  # by canonical name
# (architecture, metadata, tensors under canonical names, the file for messages)
ConfigReader: TypeAlias = Callable[
    [str, Mapping[str, object], Mapping[str, RawTensor], str], ModelConfig
]


def _as_it_is(keys: Fields) -> Fields:
    return keys


def _as_they_are(tensors: Tensors, keys: Fields) -> Tensors:
    return tensors


def _none(config: ModelConfig) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What has to be known to read a file of the family, or to write one."""

    from_gguf: ConfigReader = config_from_gguf
    from_hf: ConfigReader = config_from_hf
    # The text part of config.json in Llama's terms, absent keys filled in.
    hf_keys: Callable[[Fields], Fields] = _as_it_is
    # GGUF keys beside those all families have, without the architecture in front.
    gguf_keys: Callable[[ModelConfig], dict[str, Any]] = _none
    bare_keys: Callable[[ModelConfig], dict[str, Any]] = _none  # those that stand alone
    # Views that make GGUF's tensors out of those of config.json's model (its keys as `hf_keys`).
    hf_tensors: Callable[[Tensors, Fields], Tensors] = _as_they_are
    # The same of GGUF's own: files of other times, layers of no use (keys behind "ARCH.").
    gguf_tensors: Callable[[Tensors, Fields], Tensors] = _as_they_are
    # Tensors of which `from_hf` makes constants, by canonical name; GGUF has keys for them.
    constant_tensors: re.Pattern[str] | None = None
    layer_names: Mapping[str, str] = field(default_factory=dict)  # put over those of `names`
    # Hugging Face files hold w where the norm multiplies by 1 + w. GGUF holds the sum.
    norms_less_one: bool = False


def dialect_of(family: str) -> Dialect:
    """The dialect of a family file; Llama's where it does not name one."""
    module = importlib.import_module(f"freehold.models.{family}")
    dialect = getattr(module, "DIALECT", None)
    return dialect if isinstance(dialect, Dialect) else Dialect()
