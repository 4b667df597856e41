# SPDX-License-Identifier: Apache-2.0
"""The documents tell the truth: every path, command, option, target, link and figure in them.

A document that names something is checked against the thing; prose is not checked.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import freehold
from freehold.cli.main import load_command, summaries

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)
PACKAGE = ROOT / "src" / "freehold"
TOP = {"src", "native", "tests", "benchmarks", "recipes", "examples", "docs", ".ci"}
FOREIGN = {"config.json", "tokenizer.json", "generation_config.json"}  # files of models


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def code_spans(text: str) -> Iterator[str]:
    """Inline code, with fenced blocks taken out first: a fence is three backticks too."""
    for match in re.finditer(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        yield match.group(1)


def named_paths(text: str) -> Iterator[str]:
    """Inline code that looks like a path of this repository.

    ``backends/cpu.py`` is short for ``src/freehold/backends/cpu.py``; ``<name>`` stands for any.
    """
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for span in code_spans(text):
        if not re.fullmatch(r"[\w.<>*-]+(/[\w.<>*-]+)*/?", span):
            continue
        first = span.split("/")[0]
        is_file = re.search(r"\.(py|cpp|h|md|toml|txt|sh|yml|json)$", span) is not None
        if span in FOREIGN:
            continue
        if ("/" in span and first in TOP | rooms) or is_file:
            yield span


def exists(name: str, document: str) -> bool:
    """Seen from the root, from the package, or from where the document lies."""
    pattern = re.sub(r"<[^>]*>", "*", name).rstrip("/")
    return any(any(base.glob(pattern)) for base in (ROOT, PACKAGE, (ROOT / document).parent))


def shell_lines(text: str) -> Iterator[list[str]]:
    """Commands in fenced shell blocks, split at pipes, comments and prompts removed."""
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            for part in line.split("|"):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:  # output of a command, not a command
                    continue
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words:
                    yield words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document: str) -> None:
    names = set(named_paths(text_of(document)))
    missing = sorted(name for name in names if not exists(name, document))
    assert not missing, f"{document} names paths that do not exist: {', '.join(missing)}"


def test_architecture_names_every_room() -> None:
    text = text_of("ARCHITECTURE.md")
    rooms = [p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()]
    forgotten = sorted(room for room in rooms if f"`{room}/" not in text)
    assert not forgotten, f"ARCHITECTURE.md says nothing about {', '.join(forgotten)}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_freehold_commands_exist(document: str) -> None:
    for words in shell_lines(text_of(document)):
        if words[0] != "freehold" or len(words) < 2 or words[1].startswith("-"):
            continue
        name = words[1]
        assert name in summaries(), f"{document}: there is no command `freehold {name}`"
        command = load_command(name)
        known = {flag for option in command.params for flag in (*option.opts, "--help")}
        for word in words[2:]:
            flag = word.split("=")[0]
            if re.fullmatch(r"--?[a-z][\w-]*", flag):
                assert flag in known, f"{document}: `freehold {name}` has no option {flag}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", text_of("Makefile"), flags=re.M))
    text = text_of(document)
    named = {words[1] for words in shell_lines(text) if words[0] == "make" and len(words) > 1}
    named |= {span.split()[1] for span in code_spans(text) if re.match(r"make [a-z]", span)}
    assert named <= targets, f"{document} names make targets that do not exist"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_resolve(document: str) -> None:
    folder = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        assert (folder / target.split("#")[0]).exists(), f"{document} links to {target}"


def test_readme_commands_are_all_told() -> None:
    text = text_of("README.md")
    untold = sorted(name for name in summaries() if f"freehold {name}" not in text)
    assert not untold, f"README.md does not mention: {', '.join(untold)}"


def test_changelog_has_the_version() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert project["version"] == freehold.__version__
    assert f"## [{freehold.__version__}]" in text_of("CHANGELOG.md")


def test_base_install_is_light() -> None:
    """Nothing that would pull in torch stands among the base dependencies."""
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    names = {re.split(r"[\s<>=!~\[;]", line)[0].lower() for line in project["dependencies"]}
    heavy = {"torch", "transformers", "tensorflow", "jax", "accelerate", "peft", "trl", "gguf"}
    assert not names & heavy


def test_benchmark_table_matches_the_results() -> None:
    """The table in README.md is what the stored measurements give, to the last digit."""
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    for path in results:
        result = json.loads(path.read_text("utf-8"))
        assert {"benchmark", "date", "command", "commit", "machine"} <= set(result), path.name
    script = ROOT / "benchmarks" / "fill_table.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check", *map(str, results)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by name: of two that are called alike only one can be run."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted({*names})
