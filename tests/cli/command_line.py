# SPDX-License-Identifier: Apache-2.0
"""Running `freehold` in tests: as a process where exit and streams matter, else in this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared_data import shared_path

STORIES = ("weights", "stories260K", "stories260K.gguf")
STORIES_HF = ("weights", "stories260K", "hf")
STORIES_ANSWERS = ("weights", "stories260K", "reference.json")
BABY_Q8 = ("weights", "babyllama105", "babyllama105-q8_0.gguf")
PHI = ("weights", "random", "phi-tiny-random.safetensors")
GPT2_VOCAB = ("tokenizers", "gpt-2", "ggml-vocab-gpt-2.gguf")


def _cpu_marks() -> list[pytest.MarkDecorator]:
    try:
        from freehold.backends import cpu

        cpu.available_isas()
    except (ImportError, AttributeError) as error:  # not built, or built from other sources
        return [pytest.mark.skip(reason=f"the cpu backend is not built: {error}")]
    return []


CPU = pytest.param("cpu", marks=_cpu_marks())
DEVICES = ["reference", CPU]


def model(*parts: str) -> str:
    """Path of a conformance file; skips where the data is absent."""
    return str(shared_path(*parts))


def process(*args: str, stdin: str | bytes | None = None, **settings: Any) -> Any:
    """`freehold ARGS` as a process of its own; stdin is /dev/null unless given."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
    result = subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", *map(str, args)],
        capture_output=True,
        timeout=60,
        **source,
        **settings,
    )
    result.out = result.stdout.decode("utf-8", "replace")
    result.err = result.stderr.decode("utf-8", "replace")
    return result


def refused(result: Any) -> str:
    """Check that a process ended as a user's mistake must; gives the sentence."""
    assert result.returncode == 2, (result.returncode, result.err)
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if not line.startswith(("note:", "warning:"))]
    assert lines, "nothing was said"
    assert lines[0].startswith("error: "), result.err
    assert len(lines) <= 2, result.err
    assert all(line.startswith("hint: ") for line in lines[1:]), result.err
    assert result.out == ""
    return lines[0]


def cut(path: str | Path, size: int, target: Path) -> str:
    """The first `size` bytes of a file as a file of their own."""
    target.write_bytes(Path(path).read_bytes()[:size])
    return str(target)
