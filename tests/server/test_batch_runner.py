# SPDX-License-Identifier: Apache-2.0
"""The order in which batches are worked off, and what a full or broken disk does to them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from freehold.server.batches import runner as batch_runner
from freehold.server.batches import store as batch_store
from freehold.server.batches.lines import Journal, Lines, scan
from freehold.server.batches.runner import INPUT, BatchRunner
from freehold.server.batches.store import Batch, BatchStore
from freehold.server.failures import RequestError
from freehold.server.files.disk import FolderLock, Quota, write_atomically
from freehold.server.files.store import FileStore

URL = "/v1/x"


class Bench:
    """A runner over a temporary folder; lines wait until they are let go."""

    def __init__(self, folder: Path, *, limit: int = 1 << 20) -> None:
        self.store = BatchStore(folder, Quota(limit))
        self.others = 0  # requests beside the batches'
        self.under_way: dict[str, asyncio.Future[int]] = {}
        self.most = 0
        self.written: list[tuple[str, int, int]] = []

    def start(self, max_lines: int = 4) -> BatchRunner:
        self.runner = BatchRunner(
            self.store, self.answer, lambda: self.others, {"test": self.finish},
            max_lines=max_lines, sweep=self.store.sweep,
        )  # fmt: skip
        return self.runner

    async def answer(self, endpoint: str, body: bytes, owner: str) -> tuple[int, int, bytes]:
        name = json.loads(body)["name"]
        self.under_way[name] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.under_way))
        try:
            status = await self.under_way[name]
        finally:
            del self.under_way[name]
        return status, 1, json.dumps({"name": name}).encode()

    def finish(self, batch: Batch, lines: Lines, journal: Journal) -> None:
        self.written.append((batch.batch_id, len(lines), len(journal.places)))

    def batch(self, prefix: str, count: int) -> Batch:
        batch = self.store.create("batch", "test", "", URL, "24h", 1000)
        lines = [
            {"custom_id": str(i), "url": URL, "body": {"name": f"{prefix}{i}"}}
            for i in range(count)
        ]
        path = self.store.place(batch) / INPUT
        path.write_text("\n".join(map(json.dumps, lines)))
        self.store.add(batch)
        self.runner.submit(batch)
        return batch

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    def let_go(self, status: int = 200) -> None:
        for waiting in list(self.under_way.values()):
            if not waiting.done():
                waiting.set_result(status)

    async def finished(self, *batches: Batch) -> None:
        async with asyncio.timeout(20):
            while not all(batch.over for batch in batches):
                self.let_go()
                await asyncio.sleep(0.005)


def run(work: Any) -> None:
    asyncio.run(work)


def test_lines_wait_for_others_and_batches_take_turns(tmp_path):
    async def check() -> None:
        bench = Bench(tmp_path)
        runner = bench.start(max_lines=4)
        bench.others = 1
        a, b = bench.batch("a", 6), bench.batch("b", 6)
        await bench.until(lambda: a.status == b.status == "in_progress" and bench.under_way)
        await asyncio.sleep(0.05)
        assert len(bench.under_way) == 1
        bench.others = 0
        await bench.until(lambda: len(bench.under_way) == 4)
        assert {name[0] for name in bench.under_way} == {"a", "b"}
        bench.others = 1
        bench.let_go()
        await bench.until(lambda: a.completed + b.completed == 4)
        bench.most = 0
        await bench.until(lambda: len(bench.under_way) == 1)
        for _ in range(2):  # one at a time goes on
            bench.let_go()
            await asyncio.sleep(0.05)
        assert bench.most == 1
        bench.others = 0
        await bench.until(lambda: len(bench.under_way) == 4)
        await bench.finished(a, b)
        assert (a.status, a.completed, b.completed) == ("completed", 6, 6)
        assert sorted(bench.written) == sorted((x.batch_id, 6, 6) for x in (a, b))
        await runner.close()

    run(check())


def test_a_server_that_has_no_room_is_asked_again(tmp_path):
    async def check() -> None:
        bench = Bench(tmp_path)
        bench.start()
        batch = bench.batch("a", 2)
        await bench.until(lambda: len(bench.under_way) == 2)
        bench.let_go(503)
        await bench.until(lambda: not bench.under_way)
        assert (batch.completed, batch.failed) == (0, 0)
        await bench.finished(batch)
        assert (batch.completed, batch.failed) == (2, 0)
        await bench.runner.close()

    run(check())


def test_a_full_disk_makes_batches_wait(tmp_path):
    async def check() -> None:
        bench = Bench(tmp_path)
        bench.start()
        room = bench.store.quota.limit - bench.store.quota.used
        bench.store.quota.take(room)
        batch = bench.batch("a", 1)
        await bench.until(lambda: batch.status == "in_progress")
        await asyncio.sleep(0.05)
        assert not bench.under_way
        bench.store.quota.give(room)
        await bench.finished(batch)
        assert batch.completed == 1
        await bench.runner.close()

    run(check())


def test_an_answer_the_disk_refuses_is_written_later(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_runner, "_DISK_SECONDS", 0.01)
    refused = []
    append = Journal.append

    def sometimes(journal: Journal, record: dict[str, Any]) -> None:
        if len(refused) < 3:
            refused.append(record["line"])
            raise OSError("no space left")
        append(journal, record)

    monkeypatch.setattr(Journal, "append", sometimes)

    async def check() -> None:
        bench = Bench(tmp_path)
        bench.start()
        batch = bench.batch("a", 2)
        await bench.finished(batch)
        assert (batch.completed, len(refused)) == (2, 3)
        await bench.runner.close()

    run(check())


def test_what_was_done_before_an_end_is_not_done_again(tmp_path):
    async def before() -> str:
        bench = Bench(tmp_path)
        bench.start(max_lines=1)
        batch = bench.batch("a", 5)
        for count in (1, 2):
            await bench.until(lambda: bench.under_way)
            bench.let_go()
            await bench.until(lambda count=count: batch.completed == count)
        await bench.until(lambda: bench.under_way)
        await bench.runner.close()
        return batch.batch_id

    async def after(batch_id: str) -> None:
        bench = Bench(tmp_path)
        asked: list[str] = []
        answer = bench.answer

        async def noted(endpoint: str, body: bytes, owner: str) -> tuple[int, int, bytes]:
            asked.append(json.loads(body)["name"])
            return await answer(endpoint, body, owner)

        bench.answer = noted  # type: ignore[method-assign]
        bench.start()
        batch = bench.store.get("", "test", batch_id)
        await bench.finished(batch)
        assert sorted(asked) == ["a2", "a3", "a4"]
        assert batch.completed == 5
        assert bench.written == [(batch_id, 5, 5)]
        assert sorted(path.name for path in bench.store.place(batch).iterdir()) == ["batch.json"]
        await bench.runner.close()

    batch_id = asyncio.run(before())
    run(after(batch_id))


def test_a_journal_ends_where_it_was_torn(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    for line in (0, 2):
        journal.append({"line": line, "status": 200, "body": {"usage": {"total_tokens": 3}}})
    journal.append({"line": 2, "status": 500, "body": {}})  # counts once
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) - 1, whole.index(b"\n"), -7):
        path.write_bytes(whole[:cut])
        again = Journal(path)
        assert list(again.places) == [0]
        assert again.read(0)["line"] == 0
        assert again.read(2) is None
        assert again.usage == {"total_tokens": 3}
        again.append({"line": 2, "status": 400, "body": {}})
        assert (again.completed, again.failed) == (1, 1)
        assert again.read(2)["status"] == 400
        again.close()


def test_a_scan_finds_lines_where_they_are(tmp_path):
    path = tmp_path / "lines"
    bodies = [{"text": "ä" * i} for i in range(50)]
    path.write_text(
        "\n\n".join(
            json.dumps({"custom_id": f"{i}", "url": URL, "body": body}, ensure_ascii=False)
            for i, body in enumerate(bodies)
        ),
        encoding="utf-8",
    )
    lines = scan(path, URL)
    assert [lines.read(i) for i in range(len(lines))] == [
        (f"{i}", body) for i, body in enumerate(bodies)
    ]


def test_a_folder_has_one_owner_and_a_quota_is_kept(tmp_path):
    lock = FolderLock(tmp_path / "a")
    with pytest.raises(BlockingIOError):
        FolderLock(tmp_path / "a")
    lock.release()
    FolderLock(tmp_path / "a").release()
    quota = Quota(10)
    quota.take(10)
    with pytest.raises(RequestError):
        quota.take(1)
    quota.take(1, anyway=True)
    assert quota.full
    write_atomically(tmp_path / "b", b"1")
    write_atomically(tmp_path / "b", b"22")
    assert (tmp_path / "b").read_bytes() == b"22"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_of_batches_that_are_over_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_store, "MAX_KEPT", 3)
    monkeypatch.setattr(batch_store, "MAX_ACTIVE", 2)
    store = BatchStore(tmp_path, Quota(1 << 20))

    def make(owner: str, *, over: bool = True) -> Batch:
        batch = store.create("batch", "test", owner, URL, "24h", 1000)
        if over:
            batch.enter("completed")
        store.add(batch)
        return batch

    other = make("bob")
    made = [make("alice") for _ in range(5)]
    assert store.of("alice", "test") == made[2:]
    assert store.of("bob", "test") == [other]
    for _ in range(2):
        make("carol", over=False)
    with pytest.raises(RequestError, match="not over"):
        make("carol")
    assert len(list(tmp_path.iterdir())) == 6
    made[2].times["completed"] -= 31 * 86400
    store.sweep()
    assert store.of("alice", "test") == made[3:]
    used = store.quota.used
    assert BatchStore(tmp_path, Quota(1 << 20)).quota.used == used


def test_files_are_gone_when_their_time_is_over(tmp_path):
    store = FileStore(tmp_path, Quota(100))
    kept, gone = store.begin(""), store.begin("")
    for file in (kept, gone):
        file.write(b"abc")
    kept.commit("a", "batch", 60)
    record = gone.commit("b", "batch", 0)
    with pytest.raises(RequestError):
        store.get("", record.file_id)
    assert [file.file_id for file in store.of("")] == [kept.file_id]
    store.sweep()
    assert store.quota.used == 3
    assert not store.data(record).exists()
