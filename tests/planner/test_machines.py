# SPDX-License-Identifier: Apache-2.0
"""What a machine is said to have: this one, cards as tools print them, tiers; and its probe."""

from __future__ import annotations

import json
from dataclasses import replace

import psutil
import pytest

from freehold.errors import InvalidParameterError
from freehold.planner import machine as machines
from freehold.planner import probe
from freehold.planner.machine import Gpu, Rates, parse_nvidia, this_machine
from freehold.planner.tiers import TIERS, tier


def test_this_machine_tells_what_is_free_not_what_there_is():
    here = this_machine(gpus=False)
    assert 0 < here.free <= here.total <= psutil.virtual_memory().total
    assert here.cores >= 1
    assert here.gpus == ()


def test_cards_as_nvidia_smi_prints_them():
    text = (
        "NVIDIA GeForce RTX 3090, 24576, 23028\n"
        "NVIDIA A100-SXM4-80GB, 81920, 81050\n"
        "Odd, name, 8192, 4096\n"
        "NVIDIA GB10, [N/A], [N/A]\n"
        "No devices were found\n\n"
    )
    assert list(parse_nvidia(text)) == [
        Gpu("NVIDIA GeForce RTX 3090", 24576 << 20, 23028 << 20),
        Gpu("NVIDIA A100-SXM4-80GB", 81920 << 20, 81050 << 20),
        Gpu("Odd, name", 8192 << 20, 4096 << 20),
    ]


def test_cards_of_the_amd_driver(tmp_path, monkeypatch):
    for number, (total, used) in enumerate([(16 << 30, 1 << 30), (512 << 20, 0)]):
        card = tmp_path / f"card{number}" / "device"
        card.mkdir(parents=True)
        (card / "mem_info_vram_total").write_text(f"{total}\n")
        (card / "mem_info_vram_used").write_text(f"{used}\n")
        (card / "device").write_text("0x744c\n")
    (tmp_path / "card0-DP-1").mkdir()
    monkeypatch.setattr(machines, "_DRM", tmp_path)
    monkeypatch.setattr(machines.shutil, "which", lambda name: None)
    # The second shares the RAM.
    assert this_machine().gpus == (Gpu("AMD 0x744c", 16 << 30, 15 << 30),)


def test_a_card_tool_that_hangs_or_fails_is_no_card(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setattr(machines.shutil, "which", lambda name: str(tool))
    monkeypatch.setattr(machines, "_DRM", tmp_path)
    assert this_machine().gpus == ()


def test_a_container_has_what_it_may_have(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{700 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {100 << 20}\n")
    monkeypatch.setattr(machines, "_CGROUP", tmp_path)
    here = this_machine(gpus=False)
    assert here.total == 1 << 30
    assert here.free == (1024 - 600) << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert this_machine(gpus=False).total == psutil.virtual_memory().total


def test_tiers_are_found_by_name():
    assert tier("8GB") is TIERS["8gb"]
    assert len(tier("multi-gpu").gpus) > 1
    with pytest.raises(InvalidParameterError) as refusal:
        tier("mainframe")
    assert "8gb" in (refusal.value.hint or "")


def test_what_was_measured_is_kept_for_this_machine(tmp_path, monkeypatch):
    here = this_machine(gpus=False)
    assert probe.known_rates(here, tmp_path) is None
    assert probe.known_rates(here, None) is None
    monkeypatch.setattr(probe, "rates_of", lambda ops, **_: Rates(2e10, 3e11, measured=True))
    monkeypatch.setattr(probe, "_FILL_BYTES", 1 << 20)
    monkeypatch.setattr(probe, "_LOOK_SECONDS", 0.01)
    rates = probe.measure(here, tmp_path)
    assert rates.measured
    assert rates.fill > 0
    kept = tmp_path / probe.FILE_NAME
    content = json.loads(kept.read_text()) | {"busy": False}
    kept.write_text(json.dumps(content))
    assert probe.known_rates(here, tmp_path) == rates
    assert probe.known_rates(replace(here, cores=here.cores + 1), tmp_path) is None
    assert not probe.is_due(here, tmp_path)
    # What was measured beside other work counts for a while, and never makes a machine slower.
    kept.write_text(json.dumps(content | {"busy": True, "measured": content["measured"] - 5_000}))
    assert probe.known_rates(here, tmp_path) == rates
    assert probe.is_due(here, tmp_path)
    monkeypatch.setattr(probe, "rates_of", lambda ops, **_: Rates(1e10, 9e11, measured=True))
    monkeypatch.setattr(probe, "_BUSY_PERCENT", -1.0)
    again = probe.measure(here, tmp_path)
    assert (again.read, again.int8) == (2e10, 9e11)
    for broken in ("", "[]", "null", json.dumps(content | {"read": -1}), "\x00" * 10):
        kept.write_text(broken)
        assert probe.known_rates(here, tmp_path) is None


def test_a_folder_that_cannot_be_written_costs_the_keeping_only(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "rates_of", lambda ops, **_: Rates(2e10, 3e11, measured=True))
    monkeypatch.setattr(probe, "_FILL_BYTES", 1 << 20)
    (tmp_path / "file").write_text("")
    assert probe.measure(this_machine(gpus=False), tmp_path / "file").measured


def test_runs_are_remembered_under_the_rates_they_were_predicted_with():
    here = this_machine(gpus=False)
    slow, fast = (here.with_rates(Rates(read, 1e12)) for read in (1e10, 2e10))
    assert probe.record_mark(slow) != probe.record_mark(fast)
