# SPDX-License-Identifier: Apache-2.0
"""Fixtures every room shares: where the conformance data lies, and which devices can be tested.

Plain helpers live beside this file: `batching` (paged batches), `tiny_models` (random models
with a reference implementation), `tiny_chat` (a random one that chats), `budgets` (how far a
result may be off), `shared_data` (files of the conformance data).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_data import shared_path

# Runs of the tests say nothing of how fast this machine is for its user.
os.environ.setdefault("FREEHOLD_CALIBRATION", "off")


@pytest.fixture(scope="session", autouse=True)
def no_store_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the models that whoever runs it has."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FREEHOLD_MODELS", str(tmp_path_factory.getbasetemp() / "no-models"))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The conformance data's folder, or skip."""
    return shared_path()
