# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of every family, each beside logits an implementation that is not ours gives.

One list for `tools/supported_models.py`; what each model is made of stands in its own module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

import tiny_deepseek_moe
import tiny_models

# Each has CASES by name and `build(name)`.
_MODULES = (
    "tiny_models", "tiny_moe", "tiny_dense", "tiny_gemma", "tiny_latent", "tiny_giants",
    "tiny_deepseek4",
)  # fmt: skip
IDS = tiny_models.prompt()


@dataclass(frozen=True)
class TinyModel:
    """A model that can be saved as its vendor would, in a folder that is not there yet."""

    name: str
    save: Callable[[Path], tuple[str, np.ndarray]]  # what judges it, its logits [len(IDS), vocab]


def tiny_families() -> Iterator[TinyModel]:
    """All of them, module by module."""
    for name in _MODULES:
        module = importlib.import_module(name)
        for case in module.CASES:
            yield TinyModel(case, partial(_save, module, case))
    yield TinyModel("moe-16b", lambda folder: ("by hand", tiny_deepseek_moe.deepseek_moe(folder)))


def _save(module: ModuleType, case: str, folder: Path) -> tuple[str, np.ndarray]:
    model = module.build(tiny_models.CASES[case] if module is tiny_models else case)
    model.save_pretrained(folder)
    return f"transformers {type(model).__name__}", tiny_models.reference_logits(model, IDS)
