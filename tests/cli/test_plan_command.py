# SPDX-License-Identifier: Apache-2.0
"""`freehold plan` as a user meets it: words, JSON, exit codes, refusals, what runs teach it."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_line import model

from freehold import _llm_inputs
from freehold.builtin import model_path
from freehold.cli.main import run
from freehold.planner import calibration, probe
from freehold.planner import machine as machines
from freehold.planner.calibration import FILE_NAME
from freehold.planner.machine import Rates, this_machine

GIB = 1 << 30


def planned(capsys, *args, code=0):
    assert run(["plan", "--no-measure", *args, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def shown(capsys, *args, code=0):
    assert run(["plan", "--no-measure", *args]) == code
    return capsys.readouterr().out


def test_a_file_by_its_header(capsys):
    d = planned(capsys, str(model_path("seedling")))
    assert d["fits"]
    assert d["memory"]["total"] == sum(v for k, v in d["memory"].items() if k != "total")
    assert d["cache_layers"] == [
        {"layers": 5, "heads": 4, "key_dim": 64, "value_dim": 64, "window": 0, "stride": 1}
    ] or d["cache_layers"]  # fmt: skip
    for name in ("load_seconds", "prefill", "decode"):
        assert 0 < d[name]["low"] <= d[name]["middle"] <= d[name]["high"]
    assert d["calibrated_by_runs"] == 0
    assert d["job"] is None


def test_a_name_of_the_catalogue_for_another_machine(capsys):
    d = planned(capsys, "llama3.2:3b", "--as", "8gb", "--context", "4096")
    assert d["machine"]["total_bytes"] == 8 * GIB
    assert d["memory"]["kv_cache"] == 4096 * 28 * 2 * 8 * 128 * 2
    assert d["quant"] == "Q8_0"
    assert planned(capsys, "llama3.2:3b", "--as", "8gb", "--quant", "q4_k_m")["quant"] == "Q4_K_M"


def test_what_does_not_fit_says_so_with_numbers_and_a_way_out(capsys):
    args = ("--as", "8gb", "--quant", "Q6_K", "-c", "32768")
    out = shown(capsys, "llama3.1:8b", *args, code=1)
    assert "does not fit the 5." in out
    assert "missing" in out
    assert "--ignore-memory" in out
    remedy = re.search(r"--quant (Q\w+) --context (\d+) fits", out)
    assert remedy  # neither helps alone
    quant, context = remedy.groups()
    shown(capsys, "llama3.1:8b", "--as", "8gb", "--quant", quant, "--context", context)
    shown(capsys, "llama3.1:8b", "--as", "8gb", "--quant", quant, "-c", "32768", code=1)
    out = shown(capsys, "llama3.1:8b", "--as", "8gb", "--quant", "Q6_K", code=1)
    quant = re.search(r"--quant (Q\w+) fits", out)[1]
    shown(capsys, "llama3.1:8b", "--as", "8gb", "--quant", quant)
    out = shown(capsys, "llama3.3:70b", "--as", "8gb", code=1)
    assert "no shorter context and no smaller quantisation helps" in out


def test_words_for_a_person(capsys):
    out = shown(capsys, "gemma3:4b", "--as", "16gb", "--kv-type", "q8_0", "--parallel", "2")
    assert "2 x 8,192 tokens in q8_0: 29 layers keep the last 1,024, 5 layers keep all" in out
    assert "computes on the processor; the cards are planned, not used" in out
    assert "34 of 34 layers" in out
    assert "estimates for a kind of machine" in out
    assert "not calibrated yet" in shown(capsys, "seedling")


def test_documents_by_a_time(capsys):
    args = ("llama3.2:1b", "--as", "16gb", "--documents", "100000", "--by", "06:00")
    out = shown(capsys, *args, code=1)
    assert "an hour (1,000 tokens in, 200 out, 8 at once)" in out
    assert "not surely in time" in out
    few = planned(capsys, "llama3.2:1b", "--as", "16gb", "--documents", "1", "--by", "2999-01-01")
    assert few["job"]["on_time"] is True
    assert few["context"] == 1200


def test_a_recommendation(capsys):
    d = planned(capsys, "--as", "16gb")
    assert 1 <= len(d["models"]) <= 5
    for each in d["models"]:
        assert each["memory"]["total"] <= each["budget"]
    out = shown(capsys, "--as", "16gb")
    assert f"freehold pull {d['models'][0]['model']}" in out


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("no-such-model",), "no model has this name"),
        (("no/such-model",), "freehold models"),
        (("./nothing.gguf",), "no such file"),
        (("llama3.2:1b", "--context", "1000000"), "131,072"),
        (("llama3.2:1b", "--quant", "Q9"), "Q4_K_M"),
        (("seedling", "--quant", "Q8_0"), "--quant"),
        (("llama3.2:1b", "--as", "mainframe"), "8gb"),
        (("llama3.2:1b", "--by", "06:00"), "--documents"),
        (("llama3.2:1b", "--documents", "9", "--by", "soon"), "06:00"),
        (("--documents", "9"), "MODEL"),
        (("--task", "gossip"), "chat"),
        (("llama3.2:1b", "--documents", "0"), "1"),
    ],
)
def test_what_is_wrong_is_one_sentence(args, word, capsys):
    assert run(["plan", "--no-measure", *args]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert word in err
    assert len(err.strip().splitlines()) <= 2


def test_a_file_of_a_vocabulary_alone_is_no_model(capsys):
    vocabulary = model("tokenizers", "llama-spm", "ggml-vocab-llama-spm.gguf")
    assert run(["plan", "--no-measure", vocabulary]) == 2
    assert "holds no weights" in capsys.readouterr().err


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    """A folder in which this machine's speed is known."""
    monkeypatch.setenv("FREEHOLD_CALIBRATION", str(tmp_path))
    monkeypatch.setattr(probe, "rates_of", lambda ops, **_: Rates(2e10, 3e11, measured=True))
    monkeypatch.setattr(probe, "_FILL_BYTES", 1 << 20)
    monkeypatch.setattr(probe, "_LOOK_SECONDS", 0.01)
    probe.measure(this_machine(gpus=False), tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("FREEHOLD_CALIBRATION", str(tmp_path))
    # However slow this machine is, and whatever else runs on it.
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    monkeypatch.setattr(calibration, "_BELIEVABLE", 1e12)
    return tmp_path


def test_runs_make_plans_better(remembered, capsys):
    blind = planned(capsys, "seedling")
    assert blind["machine"]["measured"]
    args = ["run", "seedling", "One two three four five six seven eight nine", "--raw",
            "--max-tokens", "24", "--ignore-eos", "--temperature", "0"]  # fmt: skip
    assert run(args) == 0
    text = (remembered / FILE_NAME).read_text()
    assert "seven" not in text
    phases = {json.loads(line)["phase"] for line in text.splitlines()}
    assert phases == {"load", "prefill", "decode"}
    capsys.readouterr()
    taught = planned(capsys, "seedling")
    assert taught["calibrated_by_runs"] == 1
    assert taught["decode"] != blind["decode"]
    assert "calibrated by 1 run on this machine" in shown(capsys, "seedling")


def test_answers_of_a_given_form_teach_nothing(remembered):
    assert run(["run", "seedling", "x", "--raw", "--regex", "[ab]{30}"]) == 0
    assert not (remembered / FILE_NAME).exists()


def test_bench_teaches_too(remembered, capsys):
    args = ["bench", "seedling", "--prefill", "32", "--decode", "16", "--repeat", "1"]
    assert run([*args, "--streams", "1,3"]) == 0
    kinds = [json.loads(line)["kind"] for line in (remembered / FILE_NAME).read_text().splitlines()]
    assert kinds == ["Q8_0", "Q8_0", "Q8_0", "Q8_0, several"]


def test_weights_larger_than_the_free_memory_are_refused_unless_told(monkeypatch, capsys):
    real = machines.this_machine
    tight = real(gpus=False)
    monkeypatch.setattr(
        _llm_inputs, "this_machine", lambda **_: tight.__class__("x", GIB, 1 << 20, 1, tight.rates)
    )
    monkeypatch.setattr(_llm_inputs.psutil, "swap_memory", lambda: type("S", (), {"free": 0}))
    args = ["run", "seedling", "x", "--raw", "--max-tokens", "1"]
    assert run(args) == 1
    err = capsys.readouterr().err
    assert "0.01 GB" in err
    assert "--ignore-memory" in err
    assert run([*args, "--ignore-memory"]) == 0


class _Ranges(BaseHTTPRequestHandler):
    """Gives out parts of one file, and nothing else."""

    protocol_version = "HTTP/1.1"
    whole = True  # whether ranges are understood

    def _answer(self, body: bool) -> None:
        data = Path(model_path("seedling")).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        part, status = data, 200
        if wanted and self.whole:
            end = min(int(wanted[2] or len(data)), len(data) - 1)
            part, status = data[int(wanted[1]) : end + 1], 206
        self.send_response(status)
        if status == 206:
            first = int(wanted[1])
            span = f"{first}-{first + len(part) - 1}"
            self.send_header("Content-Range", f"bytes {span}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"one"')
        self.end_headers()
        if body:
            self.wfile.write(part)
            self.server.sent += len(part)

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def log_message(self, *_: object) -> None:
        """A test has no log."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    server.sent = 0
    server.handle_error = lambda *_: None  # clients that have seen enough go away
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_url_by_its_header_alone(server, capsys):
    url = f"http://127.0.0.1:{server.server_port}/seedling.gguf"
    far = planned(capsys, url)
    near = planned(capsys, "seedling")
    assert far["memory"] == near["memory"]
    assert server.sent < Path(model_path("seedling")).stat().st_size / 2


def test_a_server_without_ranges_is_refused(server, capsys, monkeypatch):
    monkeypatch.setattr(_Ranges, "whole", False)
    url = f"http://127.0.0.1:{server.server_port}/seedling.gguf"
    assert run(["plan", "--no-measure", url]) == 2
    assert "does not give out parts of files" in capsys.readouterr().err
