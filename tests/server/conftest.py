# SPDX-License-Identifier: Apache-2.0
"""Servers for all tests that only ask: one with the built-in model, one with a model that
transformers judges."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import thinking_model
import tiny_judged
from live_server import LiveServer, live_server

from freehold.server.settings import ServerSettings


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """`freehold serve`, run in this process, sends the log to a stderr that ends with its test."""
    logger = logging.getLogger("freehold")
    before = [*logger.handlers], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


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


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tiny_judged.Judged:
    return tiny_judged.write(tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="session")
def judged_server(judged: tiny_judged.Judged) -> Iterator[LiveServer]:
    """Serves `judged` as ``tiny``."""
    engine = {"threads": 1, "kv_dtype": "f32"}
    with live_server(ServerSettings(models=(f"tiny={judged.path}",), engine=engine)) as it:
        yield it
