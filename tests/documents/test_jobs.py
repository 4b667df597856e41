# SPDX-License-Identifier: Apache-2.0
"""The journal and the runner: what is asked, what is kept, and what a broken file does."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from freehold.documents.document import Document, Page
from freehold.documents.jobs import (
    ErrorInfo,
    Identity,
    Item,
    ItemResult,
    JobSummary,
    Journal,
    Tally,
    place,
    run_job,
)
from freehold.documents.jobs.blocks import WINDOW_CHARACTERS, Pace, arranged, windows
from freehold.errors import (
    CapacityError,
    DocumentError,
    EngineError,
    InvalidParameterError,
    JobError,
)


class Counting:
    """A task; what it does is the executor's."""

    name = "counting"
    VERSION = 1

    def __init__(self, **spec: Any) -> None:
        self._spec = spec

    def spec(self) -> dict[str, Any]:
        return self._spec


TASK = Counting(unit="letters")
IDENTITY = Identity.of(TASK, "a" * 64)


class Letters:
    """Counts letters; texts with "bad" in them fail. Remembers what it computed."""

    def __init__(self, before: Callable[[int], None] = lambda count: None) -> None:
        self.computed: list[str] = []
        self._before = before

    def run(self, task: Any, blocks: Iterable[Sequence[Item]]) -> Iterator[Sequence[ItemResult]]:
        for block in blocks:
            yield [self._result(item) for item in block]

    def _result(self, item: Item) -> ItemResult:
        assert item.document is not None
        self._before(len(self.computed))
        text, content = item.document.text, str(item.content_sha256)
        self.computed.append(text)
        if "bad" in text:
            error = ErrorInfo("AnswerError", "no answer", "ask again")
            return ItemResult(item.id, content, "error", error=error)
        return ItemResult(
            item.id, content, "ok", {"letters": len(text)}, usage={"prompt_tokens": 3}
        )


def item(text: str, name: str | None = None) -> Item:
    return Item.of(Document(text, name or f"{text[:20]}.txt", "txt", 1))


