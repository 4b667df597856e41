# SPDX-License-Identifier: Apache-2.0
"""A job that is killed again and again ends as if nothing had been: nothing lost, nothing twice."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import job_worker
import pytest

from freehold.documents.jobs import Journal
from freehold.documents.jobs.blocks import Pace

WORKER = Path(__file__).with_name("job_worker.py")


def start(journal: Path, log: Path, count: int, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(journal), str(log), str(count), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def contents_done(journal: Path) -> set[str]:
    """What the journal holds, read as anybody may read it."""
    if not journal.exists():
        return set()
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as database:
        try:
            return {raw.hex() for (raw,) in database.execute("SELECT content FROM result")}
        except sqlite3.OperationalError:  # killed before it had made its tables
            return set()


def computed(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def whole_lines(log: Path) -> list[str]:
    return [line for line in computed(log) if len(line) == 64]


def work_with_kills(tmp_path: Path, count: int, kills: int, pause: float, seed: int) -> str:
    """Work on a job until it is done, killing the process at random moments; its last line."""
    journal, log = tmp_path / "j.job.sqlite", tmp_path / "log"
    chance = random.Random(seed)
    per_kill = count // (kills + 1)
    for _ in range(kills):
        before = len(whole_lines(log))
        done = contents_done(journal)
        process = start(journal, log, count, pause)
        # A moment is so many computations from now: time would say little on a busy machine.
        goal = before + chance.randrange(per_kill)
        while len(whole_lines(log)) < goal and process.poll() is None:
            time.sleep(chance.random() * 0.01)
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        again = set(whole_lines(log)[before:]) & done
        assert not again, f"{len(again)} contents were computed that the journal had"
        assert contents_done(journal) >= done
    before, done = len(whole_lines(log)), contents_done(journal)
    process = start(journal, log, count, pause)
    last = process.communicate(timeout=600)[0]
    assert process.returncode == 0
    assert not set(whole_lines(log)[before:]) & done
    return last


def judge(tmp_path: Path, count: int, kills: int) -> Counter[str]:
    """Exactly one right answer to every document; how often each content was computed."""
    with Journal.existing(tmp_path / "j.job.sqlite") as journal:
        seen = 0
        for index, row in enumerate(journal.rows()):
            assert row.id == f"d{index}.txt"
            assert row.status == "ok"
            assert row.value == len(job_worker.text_of(index))
            seen += 1
        assert seen == count
        assert journal.counts().ok == count
        assert [run.state for run in journal.runs()][-1] == "done"
    times = Counter(whole_lines(tmp_path / "log"))
    assert len(times) == count - count // job_worker.TWINS
    most = Pace.MOST * (job_worker.IN_FLIGHT + 1)  # in flight when a process died
    assert sum(times.values()) - len(times) <= kills * most
    return times


def test_a_killed_job_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    last = work_with_kills(tmp_path, count=2000, kills=4, pause=0.01, seed=1)
    judge(tmp_path, count=2000, kills=4)
    assert last.split()[0] == "2000"


@pytest.mark.slow
def test_a_hundred_thousand_documents_and_twenty_kills(tmp_path: Path) -> None:
    started = time.monotonic()
    last = work_with_kills(tmp_path, count=100_000, kills=20, pause=0.0, seed=2)
    times = judge(tmp_path, count=100_000, kills=20)
    repeated = sum(times.values()) - len(times)
    ok, left, first, peak = last.split()
    print(
        f"\n{ok} answers, {len(times)} contents, {repeated} computed again, in "
        f"{time.monotonic() - started:.0f} s; the last process computed {left}, began after "
        f"{first} s, peak {int(peak) / 1024:.0f} MiB"
    )
    # All over again from a journal that has everything: how long it takes to find that out.
    process = start(tmp_path / "j.job.sqlite", tmp_path / "log", 100_000, 0.0)
    again = process.communicate(timeout=600)[0].split()
    assert again[:2] == ["100000", "0"]
    print(f"a finished job is found finished in {again[2]} s, peak {int(again[3]) / 1024:.0f} MiB")
    # Ten times the documents may take no more memory than a window of them.
    small = start(tmp_path / "s.job.sqlite", tmp_path / "slog", 10_000, 0.0)
    lesser = int(small.communicate(timeout=600)[0].split()[3])
    print(f"a job of 10,000 peaks at {lesser / 1024:.0f} MiB")
    assert int(peak) - lesser < 16 * 1024
