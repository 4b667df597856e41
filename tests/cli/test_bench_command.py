# SPDX-License-Identifier: Apache-2.0
"""`freehold bench`: the rows asked for, the work it states, and models without a tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import BABY_Q8, DEVICES, STORIES, STORIES_HF, model

import tiny_models
import tiny_moe
from freehold.cli.main import run
from freehold.planner.layout import packed_bytes
from freehold.planner.machine import Rates
from freehold.planner.speed import Work

QUICK = ("--repeat", "1", "--json")


def bench(capsys, path: str, *args: str) -> dict:
    assert run(["bench", path, *QUICK, *args]) == 0
    captured = capsys.readouterr()
    assert "measuring" in captured.err  # progress, and on stderr
    return json.loads(captured.out)


@pytest.mark.parametrize("device", DEVICES)
def test_the_rows_are_those_asked_for(device, capsys):
    report = bench(
        capsys, model(*STORIES), "--backend", device, "--prefill", "8,16", "--prefill", "24",
        "--decode", "4", "--depth", "0,20", "--streams", "1,3",
    )  # fmt: skip
    rows = [(r["kind"], r["tokens"], r["depth"], r["streams"]) for r in report["results"]]
    assert rows == [
        ("prefill", 8, 0, 1), ("prefill", 16, 0, 1), ("prefill", 24, 0, 1),
        ("decode", 4, 0, 1), ("decode", 4, 0, 3), ("decode", 4, 20, 1), ("decode", 4, 20, 3),
    ]  # fmt: skip
    for row in report["results"]:
        assert 0 < row["min"] <= row["tokens_per_second"] <= row["max"]
        assert row["bytes_per_token"] > 0
        assert row["operations_per_token"] > 0
        if report["limits"]:
            assert 0 < row["share_of_limit"] < 1.5


def test_the_stated_work_is_the_models(capsys):
    report = bench(
        capsys, model(*BABY_Q8), "--backend", "reference", "--prefill", "4", "--decode", "1",
        "--streams", "1,2", "--kv-type", "f32",
    )  # fmt: skip
    prefill, one, two = report["results"]
    # 128 wide, 5 layers: q and o 128², k and v 128·64, three feed-forward 128·352; tied output.
    layers = 5 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352)
    head = 105 * 128
    attention = 4 * 5 * 128  # per position seen
    cache = 5 * 2 * 64 * 4
    shapes = [(128, 128)] * 2 + [(64, 128)] * 2 + [(352, 128)] * 2 + [(128, 352)]
    weights = 5 * sum(packed_bytes(shape, "Q8_0") for shape in shapes)
    weights += packed_bytes((105, 128), "Q8_0")
    assert weights == pytest.approx((layers + head) * 34 / 32, rel=0.01)
    assert one["operations_per_token"] == 2 * (layers + head) + attention * 2
    assert one["bytes_per_token"] == weights + 2 * cache
    assert two["bytes_per_token"] == weights / 2 + 2 * cache
    assert prefill["operations_per_token"] == 2 * layers + 2 * head / 4 + attention * 2.5
    assert prefill["bytes_per_token"] == (weights + 4 * cache) / 4


@pytest.mark.parametrize("one_by_one", [False, True])
def test_of_experts_only_the_chosen_count(one_by_one, tmp_path, capsys):
    tiny = tiny_moe.build("mixtral")  # 2 of 8 experts, 3 layers, 64 wide
    tiny_moe.write_gguf(tiny, tmp_path / "moe.gguf", one_by_one=one_by_one)
    report = bench(capsys, str(tmp_path / "moe.gguf"), "--backend", "reference", "--prefill", "4",
                   "--decode", "1", "--kv-type", "f32")  # fmt: skip
    decode = next(row for row in report["results"] if row["kind"] == "decode")
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 8 * 64 + 2 * 3 * 64 * 96  # q, o, k, v, router, experts
    weights = 3 * layer + tiny_models.VOCAB * 64
    assert decode["operations_per_token"] == 2 * weights + 2 * 4 * 3 * 64
    # The router's 8 rows and the vocabulary's lie in memory as whole groups of 16.
    groups = 3 * 8 * 64 + -tiny_models.VOCAB % 16 * 64
    assert decode["bytes_per_token"] == 4 * (weights + groups) + 2 * 3 * 2 * 32 * 4


def test_the_limit_is_the_slower_of_reading_and_computing():
    rates = Rates(read=10e9, int8=100e9)
    reading = Work(bytes_per_token=1e9, operations_per_token=1e9)
    computing = Work(bytes_per_token=1e8, operations_per_token=4e9)
    assert 1 / reading.seconds(rates) == pytest.approx(10.0)
    assert 1 / computing.seconds(rates) == pytest.approx(25.0)


def test_a_model_without_a_tokenizer(tmp_path, capsys):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(model(*STORIES_HF)) / name, tmp_path / name)
    report = bench(
        capsys, str(tmp_path), "--backend", "reference", "--prefill", "8", "--decode", "2"
    )
    assert len(report["results"]) == 2


def test_the_table_is_for_people(capsys):
    args = ["--backend", "reference", "--prefill", "8", "--decode", "2", "--repeat", "1"]
    assert run(["bench", model(*STORIES), *args]) == 0
    out = capsys.readouterr().out
    assert "tok/s" in out
    assert "prefill 8" in out
    assert "decode 2, 1 stream" in out


@pytest.mark.parametrize(
    "args",
    [
        ["--prefill", "x"], ["--prefill", "1,,2"], ["--streams", "0"], ["--decode", "-1"],
        ["--depth", "-1"], ["--prefill", "100000"], ["--prefill", "0", "--decode", "0"],
        ["--repeat", "0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_impossible_measurements_are_refused(args, capsys):
    assert run(["bench", model(*STORIES), "--backend", "reference", *args]) == 2
    captured = capsys.readouterr()
    assert "error: " in captured.err
    assert captured.out == ""
