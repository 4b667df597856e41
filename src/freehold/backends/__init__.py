# SPDX-License-Identifier: Apache-2.0
"""Devices by name: every module of this folder is a backend and offers `create(**options)`.

This module only lists the folder and opens the door; it imports a backend when one is asked
for, so naming the NumPy reference never loads native code. Helper modules start with ``_``.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, cast

from freehold.errors import InvalidParameterError, UserError
from freehold.ops import Ops


def names() -> tuple[str, ...]:
    """Names `create` takes, in alphabetical order, whether or not they can run here."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def create(name: str, **options: Any) -> Ops:
    """Open the backend `name`; `options` are its own (``threads=2``, ``precision="float32"``).

    Raises InvalidParameterError for an unknown name or option and UserError when the backend
    is known but cannot be loaded on this machine.
    """
    if name not in names():
        raise InvalidParameterError(
            f"there is no backend named {name!r}", hint=f"choose one of {', '.join(names())}"
        )
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise UserError(
            f"the backend {name!r} cannot be loaded: {error}",
            hint="run `freehold doctor` to see what is missing",
        ) from error
    return cast(Ops, module.create(**options))
