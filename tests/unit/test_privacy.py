# SPDX-License-Identifier: Apache-2.0
"""freehold opens no network connection: commands run with every door to the network alarmed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_chat

MODEL = Path(__file__).parents[2].parent / "shared/data/weights/stories260K/stories260K.gguf"

# Audit hooks see every socket call of Python code, whichever library makes it. The hook leaves a
# mark and ends the process, so that no `except` in between can hide the attempt.
PROGRAM = """
import os, sys

def alarm(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        os.write(2, f"NETWORK: {event} {arguments!r}".encode())
        os._exit(99)

sys.addaudithook(alarm)
from freehold.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def run_alarmed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )


def test_the_alarm_works() -> None:
    program = PROGRAM.replace("from freehold", "import socket\nsocket.gethostbyname('x')\nfrom x")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 99


def test_looking_at_the_machine_stays_on_it() -> None:
    done = run_alarmed("doctor")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("tokenize", "Once upon a time"),
        ("licence", "--commercial"),
        ("notice", "--stdout"),
        ("run", "Once upon a time", "--max-tokens", "4", "--temperature", "0"),
        ("bench", "--prefill", "8", "--decode", "2", "--repeat", "1"),
    ],
    ids=lambda words: words[0],
)
def test_using_a_model_stays_on_the_machine(arguments: tuple[str, ...]) -> None:
    if not MODEL.is_file():
        pytest.skip("the shared conformance data is not beside the repository")
    command, *rest = arguments
    done = run_alarmed(command, str(MODEL), *rest)
    assert done.returncode == 0, done.stderr


def test_reading_documents_stays_on_the_machine(tmp_path: Path) -> None:
    model = tiny_chat.write(tmp_path / "babbler.gguf")
    done = run_alarmed("demo", "--model", str(model), "--limit", "3")
    assert done.returncode == 0, done.stderr


def test_a_job_stays_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    line = {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "Hi", "max_tokens": 2}}
    (tmp_path / "in.jsonl").write_text(json.dumps(line))
    options = ("--threads", "1", "--context", "256", "--out", str(tmp_path / "out.jsonl"))
    done = run_alarmed("jobs", "run", str(tmp_path / "in.jsonl"), "--model", "seedling", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text())["status"] == "ok"
