# SPDX-License-Identifier: Apache-2.0
"""The devices a test can run on, as pytest parameters.

A device is (backend name, options). `cpu` counts once per kernel level the processor has, and
is one skipped parameter where the native module was not built.
"""

from __future__ import annotations

from typing import Any

import pytest

from freehold import backends
from freehold.ops import Ops

Device = tuple[str, dict[str, Any]]


def cpu_params() -> list[Any]:
    """One parameter for each kernel level of the `cpu` backend."""
    try:
        from freehold.backends import cpu
    except ImportError as error:
        reason = f"the cpu backend is not built: {error}"
        return [pytest.param(("cpu", {}), id="cpu", marks=pytest.mark.skip(reason=reason))]
    try:
        isas = cpu.available_isas()
    except AttributeError:  # a native module older than its Python side: fail there, test by test
        return [pytest.param(("cpu", {}), id="cpu-outdated-build")]
    return [pytest.param(("cpu", {"isa": isa, "threads": 2}), id=f"cpu-{isa}") for isa in isas]


def all_params() -> list[Any]:
    """The reference, then every level of `cpu`."""
    return [pytest.param(("reference", {}), id="reference"), *cpu_params()]


def best_params() -> list[Any]:
    """The reference, then `cpu` at the level it picks itself: for tests too slow for all."""
    cpu = cpu_params()
    if not cpu[0].marks:
        cpu = [pytest.param(("cpu", {"threads": 2}), id="cpu")]
    return [pytest.param(("reference", {}), id="reference"), *cpu]


def open_device(device: Device) -> Ops:
    name, options = device
    return backends.create(name, **options)
