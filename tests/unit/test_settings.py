# SPDX-License-Identifier: Apache-2.0
"""Settings from the environment: absent, good, and nonsense."""

from __future__ import annotations

import dataclasses

import pytest

from freehold.config import EngineConfig, env_isa, env_threads
from freehold.errors import InvalidParameterError


def test_isa(monkeypatch):
    monkeypatch.delenv("FREEHOLD_ISA", raising=False)
    assert env_isa() is None
    monkeypatch.setenv("FREEHOLD_ISA", "")
    assert env_isa() is None
    monkeypatch.setenv("FREEHOLD_ISA", "avx2")
    assert env_isa() == "avx2"


def test_threads(monkeypatch):
    monkeypatch.delenv("FREEHOLD_THREADS", raising=False)
    assert env_threads() is None
    monkeypatch.setenv("FREEHOLD_THREADS", "3")
    assert env_threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " 2", "²", "9" * 5000])
def test_threads_refuses_what_is_no_count(monkeypatch, text):
    monkeypatch.setenv("FREEHOLD_THREADS", text)
    with pytest.raises(InvalidParameterError, match="FREEHOLD_THREADS"):
        env_threads()


def test_engine_settings_cannot_change_under_a_running_engine():
    config = EngineConfig(context_length=128)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.context_length = 256  # type: ignore[misc]