def items(*texts: str) -> list[Item]:
    return [item(text, f"{i}.txt") for i, text in enumerate(texts)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.job.sqlite"


def run(path: Path, given: Iterable[Item], executor: Any = None, **options: Any) -> JobSummary:
    with Journal.open(path, IDENTITY) as journal:
        return run_job(TASK, given, executor or Letters(), journal, **options)


def rows(path: Path) -> list[tuple[str, str, Any]]:
    with Journal.existing(path) as journal:
        return [(row.id, row.status, row.value) for row in journal.rows()]


# -- what is computed ------------------------------------------------------------------------------


def test_same_content_is_computed_once(path: Path) -> None:
    executor = Letters()
    summary = run(path, items("one", "three", "one", "one"), executor)
    assert sorted(executor.computed) == ["one", "three"]
    assert [(status, value["letters"]) for _, status, value in rows(path)] == [
        ("ok", 3), ("ok", 5), ("ok", 3), ("ok", 3),
    ]  # fmt: skip
    assert (summary.tally.ok, summary.tally.computed, summary.tally.shared) == (4, 2, 2)
    assert summary.exit_code == 0


def test_same_content_in_a_later_window_is_computed_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.documents.jobs.blocks.WINDOW_ITEMS", 2)
    executor = Letters()
    summary = run(
        path, items("one", "bad", "one", "bad", "two", "bad"), executor, retry_errors=True
    )
    assert sorted(executor.computed) == ["bad", "one", "two"]
    assert (summary.tally.ok, summary.tally.errors, summary.tally.shared) == (3, 3, 3)


def test_a_second_run_computes_what_is_new(path: Path) -> None:
    run(path, items("one", "three"))
    executor = Letters()
    summary = run(path, items("one", "three", "eleven"), executor)
    assert executor.computed == ["eleven"]
    assert (summary.tally.known, summary.tally.ok) == (2, 3)


def test_a_document_that_changed_is_asked_again(path: Path) -> None:
    run(path, [item("one", "a.txt")])
    run(path, [item("eleven", "a.txt")])
    assert rows(path) == [("a.txt", "ok", {"letters": 6})]
    executor = Letters()
    run(path, [item("one", "a.txt")], executor)  # and back: that is known still
    assert executor.computed == []
    assert rows(path) == [("a.txt", "ok", {"letters": 3})]


def test_failures_are_asked_again_when_asked_to(path: Path) -> None:
    summary = run(path, items("one", "bad"))
    assert (summary.tally.errors, summary.exit_code) == (1, 1)
    executor = Letters()
    assert run(path, items("one", "bad"), executor).exit_code == 1
    assert executor.computed == []
    run(path, items("one", "bad"), executor, retry_errors=True)
    assert executor.computed == ["bad"]
    with Journal.existing(path) as journal:
        assert [row.attempts for row in journal.rows()] == [1, 2]
        assert journal.error_types() == {"AnswerError": 1}


def test_a_success_is_never_replaced_by_a_failure(path: Path) -> None:
    run(path, items("one", "bad"))
    good, bad = items("one", "bad")
    failure = ErrorInfo("AnswerError", "later")
    with Journal.open(path, IDENTITY) as journal:
        journal.record(
            [
                ItemResult(good.id, str(good.content_sha256), "error", error=failure),
                ItemResult(bad.id, str(bad.content_sha256), "ok", {"letters": 3}),
            ]
        )
    assert [status for _, status, _ in rows(path)] == ["ok", "ok"]


def test_unreadable_documents_fail_alone(path: Path) -> None:
    broken = Item.failed("b.pdf", DocumentError("encrypted", hint="give the password"))
    summary = run(path, [item("one", "a.txt"), broken])
    assert (summary.tally.ok, summary.tally.errors) == (1, 1)
    with Journal.existing(path) as journal:
        (failure,) = journal.failures(10)
        assert failure.error == ErrorInfo("DocumentError", "encrypted", "give the password")
        assert journal.counts().pending == 0
    run(path, [item("one", "a.txt"), item("mended", "b.pdf")])
    assert [status for _, status, _ in rows(path)] == ["ok", "ok"]


def test_two_items_of_one_name(path: Path) -> None:
    """The same document twice is one item; another under its name fails and hides nothing."""
    summary = run(path, [item("one", "a"), item("one", "a"), item("two", "a"), item("six", "b")])
    assert [(name, status) for name, status, _ in rows(path)] == [
        ("a", "ok"), ("a (3)", "error"), ("b", "ok"),
    ]  # fmt: skip
    assert (summary.tally.seen, summary.tally.ok, summary.tally.errors) == (3, 2, 1)


def test_names_that_are_no_text(path: Path) -> None:
    run(path, [item("one", "caf\udce9.txt")])
    assert rows(path)[0][0] == "caf\\udce9.txt"


@pytest.mark.parametrize(
    "value", [float("nan"), {1, 2}, {"deep": object()}], ids=["nan", "set", "x"]
)
def test_a_value_that_is_no_json_fails_alone(path: Path, value: Any) -> None:
    class Odd(Letters):
        def _result(self, item: Item) -> ItemResult:
            result = super()._result(item)
            return replace(result, value=value) if item.id == "0.txt" else result

    summary = run(path, items("one", "two"), Odd())
    assert (summary.tally.ok, summary.tally.errors) == (1, 1)


def test_order_of_the_answers_is_that_of_the_run(path: Path) -> None:
    run(path, [item("one", "a"), item("two", "b")])
    run(path, [item("six", "c"), item("two", "b"), item("one", "a")])
    with Journal.existing(path) as journal:
        last = journal.runs()[-1].id
        assert [row.id for row in journal.rows(run=last)] == ["c", "b", "a"]
        assert [row.id for row in journal.rows()] == ["a", "b", "c"]


def test_rows_come_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.documents.jobs.journal._PAGE", 3)
    run(path, items(*map(str, range(10))))
    with Journal.existing(path) as journal:
        assert len(list(journal.rows())) == len(list(journal.rows(run=1))) == 10


# -- how a run ends --------------------------------------------------------------------------------


def test_what_came_before_an_error_is_kept(path: Path) -> None:
    def fail(count: int) -> None:
        if count == 20:
            raise EngineError("the engine broke")

    with pytest.raises(EngineError, match="broke"):
        run(path, items(*map(str, range(40))), Letters(fail))
    with Journal.existing(path) as journal:
        assert 0 < journal.counts().ok <= 20
        assert [each.state for each in journal.runs()] == ["failed"]
    assert run(path, items(*map(str, range(40)))).tally.ok == 40


def test_ctrl_c_is_noted(path: Path) -> None:
    def interrupt(count: int) -> None:
        if count == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, items(*map(str, range(40))), Letters(interrupt))
    with Journal.existing(path) as journal:
        assert [each.state for each in journal.runs()] == ["interrupted"]
        assert journal.counts().ok == 8


