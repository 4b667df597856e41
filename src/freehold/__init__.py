# SPDX-License-Identifier: Apache-2.0
"""freehold: own the model you run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freehold.errors import FreeholdError
from freehold.types import SamplingParams

if TYPE_CHECKING:
    from freehold.llm import LLM

__version__ = "0.1.0"
__all__ = ["LLM", "FreeholdError", "SamplingParams", "__version__"]


def __getattr__(name: str) -> Any:
    # LLM pulls in the engine and the native module; `freehold --help` must not pay for that.
    if name == "LLM":
        from freehold.llm import LLM

        return LLM
    raise AttributeError(f"module 'freehold' has no attribute {name!r}")
