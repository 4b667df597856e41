# SPDX-License-Identifier: Apache-2.0
"""Fixtures every room shares: where the conformance data lies, and which devices can be tested.

Plain helpers live beside this file: `batching` (paged batches), `tiny_models` (random models
with a reference implementation), `tiny_chat` (a random one that chats), `budgets` (how far a
result may be off).
"""

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


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The conformance data's folder, or skip."""
    return shared_path()
