# SPDX-License-Identifier: Apache-2.0
"""Where the conformance data lies, for tests that read it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_path(*parts: str) -> Path:
    """A file of the conformance data; skips the running test where it is absent."""
    path = SHARED_DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"conformance data is not here: ../shared/data/{'/'.join(parts)}")
    return path
