# SPDX-License-Identifier: Apache-2.0
"""`freehold doctor`: reports whatever the machine is, and never fails."""

from __future__ import annotations

import json
import os
import platform
import sys

import pytest
from command_line import CPU

from freehold import backends
from freehold.cli import doctor
from freehold.cli.main import run
from freehold.errors import UserError


def report(capsys, *args: str) -> dict:
    assert run(["doctor", "--json", "--no-measure", *args]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_names_this_machine(capsys):
    found = report(capsys)
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["freehold"]
    assert found["processor"]["logical_cores"] == os.cpu_count()
    assert found["memory"]["total_bytes"] >= found["memory"]["available_bytes"] > 0
    assert found["disk"]["free_bytes"] > 0


@pytest.mark.parametrize("device", [CPU])
def test_it_names_the_kernels(device, capsys):
    backend = report(capsys)["backend"]
    assert backend["usable"]
    assert backend["isa"] in backend["available_isas"]
    assert backend["threads"] >= 1
    assert backend["limits"] is None  # --no-measure


def test_a_backend_that_does_not_load_is_reported_with_what_to_do(capsys, monkeypatch):
    def fail(name: str, **options: object) -> None:
        raise UserError("the native module is missing")

    monkeypatch.setattr(backends, "create", fail)
    found = report(capsys)
    assert found["backend"] == {"usable": False, "reason": "the native module is missing"}
    assert any("--backend reference" in advice for advice in found["advice"])
    assert run(["doctor"]) == 0
    assert "not usable" in capsys.readouterr().out


def test_a_machine_without_any_system_files(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_read", lambda path: None)
    found = report(capsys)
    assert found["memory"]["transparent_huge_pages"] is None
    assert found["memory"]["container_limit_bytes"] is None
    assert run(["doctor", "--no-measure"]) == 0
    assert "cores" in capsys.readouterr().out


def test_missing_packages_are_named(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_PACKAGES", ("freehold", "no-such-package"))
    assert any("no-such-package" in advice for advice in report(capsys)["advice"])
    assert "no-such-package" not in sys.modules
