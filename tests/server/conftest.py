# SPDX-License-Identifier: Apache-2.0
"""One server with the built-in model for all tests that only ask it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import thinking_model
from live_server import LiveServer, live_server

from freehold.server.settings import ServerSettings


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    settings = ServerSettings(
        models=("seedling",), engine={"threads": 1, "max_num_seqs": 16, "context_length": 1024}
    )
    with live_server(settings) as running:
        yield running


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of a model of noise that thinks and calls tools, see `thinking_model`."""
    path = thinking_model.write(tmp_path_factory.mktemp("models"))
    settings = ServerSettings(models=(str(path),), engine={"threads": 1, "max_num_seqs": 8})
    with live_server(settings) as running:
        yield running