def test_cancelling_keeps_what_is_in_flight(path: Path) -> None:
    """Asked from another connection while the job runs."""

    def ask(count: int) -> None:
        if count == 10:
            with Journal.existing(path, write=True) as other:
                other.ask_to_cancel()

    executor = Letters(ask)
    summary = run(path, items(*map(str, range(400))), executor)
    assert summary.state == "cancelled"
    assert summary.exit_code == 1
    assert len(executor.computed) == summary.tally.ok < 400
    assert run(path, items(*map(str, range(400)))).tally.ok == 400


def test_an_executor_must_give_everything_back_once(path: Path) -> None:
    class Loses(Letters):
        def run(self, task: Any, blocks: Any) -> Iterator[Sequence[ItemResult]]:
            for results in super().run(task, blocks):
                yield results[1:]

    class Repeats(Letters):
        def run(self, task: Any, blocks: Any) -> Iterator[Sequence[ItemResult]]:
            for results in super().run(task, blocks):
                yield [*results, results[0]]

    with pytest.raises(EngineError, match="lost 1"):
        run(path, items("one", "two"), Loses())
    with pytest.raises(EngineError, match="twice"):
        run(path, items("one", "two", "three"), Repeats())


def test_progress_is_told(path: Path) -> None:
    run(path, items("one"))
    seen: list[tuple[int, int, int]] = []

    def note(tally: Tally) -> None:
        seen.append((tally.done, tally.known, tally.prompt_tokens))

    run(path, items("one", "two", "bad"), progress=note)
    assert seen[0] == (1, 1, 0)
    assert seen[-1] == (3, 1, 3)


def test_memory_holds_a_window_of_items() -> None:
    read = 0

    def source() -> Iterator[Item]:
        nonlocal read
        for index in range(40):
            read += 1
            yield item("x" * (WINDOW_CHARACTERS // 8), f"{index}")

    next(windows(source()))
    assert read == 8


def test_slow_reading_does_not_keep_the_first_documents_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(100))
    monkeypatch.setattr("freehold.documents.jobs.blocks.time.monotonic", lambda: next(now) * 0.4)
    assert [len(window) for window in windows(items(*map(str, range(10))))] == [3, 3, 3, 1]


def test_an_executor_is_stopped_when_the_journal_fails(path: Path) -> None:
    stopped = []

    class Careful(Letters):
        def run(self, task: Any, blocks: Any) -> Iterator[Sequence[ItemResult]]:
            try:
                yield from super().run(task, blocks)
            finally:
                stopped.append(len(self.computed))

    def fail(tally: Tally) -> None:
        if tally.computed:
            raise CapacityError("the disk is full")

    executor = Careful()
    with pytest.raises(CapacityError):
        run(path, items(*map(str, range(100))), executor, progress=fail)
    assert stopped == [Pace.FIRST]


# -- which job it is -------------------------------------------------------------------------------


def test_another_question_is_another_job(path: Path) -> None:
    run(path, items("one"))
    other = Identity.of(Counting(unit="words"), "a" * 64)
    assert other.fingerprint != IDENTITY.fingerprint
    with pytest.raises(JobError, match="another unit"):
        Journal.open(path, other)
    with pytest.raises(JobError, match="another model"):
        Journal.open(path, Identity.of(TASK, "b" * 64))


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    one = Identity.of(Counting(a=1, b=[1, 2]), "m").fingerprint
    assert one == Identity.of(Counting(b=[1, 2], a=1), "m").fingerprint
    different = [
        Identity.of(Counting(a=1, b=[2, 1]), "m"), Identity.of(Counting(a=1, b=[1, 2]), "n"),
        Identity.of(Counting(a=1, b=[1, 2]), "m", adapter="x"),
        Identity.of(Counting(a=1, b=[1, 2]), "m", sampling={"seed": 1}),
    ]  # fmt: skip
    assert len({one, *(identity.fingerprint for identity in different)}) == 5


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 101, "a b"])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError):
        place.journal_path(name, tmp_path)


def test_jobs_are_found_by_the_beginning_of_their_name(tmp_path: Path) -> None:
    for name in ("letters-1", "letters-2", "words"):
        run(place.journal_path(name, tmp_path), items("one"))
    assert set(place.names(tmp_path)) == {"letters-1", "letters-2", "words"}
    assert place.find("wo", tmp_path) == place.journal_path("words", tmp_path)
    with pytest.raises(JobError, match="2 jobs begin with letters"):
        place.find("letters", tmp_path)
    with pytest.raises(JobError, match="no job 'x'"):
        place.find("x", tmp_path)


