# SPDX-License-Identifier: Apache-2.0
"""`freehold pull` as a person types it: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_files

from model_server import ModelServer, Repo

MODEL = store_files.gguf({"general.architecture": "llama"}, bytes(50_000))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        running.repos["org/repo"] = Repo(
            {"m-Q4_K_M.gguf": MODEL, "LICENSE": b"terms"},
            {"license": "apache-2.0", "base_model": "org/base"},
        )
        yield running


def freehold(tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "FREEHOLD_"))}
    environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"),
                    "XDG_DATA_HOME": str(tmp_path / "data"),
                    "FREEHOLD_MODELS": str(tmp_path / "store")}  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", "pull", *arguments],
        capture_output=True, text=True, check=False, env=environment | more,
    )  # fmt: skip


def test_dry_run_then_pull_then_json(server: ModelServer, tmp_path: Path) -> None:
    dry = freehold(tmp_path, "hf:org/repo", "--dry-run", HF_ENDPOINT=server.url)
    assert dry.returncode == 0, dry.stderr
    assert "m-Q4_K_M.gguf" in dry.stdout
    assert "apache-2.0 (the uploader's claim)" in dry.stdout
    assert not server.requests("/cdn/")
    done = freehold(tmp_path, "hf:org/repo", "--endpoint", server.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hf:org/repo:Q4_K_M\n"
    assert "freehold run" in done.stderr
    told = freehold(tmp_path, "hf:org/repo", "--endpoint", server.url, "--json")
    shown = json.loads(told.stdout)
    assert shown["name"] == "hf:org/repo:Q4_K_M"
    assert Path(shown["path"]).read_bytes() == MODEL
    assert shown["base_models"] == ["org/base"]


def test_refusals_are_two_lines(server: ModelServer, tmp_path: Path) -> None:
    for name, word in (("hf:org/none", "does not exist"), ("file:///etc/passwd", "not file")):
        done = freehold(tmp_path, name, "--endpoint", server.url)
        assert done.returncode == 2
        assert done.stdout == ""
        lines = done.stderr.strip().splitlines()
        assert lines[0].startswith("error: ")
        assert word in lines[0]
        assert len(lines) == 2


def test_a_token_comes_from_a_file(server: ModelServer, tmp_path: Path) -> None:
    server.repos["org/repo"].gated, server.repos["org/repo"].needs_token = "auto", "hf_abc"
    token = tmp_path / "token"
    token.write_text("hf_abc\n")
    done = freehold(tmp_path, "hf:org/repo", "--endpoint", server.url, "--token-file", str(token))
    assert done.returncode == 0, done.stderr
    token.write_text("two words\n")
    done = freehold(tmp_path, "hf:org/repo", "--endpoint", server.url, "--token-file", str(token))
    assert done.returncode == 2
    assert "holds no token" in done.stderr


def test_the_policy_says_why_to_programs(server: ModelServer, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('deny = ["apache-2.0"]\n')
    arguments = ("hf:org/repo", "--endpoint", server.url, "--json")
    done = freehold(tmp_path, *arguments, FREEHOLD_POLICY=str(policy))
    assert done.returncode == 2
    assert json.loads(done.stdout)["reason"]["action"] == "pull"
    assert done.stderr.startswith("error: policy forbids to pull hf:org/repo")


def test_ctrl_c_keeps_what_has_come(server: ModelServer, tmp_path: Path) -> None:
    server.step, server.pause = 1024, 0.05
    arrived = threading.Event()
    server.tick = lambda count: arrived.set() if count == 1024 else None
    environment = os.environ | {"HOME": str(tmp_path), "FREEHOLD_MODELS": str(tmp_path / "store")}
    command = [sys.executable, "-m", "freehold.cli.main", "pull", "hf:org/repo"]
    with subprocess.Popen(
        [*command, "--endpoint", server.url], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert arrived.wait(30)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on from there" in shown
    assert not list((tmp_path / "store").glob("models/*"))
    server.pause = 0
    assert freehold(tmp_path, "hf:org/repo", "--endpoint", server.url).returncode == 0
