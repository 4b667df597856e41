# SPDX-License-Identifier: Apache-2.0
"""`freehold pull` killed at random moments: it goes on to the same bytes, and a model is listed
whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_files

from freehold.hub.store import Store
from model_server import Fault, ModelServer, Repo, changed, cut_after, status

HEADER = {"general.architecture": "llama"}


class Runner:
    """Command lines in processes that are killed when so many bytes were sent to them."""

    def __init__(self, server: ModelServer, home: Path) -> None:
        environment = os.environ | {
            "HF_HOME": str(home / "hf"), "XDG_CONFIG_HOME": str(home / "config"), "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
        }  # fmt: skip
        for name in ("HF_TOKEN", "HF_ENDPOINT", "FREEHOLD_MODELS"):
            environment.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking_cli.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment | {"FREEHOLD_MODELS": str(home / "store")},
        )  # fmt: skip
        self._server = server
        self._lock = threading.Lock()
        self._left: float = 0
        self._delay = 0.0
        self._child = 0
        server.tick = self._tick

    def run(self, arguments: list[str], kill_after: float, delay: float = 0.0) -> int:
        """The exit status; negative when it was killed after so many bytes, and seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(arguments) + "\n")
            self._process.stdin.flush()
            self._child = int(self._process.stdout.readline())
            self._left, self._delay = kill_after, delay
        code = int(self._process.stdout.readline())
        with self._lock:
            self._child = 0
        return code

    def _tick(self, count: int) -> None:
        with self._lock:
            child, self._left = self._child, self._left - count
            if self._left > 0 or not child:
                return
        if self._delay:
            threading.Timer(self._delay, self._kill, (child,)).start()
        else:
            self._kill(child)

    def _kill(self, child: int) -> None:
        with self._lock:
            if child == self._child:
                os.kill(child, signal.SIGKILL)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def runner(server: ModelServer, tmp_path: Path) -> Iterator[Runner]:
    made = Runner(server, tmp_path)
    yield made
    made.close()


def offer(
    server: ModelServer, rng: random.Random, number: int
) -> tuple[list[str], dict[str, bytes]]:
    """A model of one of the sources, and the files it must become."""

    def model(split: int | None = None) -> bytes:
        keys = {"split.no": split - 1, "split.count": 2, "split.tensors.count": 0} if split else {}
        return store_files.gguf(HEADER | keys, rng.randbytes(rng.randrange(1_500_000, 3_000_000)))

    source = ("huggingface", "ollama", "url")[number % 3]
    if source == "huggingface":
        files = {f"m-Q4_0-0000{i}-of-00002.gguf": model(i) for i in (1, 2)}
        files["LICENSE"] = rng.randbytes(30_000)
        server.repos["org/repo"] = Repo(files)
        return ["pull", "hf:org/repo", "--endpoint", server.url], files
    if source == "ollama":
        files = {"model.gguf": model(), "LICENSE": b"license" * 999}
        server.add_ollama(
            "library/m:latest", {"model": files["model.gguf"], "license": files["LICENSE"]}
        )
        return ["pull", "ollama:m", "--endpoint", server.url], files
    files = {f"m-0000{i}-of-00002.gguf": model(i) for i in (1, 2)}
    for name, data in files.items():
        server.files[f"/{name}"] = (data, f'"{hashlib.sha256(data).hexdigest()[:8]}"')
    return ["pull", f"{server.url}/m-00001-of-00002.gguf"], files


def check(store: Store, files: dict[str, bytes]) -> bool:
    """Whether the model is listed; then all of it is there. What is called whole is whole."""
    models = store.models()
    for model in models:
        assert model.problem() is None
        assert {f.name: f.path.read_bytes() for f in model.files} == files
    for blob in (store.root / "blobs").glob("*"):
        digest = blob.name.removeprefix("sha256-")
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == digest
    assert not store.damaged()
    return bool(models)


def shortened(body: bytes) -> bytes:
    """A third of a large body; of a small one all, for a small answer has no second half."""
    return body[: len(body) // 3] if len(body) > 100_000 else body


def faults(rng: random.Random) -> list[Fault]:
    """What else goes wrong while processes are killed."""
    choices = [
        Fault("gguf|cdn", cut_after(rng.randrange(1 << 20)), times=2, skip=rng.randrange(6)),
        Fault("gguf|cdn", status(503, {"Retry-After": "0"}), times=1, skip=rng.randrange(4)),
        Fault("gguf|cdn", changed(shortened), times=2, skip=rng.randrange(6)),
    ]
    return rng.sample(choices, rng.randrange(3))


def kill_often(
    server: ModelServer, runner: Runner, root: Path, kills: int, seed: int
) -> tuple[int, int]:
    """Pull models, each killed again and again, until so many were killed; gives the number of
    models and how often a kill met a process that was past its last byte."""
    rng = random.Random(seed)
    killed = models = late = 0
    while killed < kills:
        store = Store(root)
        for model in store.models():
            store.remove(model.name)
        arguments, files = offer(server, rng, models)
        while True:
            server.faults = faults(rng)
            afterwards = rng.random() < 0.25
            enough = sum(map(len, files.values())) if afterwards else rng.randrange(1, 2_500_000)
            code = runner.run(arguments, enough, rng.uniform(0.001, 0.06) if afterwards else 0.0)
            assert code in (0, -signal.SIGKILL), code
            listed = check(store, files)
            if code == 0:
                assert listed
                break
            killed += 1
            late += afterwards
            if listed:  # killed after its last act; again is then nothing
                late += not afterwards
        models += 1
    return models, late


def test_killed_a_few_times(server: ModelServer, runner: Runner, tmp_path: Path) -> None:
    models, _ = kill_often(server, runner, tmp_path / "store", 12, seed=4)
    assert models >= 2


@pytest.mark.slow
def test_killed_two_hundred_times(server: ModelServer, runner: Runner, tmp_path: Path) -> None:
    models, late = kill_often(server, runner, tmp_path / "store", 200, seed=5)
    assert models >= 12
    assert late >= 5
    print(f"200 kills over {models} models, {late} of them after the last byte")
