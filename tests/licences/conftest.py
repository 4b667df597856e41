# SPDX-License-Identifier: Apache-2.0
"""A home of its own for every test, so that no policy and no store of the machine counts."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(root / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(root / "data"))
    monkeypatch.delenv("FREEHOLD_POLICY", raising=False)
    monkeypatch.delenv("FREEHOLD_MODELS", raising=False)
    return root


@pytest.fixture
def policy(home: Path):
    """Writes the policy file."""

    def write(text: str) -> Path:
        path = home / "config" / "freehold" / "policy.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write
