# SPDX-License-Identifier: Apache-2.0
"""`load_model`: the door from an open checkpoint to a running model.

Knows that an architecture is a file of this folder, and no architecture by name.
"""

from __future__ import annotations

import importlib

from freehold.errors import EngineError
from freehold.formats.checkpoint import Checkpoint
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.config import families, family_of, read_config
from freehold.ops import Ops

__all__ = ["families", "load_model", "read_config"]


def load_model(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Check the checkpoint and load its weights onto the device of `ops`.

    `progress` is called with the bytes loaded so far and the bytes in all. The checkpoint may
    be closed afterwards. Raises MalformedFileError naming the key or tensor that is wrong, and
    UnsupportedModelError for what freehold lacks, before any weight is loaded.
    """
    module = importlib.import_module(f"freehold.models.{family_of(checkpoint)}")
    model = module.load(checkpoint, ops, progress)
    if not hasattr(model, "forward"):
        raise EngineError(f"{module.__name__}.load did not return a model")
    return model  # type: ignore[no-any-return]
