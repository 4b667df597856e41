# SPDX-License-Identifier: Apache-2.0
"""The page of supported models says what the code can do and what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from budgets import limit
from freehold.models.config import families

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date():
    command = [sys.executable, "tools/supported_models.py", "page", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_family_was_measured_and_within_budget():
    records = json.loads((ROOT / "tools" / "measured.json").read_text())["models"]
    assert {record["family"] for record in records} == set(families())
    for record in records:
        assert record["reference"] < limit("reference", "logits"), record
        assert record["cpu"] < limit("cpu", "logits", "F32"), record
        assert record.get("cpu_gguf", 0.0) < limit("cpu", "logits", "F32"), record
