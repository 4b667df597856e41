# SPDX-License-Identifier: Apache-2.0
"""How safetensors checkpoints are quantised: one file per method, and this register of them.

A method is added by adding a file, named as `quant_method` in `quantization_config` with "_" for
"-". It defines `derive(parts)`, which yields a `DerivedTensor` for every matrix it finds spread
over several tensors, and may define `IGNORED`, a compiled expression for the names of tensors that
weights alone do not need. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, TypeAlias

from freehold.errors import MalformedFileError
from freehold.formats.derived_tensor import DerivedTensor
from freehold.formats.schemes._parts import Parts
from freehold.formats.strict_json import describe
from freehold.formats.tensor_view import TensorView

__all__ = ["CheckpointTensor", "names", "resolve"]

CheckpointTensor: TypeAlias = TensorView | DerivedTensor
_KEY = "quantization_config"


def names() -> tuple[str, ...]:
    """The methods known, as files are named."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def resolve(
    config: Mapping[str, Any], tensors: Mapping[str, TensorView], where: str
) -> tuple[dict[str, Any], dict[str, CheckpointTensor]]:
    """Configuration and tensors of a checkpoint as if nobody had quantised it.

    `quantization_config` is gone then, and the parts of a matrix are one tensor under the plain
    name, in the place of the first part. With an unknown method, or none, everything stays.
    Headers only. Raises MalformedFileError and UnsupportedModelError naming tensor or key."""
    unchanged = dict(config), dict[str, CheckpointTensor](tensors)
    settings = config.get(_KEY)
    text = config.get("text_config")
    if settings is None and isinstance(text, dict):
        settings = text.get(_KEY)
    if settings is None:
        return unchanged
    if not isinstance(settings, dict):
        raise MalformedFileError(f"{where}: {_KEY} must be an object, not {describe(settings)}")
    method = settings.get("quant_method")
    if not isinstance(method, str) or method.replace("-", "_") not in names():
        return unchanged
    module = importlib.import_module(f"{__name__}.{method.replace('-', '_')}")
    derived: dict[str, DerivedTensor] = {}  # by the name of the first part
    used: set[str] = set()
    for tensor in module.derive(Parts(tensors, settings, where)):
        if 0 in tensor.shape:
            raise MalformedFileError(f"{where}: tensor {tensor.name[:100]!r} is empty")
        parts = {source.name for source in tensor.sources}
        if not used.isdisjoint(parts):
            raise MalformedFileError(f"{where}: {min(used & parts)[:100]!r} belongs to two weights")
        used |= parts
        derived[tensor.sources[0].name] = tensor
    ignored = getattr(module, "IGNORED", None)
    result: dict[str, CheckpointTensor] = {}
    for name, view in tensors.items():
        if name in derived:
            _add(result, derived[name], where)
        elif name not in used and not (ignored and ignored.search(name)):
            _add(result, view, where)
    return _without_key(config), result


def _add(result: dict[str, CheckpointTensor], tensor: CheckpointTensor, where: str) -> None:
    if tensor.name in result:
        raise MalformedFileError(
            f"{where}: {tensor.name[:100]!r} is there twice, quantised and plain"
        )
    result[tensor.name] = tensor


def _without_key(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in config.items() if key != _KEY}
    if isinstance(plain.get("text_config"), dict):
        plain["text_config"] = {k: v for k, v in plain["text_config"].items() if k != _KEY}
    return plain
