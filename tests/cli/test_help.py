# SPDX-License-Identifier: Apache-2.0
"""Help is complete, and cheap: no command's own imports are paid for by it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from command_line import process

from freehold.cli._sampling_options import SamplingFlags
from freehold.cli.main import load_command, run, summaries
from freehold.cli.options import EngineFlags
from freehold.types import SamplingParams

COMMANDS = ("bench", "chat", "demo", "doctor", "quantize", "run", "show", "tokenize")
HEAVY = ("numpy", "tokenizers", "jinja2", "psutil", "freehold.llm", "freehold.ops", "torch")


@pytest.fixture(scope="module")
def imported_by_help() -> list[tuple[str, set[str]]]:
    """What a fresh interpreter has imported after each of several helps, in this order."""
    script = (
        "import sys, io, contextlib\n"
        "from freehold.cli.main import run\n"
        f"for name in {['', *COMMANDS]!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        run([name, '--help'] if name else ['--help'])\n"
        "    print(name, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    return [(name, set(modules)) for name, *modules in lines]


def test_every_command_is_listed_with_a_summary():
    assert set(COMMANDS) <= set(summaries())
    for name, summary in summaries().items():
        assert summary.endswith("."), name


def test_help_imports_neither_commands_nor_anything_heavy(imported_by_help):
    name, found = imported_by_help[0]
    assert name == ""
    assert not found & {*HEAVY, "rich", "pydantic"}
    assert not {f"freehold.cli.{command}" for command in COMMANDS} & found


def test_the_help_of_a_command_imports_that_command_only(imported_by_help):
    assert [name for name, _ in imported_by_help] == ["", *COMMANDS]
    seen: set[str] = set()
    for name, found in imported_by_help[1:]:
        assert not found & set(HEAVY), name
        seen.add(f"freehold.cli.{name}")
        assert {f"freehold.cli.{command}" for command in COMMANDS} & found == seen, name


def test_the_overview_names_every_command(capsys):
    assert run(["--help"]) == 0
    overview = capsys.readouterr().out
    for name, summary in summaries().items():
        assert name in overview
        assert summary in overview  # whole: the list must not cut it
    assert run([]) == 0
    assert capsys.readouterr().out.split() == overview.split()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_of_every_command_has_a_help_text(name):
    for parameter in load_command(name).params:
        assert parameter.help, f"{name}: {parameter.name}"


def test_every_sampling_parameter_has_its_flag():
    flags = [field.name for field in dataclasses.fields(SamplingFlags)]
    assert flags == [field.name for field in dataclasses.fields(SamplingParams)]


def test_flags_that_are_not_given_leave_the_defaults():
    assert SamplingFlags().params() == SamplingParams()


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        ({"sampler_order": "top_k, temperature"}, "sampler_order", ("top_k", "temperature")),
        ({"logit_bias": ["13=-2.5", "7=-inf"]}, "logit_bias", {13: -2.5, 7: float("-inf")}),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"temperature": 0.0}, "temperature", 0.0),
    ],
)
def test_flags_reach_their_field(flags, field, value):
    assert getattr(SamplingFlags(**flags).params(), field) == value


def test_flags_win_over_the_models_recommendation():
    vendor = {"temperature": 0.6, "top_p": 0.95}
    params = SamplingFlags(temperature=0.0).params(vendor)
    assert (params.temperature, params.top_p) == (0.0, 0.95)


def test_engine_flags_are_spread_over_the_command_line():
    names = {parameter.name for parameter in load_command("run").params}
    assert {field.name for field in dataclasses.fields(EngineFlags)} <= names


def test_version():
    result = process("--version")
    assert result.returncode == 0
    assert result.out.startswith("freehold ")
    assert result.err == ""
