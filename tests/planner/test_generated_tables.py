# SPDX-License-Identifier: Apache-2.0
"""The page of what runs where, and the sizes kept for the catalogue, are what would be made now.

Where one fails: python tools/hardware_table.py
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path

from freehold.catalogue.catalogue import members
from freehold.errors import UserError
from freehold.planner.member_sizes import KEPT_QUANTS, TABLE, digest, make_table
from freehold.planner.sizes import sizes_of_shape

TOOL = Path(__file__).parents[2] / "tools" / "hardware_table.py"


def tool():
    spec = importlib.util.spec_from_file_location("hardware_table", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tool_writes():
    assert tool().main(["--check"]) == 0


def test_some_of_the_kept_sizes_worked_out_anew():
    kept = json.loads(TABLE.read_text("utf-8"))
    sample = [member for member in members() if member.shape][::25]
    assert len(sample) > 5
    for member in sample:
        for key, entry in json.loads(make_table([(member.name, member.shape)])).items():
            assert kept.get(key) == entry, member.name
            assert set(KEPT_QUANTS[:-1]) <= set(entry["quants"])


def test_every_model_that_runs_has_its_sizes_kept():
    kept, missing = json.loads(TABLE.read_text("utf-8")), []
    for member in members():
        if member.shape and digest(member.shape) not in kept:
            with contextlib.suppress(UserError):  # those freehold cannot run have none
                sizes_of_shape(member.shape, "BF16", member.name)
                missing.append(member.name)
    assert not missing, f"run tools/hardware_table.py for {missing}"
