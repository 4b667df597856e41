# SPDX-License-Identifier: Apache-2.0
"""What is remembered of runs, and what predictions make of it."""

from __future__ import annotations

import json
import threading

import pytest

from freehold.planner.calibration import (
    FILE_NAME,
    MAX_BYTES,
    MAX_RECORDS,
    Calibration,
    Record,
    load_calibration,
    remember,
)


def decode(predicted, actual, kind="Q4_K"):
    return Record("decode", kind, predicted, actual)


def test_nothing_known_is_a_wide_range():
    factor = Calibration().factor("decode", "Q4_K")
    assert (factor.middle, factor.runs) == (1.0, 0)
    assert factor.low < 0.7
    assert factor.high > 1.4


def test_runs_of_the_kind_count_before_those_of_others():
    known = Calibration([decode(1, 2), decode(1, 2.2), decode(1, 1.8), decode(1, 5, "Q8_0")])
    own = known.factor("decode", "Q4_K")
    assert own.middle == pytest.approx(2.0)
    assert own.runs == 3
    assert own.low <= 1.8
    assert own.high >= 2.2
    other = known.factor("decode", "F16")
    assert other.middle == pytest.approx(3.5)  # between the two kinds
    assert known.factor("prefill", "Q4_K").runs == 0


def test_one_odd_run_moves_little_and_an_absurd_one_nothing():
    runs = [decode(1, 2)] * 9
    assert Calibration([*runs, decode(1, 9)]).factor("decode", "Q4_K").middle == 2.0
    assert Calibration([*runs, decode(1, 4000)]).factor("decode", "Q4_K").runs == 9


def test_a_range_is_never_narrower_than_machines_are_steady():
    factor = Calibration([decode(1, 2)] * 20).factor("decode", "Q4_K")
    assert factor.low < 1.8
    assert factor.high > 2.2


def test_what_is_remembered_is_read_back_for_this_machine_alone(tmp_path):
    remember(tmp_path, "here", [decode(1.0, 3.0)])
    remember(tmp_path, "elsewhere", [decode(1.0, 9.0)])
    assert load_calibration(tmp_path, "here").factor("decode", "Q4_K").middle == 3.0
    assert load_calibration(tmp_path, "nowhere").factor("decode", "Q4_K").runs == 0
    assert load_calibration(None, "here").factor("decode", "Q4_K").runs == 0


def test_only_numbers_and_kinds_are_kept(tmp_path):
    remember(tmp_path, "here", [decode(1.0, 3.0)])
    line = json.loads((tmp_path / FILE_NAME).read_text())
    assert set(line) == {"phase", "kind", "seconds", "machine", "at"}


@pytest.mark.parametrize(
    "line",
    [
        "not json", "{}", "[]", '{"phase": "decode"}', "null",
        '{"phase": "decode", "kind": "Q4_K", "seconds": [0, 1], "machine": "here"}',
        '{"phase": "decode", "kind": "Q4_K", "seconds": [NaN, 1], "machine": "here"}',
        '{"phase": "decode", "kind": "Q4_K", "seconds": "ab", "machine": "here"}',
        '{"phase": "gossip", "kind": "Q4_K", "seconds": [1, 1], "machine": "here"}',
        '{"phase": "decode", "kind": "Q4_K", "seconds": [1, 1, 1], "machine": "here"}',
        "\x00" * 4096,
    ],
)  # fmt: skip
def test_lines_that_make_no_sense_are_passed_over(line, tmp_path):
    (tmp_path / FILE_NAME).write_text(f"{line}\n")
    remember(tmp_path, "here", [decode(1.0, 3.0)])
    assert load_calibration(tmp_path, "here").factor("decode", "Q4_K").middle == 3.0


def test_the_file_is_bounded_and_keeps_the_latest(tmp_path):
    for turn in range(8):
        remember(tmp_path, "here", [decode(1.0, 1.0 + turn)] * 250)
    path = tmp_path / FILE_NAME
    assert path.stat().st_size <= MAX_BYTES + 250 * 200
    assert len(path.read_bytes().splitlines()) <= MAX_RECORDS + 1000
    assert load_calibration(tmp_path, "here").factor("decode", "Q4_K").middle == 8.0


def test_a_huge_file_is_not_read_whole(tmp_path):
    with (tmp_path / FILE_NAME).open("wb") as file:
        file.truncate(1 << 40)
    assert load_calibration(tmp_path, "here").factor("decode", "Q4_K").runs == 0


def test_many_may_write_at_once(tmp_path):
    def write():
        for _ in range(40):
            remember(tmp_path, "here", [decode(1.0, 3.0)])

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert len(lines) == 320
    assert all(json.loads(line)["seconds"] == [1.0, 3.0] for line in lines)


def test_what_cannot_be_written_is_forgotten(tmp_path):
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file", "here", [decode(1.0, 3.0)])
    remember(None, "here", [decode(1.0, 3.0)])
    remember(tmp_path, "here", [decode(-1.0, 3.0), decode(float("inf"), 1.0)])
    assert not (tmp_path / FILE_NAME).exists()
