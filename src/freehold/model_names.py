# SPDX-License-Identifier: Apache-2.0
"""From what a person calls a model to where it lies: the one door for `LLM` and every command.

Knows names of built-in models; opens nothing. A store of downloaded models is another source of
names and belongs here.
"""

from __future__ import annotations

import re
from pathlib import Path

from freehold import builtin
from freehold.errors import ModelNotFoundError

# A word, not a path: no separator, no file ending, and short enough to be looked for.
_BARE_NAME = re.compile(r"(?=.{1,100}\Z)[A-Za-z][\w-]*(:[\w.-]+)?")


def resolve_model(model: str | Path) -> Path:
    """Where `model` lies: the file of a built-in model for its name, else the path itself.

    A known name wins over a file of that name in the current folder, so that a command means the
    same wherever it is run; ``./seedling``, or a `Path`, is the file. Raises ModelNotFoundError
    when a built-in model is absent, or a bare word is neither a name nor a path.
    """
    if isinstance(model, Path):
        return model
    if model in builtin.MODELS:
        return builtin.model_path(model)
    path = Path(model)
    if _BARE_NAME.fullmatch(model) and not path.exists():
        raise ModelNotFoundError(
            f"{model}: no such file, and no model has this name",
            hint=f"give the path of a model file, or a name: {', '.join(builtin.MODELS)}",
        )
    return path
