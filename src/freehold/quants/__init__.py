# SPDX-License-Identifier: Apache-2.0
"""Storage types of tensor values, one file each; this module is the register of them.

A type is added by adding a file: its name in lower case is the type's name, and it defines
`TYPE`, a `QuantType`. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from freehold.errors import UnsupportedModelError
from freehold.quants.base import QuantType

__all__ = ["QuantType", "by_id", "get", "names"]

_HELPERS = frozenset(
    {"base", "mixes", "repack", "small_floats"}
)  # files here that are no types; nor is any "_name"

# Types that exist elsewhere, so that a refusal can name what a file holds.
_FOREIGN_IDS = {
    9: "Q8_1", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
}  # fmt: skip


@functools.cache
def names() -> tuple[str, ...]:
    """Names of all types, upper case, sorted."""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return tuple(sorted(n.upper() for n in found if n not in _HELPERS and not n.startswith("_")))


@functools.cache
def _load(name: str) -> QuantType:
    kind = importlib.import_module(f"{__name__}.{name.lower()}").TYPE
    assert isinstance(kind, QuantType)
    assert kind.name == name, f"{name.lower()}.py defines {kind.name}"
    return kind


@functools.cache
def _ids() -> dict[int, str]:
    return {_load(name).ggml_id: name for name in names()}


def get(name: str) -> QuantType:
    """The type called `name`, in either case. Raises UnsupportedModelError."""
    key = name.upper()
    if key not in names():
        raise UnsupportedModelError(
            f"unknown quant type {name!r}", hint=f"known types: {', '.join(names())}"
        )
    return _load(key)


def by_id(ggml_id: int) -> QuantType:
    """The type with this number in a GGUF tensor header. Raises UnsupportedModelError."""
    name = _ids().get(ggml_id)
    if name is None:
        label = f"quant type {_FOREIGN_IDS[ggml_id]}" if ggml_id in _FOREIGN_IDS else "quant type"
        raise UnsupportedModelError(
            f"{label} (id {ggml_id}) is not supported",
            hint=f"re-quantise the model to one of {', '.join(names())}",
        )
    return _load(name)