def test_one_process_at_a_time(path: Path) -> None:
    assert place.worker(path) is None
    with place.locked(path):
        assert place.worker(path) is not None
        with pytest.raises(JobError, match="is being worked on by process") as caught:
            place.locked(path).__enter__()
        assert "jobs cancel j" in str(caught.value.hint)
    assert place.worker(path) is None
    with place.locked(path):
        pass


def test_reading_while_somebody_writes(path: Path) -> None:
    """Partial results are readable at any time, from any thread or process."""
    counts: list[int] = []

    def look(count: int) -> None:
        if count in (50, 300):
            reader = threading.Thread(target=lambda: counts.append(len(rows(path))))
            reader.start()
            reader.join()

    run(path, items(*map(str, range(400))), Letters(look))
    assert counts == [400, 400]


# -- files that are not as they should be ----------------------------------------------------------


def test_a_full_disk_keeps_what_was_answered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.documents.jobs.blocks.WINDOW_ITEMS", 100)
    given = items(*(f"{i}" * 99 for i in range(2000)))
    with Journal.open(path, IDENTITY) as journal:
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 60}")  # SQLite's own "disk full"
        with pytest.raises(CapacityError, match="disk is full"):
            run_job(TASK, given, Letters(), journal)
        kept = journal.counts().ok
    assert 0 < kept < 2000
    executor = Letters()
    assert run(path, given, executor).tally.ok == 2000
    assert len(executor.computed) == 2000 - kept


def test_a_journal_of_a_newer_version(path: Path) -> None:
    run(path, items("one"))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(JobError, match="newer freehold"):
        Journal.open(path, IDENTITY)


def test_a_database_of_somebody_else(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(JobError, match="not the journal"):
        Journal.open(path, IDENTITY)


def test_no_database_at_all(path: Path) -> None:
    path.write_bytes(b"once upon a time, but no database" * 100)
    with pytest.raises(JobError, match="damaged"):
        Journal.open(path, IDENTITY)


def test_an_empty_file_is_taken(path: Path) -> None:
    path.touch()
    assert run(path, items("one")).tally.ok == 1


def test_a_damaged_journal_is_a_sentence(path: Path) -> None:
    """Pages of rubbish all over the file: whatever is asked, it is one of our errors or right."""
    run(path, items(*(f"{i}" * 50 for i in range(500))))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(JobError, match="damaged"):
        run(path, items(*(f"{i}" * 50 for i in range(500))))


def test_a_journal_that_is_not_there(path: Path) -> None:
    with pytest.raises(JobError, match="no such job"):
        Journal.existing(path)


# -- how items are put together --------------------------------------------------------------------


def test_texts_that_begin_alike_come_together() -> None:
    one, two = "A" * 250, "B" * 250
    given = items(one + "1", "short", two + "1", one + "2", "x" * 5000, two + "2", one + "3")
    texts = [each.document.text for each in arranged(given) if each.document]
    beginnings = [text[0] for text in texts]
    assert beginnings in (list("xsAAABB"), list("AAABBxs"))


def test_blocks_grow_while_they_are_quick_and_shrink_when_they_are_not() -> None:
    pace = Pace()
    given = items(*(["word"] * 3000))
    for _ in range(10):
        pace.took(len(pace.take(given, 0)), 0.01)
    assert len(pace.take(given, 0)) == Pace.MOST
    for _ in range(10):
        pace.took(pace.size, 60.0)
    assert len(pace.take(given, 0)) == Pace.FIRST
    assert len(pace.take(given, 2999)) == 1
    long = items(*(["x" * 300_000] * 10))
    assert len(pace.take(long, 0)) == 1


def test_where_pages_lie_is_part_of_the_content() -> None:
    """Answers name pages: the same words on other pages have another answer."""

    def content(*pages: Page, total: int | None = 2) -> str | None:
        return Item.of(
            Document("one two", "a", "pdf", 1, pages=pages, pages_total=total)
        ).content_sha256

    known = content(Page(1, 0, 3), Page(2, 3, 7))
    assert known == content(Page(1, 0, 3), Page(2, 3, 7))
    others = {
        content(Page(1, 0, 4), Page(2, 4, 7)), content(Page(1, 0, 3), Page(3, 3, 7)),
        content(Page(1, 0, 3), Page(2, 3, 7), total=3), content(total=None),
    }  # fmt: skip
    assert len(others | {known}) == 5
