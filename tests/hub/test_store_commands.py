# SPDX-License-Identifier: Apache-2.0
"""The store's commands as they are typed: what goes to stdout, what to stderr, and exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import caches_on_disk as disk
import pytest
from caches_on_disk import MODEL
from store_files import add, put, sha256

from freehold.cli.main import run
from freehold.hub.store import Store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME",
                 "OLLAMA_MODELS", "LLAMA_CACHE", "FREEHOLD_MODELS", "XDG_DATA_HOME",
                 "XDG_CONFIG_HOME", "FREEHOLD_POLICY"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Said:
    """What one command line said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        self.code = run(words)
        self.out, self.err = capsys.readouterr()

    def json(self) -> Any:
        return json.loads(self.out)


def test_an_empty_store_says_what_to_do(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    said = Said(capsys, "list")
    assert (said.code, said.out) == (0, "")
    assert "freehold adopt" in said.err
    assert Said(capsys, "list", "--json").json()["models"] == []
    assert not (home / ".local").exists()


def test_adopt_list_and_remove(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    path = disk.ollama(home / ".ollama/models", "small:3b", {"model": MODEL, "license": b"MIT"})
    disk.ollama(home / ".ollama/models", "half:1", {"adapter": b"x"})
    dry = Said(capsys, "adopt", "--dry-run")
    assert "ollama:small:3b" in dry.out
    assert Store().models() == []
    said = Said(capsys, "adopt")
    assert said.code == 0
    assert "ollama:small:3b" in said.out
    assert "half/1: it carries an adapter" in said.err
    (model,) = Said(capsys, "list", "--json").json()["models"]
    assert (model["name"], model["adopted"], model["problem"]) == ("ollama:small:3b", True, None)
    assert (model["licence_claim"], model["bytes"]) == ("apache-2.0", len(MODEL) + 3)
    assert "ollama, adopted" in Said(capsys, "list").out
    assert "as before" in Said(capsys, "adopt", "ollama").out
    assert Said(capsys, "remove", "ollama:small:3b").code == 0
    assert Store().models() == []
    assert path.exists()
    again = Said(capsys, "remove", "ollama:small:3b")
    assert (again.code, again.out) == (2, "")


def test_adopting_a_path_that_holds_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "m.gguf").write_bytes(b"not a model")
    said = Said(capsys, "adopt", "m.gguf")
    assert said.code == 2
    assert "m.gguf: not a GGUF file" in said.err
    assert "views" not in said.err
    assert Said(capsys, "adopt", "nowhere").code == 2
    assert Said(capsys, "adopt", "--name", "x").code == 2


def test_a_lost_model_and_a_damaged_record_are_told(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    add(Store(), "good", {"g.gguf": b"good"}, aliases=("best",))
    add(Store(), "lost", {"l.gguf": b"lost"})
    add(Store(), "bad", {"b.gguf": b"bad"})
    blob = Store().blob(sha256(b"lost"))
    assert blob is not None
    blob.unlink()
    (record,) = (Store().root / "models").glob("bad*")
    record.write_bytes(b"{")
    said = Said(capsys, "list")
    assert said.code == 0
    assert "also best" in said.out
    assert "cannot be used: l.gguf" in said.out
    assert f"freehold remove {record.stem}" in said.err
    verified = Said(capsys, "verify")
    assert verified.code == 1
    assert "sound   good" in verified.out
    assert "FAULTY  lost" in verified.out
    assert f"FAULTY  {record.stem}" in verified.out
    assert Said(capsys, "remove", record.stem, "lost").code == 0
    assert Said(capsys, "verify").code == 0


def test_verify_for_ci(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    disk.huggingface(home / ".cache/huggingface/hub", "o/r", {"r-Q4_0.gguf": MODEL})
    Said(capsys, "adopt")
    assert Said(capsys, "lock").code == 0
    assert 'licences = ["apache-2.0"]' in Path("freehold.lock").read_text()
    assert Said(capsys, "lock", "-o", "-").out == Path("freehold.lock").read_text()
    assert Said(capsys, "verify", "--lock", "freehold.lock").code == 0
    (blob,) = (home / ".cache/huggingface/hub/models--o--r/blobs").iterdir()
    stat = blob.stat()
    blob.write_bytes(MODEL[:-1] + b"!")
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    said = Said(capsys, "verify", "hf:o/r", "--json")
    assert said.code == 1
    assert said.json()["faults"][0]["file"] == "r-Q4_0.gguf"
    assert Said(capsys, "verify", "--lock", "freehold.lock").code == 1
    Said(capsys, "remove", "hf:o/r")
    gone = Said(capsys, "verify", "--lock", "freehold.lock")
    assert gone.code == 1
    assert "is not in the store" in gone.out
    assert Said(capsys, "verify", "--lock", "absent.lock").code == 2
    assert Said(capsys, "verify", "other", "--lock", "freehold.lock").code == 2
    assert Said(capsys, "verify", "other").code == 2


def test_bundles_between_two_stores(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(Store(), "hf:o/r:Q4_0", {"r.gguf": MODEL}, repository="o/r")
    assert Said(capsys, "bundle", "export", "b.tar").code == 2
    exported = Said(capsys, "bundle", "export", "b.tar", "hf:o/r")
    digest = exported.out.strip()
    assert len(digest) == 64
    assert Said(capsys, "bundle", "show", "b.tar", "--json").json()["digest"] == digest
    monkeypatch.setenv("FREEHOLD_MODELS", "other")
    assert Said(capsys, "bundle", "import", "b.tar", "--expect", "0" * 64).code == 2
    assert Said(capsys, "bundle", "import", "b.tar", "--expect", digest).out == "hf:o/r:Q4_0\n"
    assert (home / "other" / "blobs").is_dir()
    assert "was there" in Said(capsys, "bundle", "import", "b.tar").out


def test_a_policy_is_asked_before_a_model_is_in_the_store(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    add(Store(), "hf:o/r:Q4_0", {"r.gguf": MODEL}, repository="o/r")
    Said(capsys, "bundle", "export", "b.tar", "hf:o/r:Q4_0")
    Said(capsys, "remove", "hf:o/r:Q4_0")
    policy = home / ".config/freehold/policy.toml"
    policy.parent.mkdir(parents=True)
    policy.write_text('version = 1\nallow = ["mit"]\n')
    (home / "m.gguf").write_bytes(MODEL)
    refused = Said(capsys, "adopt", "m.gguf")
    assert refused.code == 2
    assert "policy forbids" in refused.err
    assert Said(capsys, "bundle", "import", "b.tar").code == 2
    assert Store().models() == []
    assert Said(capsys, "adopt", "m.gguf", "--policy-override", "a test").code == 0
    assert Said(capsys, "bundle", "import", "b.tar", "--policy-override", "a test").code == 0


def test_gc_says_what_it_frees_and_asks(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    put(Store(), "x", b"orphan")
    said = Said(capsys, "gc", "--dry-run")
    assert "6 B" in said.out
    assert "sha256-" in said.out
    assert Said(capsys, "gc", "--json").code == 2
    assert Store().blob(sha256(b"orphan")) is not None
    assert Said(capsys, "gc", "--dry-run", "--json").json()["garbage"][0]["bytes"] == 6
    assert "6 B freed" in Said(capsys, "gc", "--yes").err
    assert Said(capsys, "gc").err == "nothing to free\n"


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", True), (b"y\n", False)], ids=["no", "yes"])
def test_gc_asks_at_a_terminal(home: Path, answer: bytes, left: bool) -> None:
    put(Store(), "x", b"orphan")
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    program = [sys.executable, "-m", "freehold.cli.main", "gc"]
    done = subprocess.run(program, stdin=theirs, capture_output=True, timeout=60, check=False)
    os.close(ours)
    os.close(theirs)
    assert b"free 6 B?" in done.stderr
    assert done.returncode == (130 if left else 0)
    assert (Store().blob(sha256(b"orphan")) is not None) == left
