# SPDX-License-Identifier: Apache-2.0
"""What comes inside the package: the built-in model and the sample documents.

Knows where they lie in an installation and in a checkout of the repository. Does not know what a
model is: the file is opened like any other.
"""

from __future__ import annotations

from pathlib import Path

from freehold.errors import DocumentError, ModelNotFoundError

MODELS: tuple[str, ...] = ("seedling",)
LICENCE = "apache-2.0"  # of everything in this folder, as its LICENSE.md says

_HERE = Path(__file__).parent
# The build copies them beside this file (CMakeLists.txt); a checkout has only the original.
_SAMPLE_FOLDERS = (_HERE / "documents", _HERE.parents[2] / "examples" / "documents")


def model_path(name: str) -> Path:
    """The file of the built-in model `name`. Raises ModelNotFoundError where it is absent."""
    if name not in MODELS:
        raise ModelNotFoundError(
            f"there is no built-in model {name!r:.100}", hint=f"built in: {', '.join(MODELS)}"
        )
    path = _HERE / f"{name}.gguf"
    if not path.is_file():
        raise ModelNotFoundError(
            f"the built-in model {name!r} is not in this checkout of freehold",
            hint=f"`python -m recipes.{name} all` makes build/{name}/{name}.gguf; it belongs into "
            f"{_HERE}",
        )
    return path


def sample_documents() -> Path:
    """The folder of sample documents. Raises DocumentError where it is absent."""
    for folder in _SAMPLE_FOLDERS:
        if folder.is_dir():
            return folder
    raise DocumentError(
        "the sample documents are not in this installation", hint="name a file or folder instead"
    )
