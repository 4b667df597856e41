# SPDX-License-Identifier: Apache-2.0
"""Runs a job: what is not in the journal yet goes to the executor, what comes back is kept at once.

Memory does not grow with the job: items are read a window at a time, as the executor asks for
blocks. Knows no model, no file format and no terminal.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from freehold.documents.jobs.blocks import Pace, arranged, windows
from freehold.documents.jobs.items import ErrorInfo, Item, ItemResult, Work, dumps
from freehold.documents.jobs.journal import Journal
from freehold.documents.jobs.rows import State
from freehold.errors import EngineError

if TYPE_CHECKING:
    from freehold.documents.executors import Executor


@dataclass(slots=True)
class Tally:
    """How far a run is, in items; `tokens` are those of the answers computed in this run."""

    seen: int = 0  # items read so far
    all_seen: bool = False
    ok: int = 0
    errors: int = 0
    known: int = 0  # of those, answered by an earlier run
    shared: int = 0  # of those, answered with another item of the same content
    computed: int = 0  # contents that this run computed
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0

    @property
    def done(self) -> int:
        """Items something came of."""
        return self.ok + self.errors


@dataclass(frozen=True, slots=True)
class JobSummary:
    """What a run came to."""

    name: str
    run: int
    state: State
    tally: Tally
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 only where every item has an answer."""
        return 0 if self.state == "done" and not self.tally.errors else 1


Progress = Callable[[Tally], None]


def run_job(
    task: Work,
    items: Iterable[Item],
    executor: Executor,
    journal: Journal,
    *,
    retry_errors: bool = False,
    progress: Progress | None = None,
    record: Mapping[str, Any] | None = None,
) -> JobSummary:
    """Answer all items that the journal has no answer to; the caller holds the job's lock.

    With `retry_errors`, those that failed are asked again; without, they are failures still.
    `record` is what the run is to be reproduced with. An error that ends the job is raised once
    what came before it is kept; asked to stop by `Journal.ask_to_cancel`, what is in flight is
    waited for and kept.
    """
    journal.begin(record or {})
    run = _Run(task, executor, journal, retry_errors, progress)
    started = time.monotonic()
    state: State = "failed"
    try:
        run.work(items)
        state = "cancelled" if run.cancelled else "waiting" if run.left else "done"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        seconds = time.monotonic() - started
        counts = {**asdict(run.tally), "seconds": round(seconds, 3)}
        _end(journal, state, counts)
    return JobSummary(journal.name, journal.run, state, run.tally, seconds)


def _end(journal: Journal, state: State, counts: Mapping[str, Any]) -> None:
    """A journal that cannot be written any more has its error raised already."""
    try:
        journal.end(state, counts)
    except Exception:
        if state in ("done", "cancelled"):
            raise


class _Run:
    """The state of one run."""

    def __init__(
        self, task: Work, executor: Executor, journal: Journal, retry: bool,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.task, self.executor, self.journal, self.retry = task, executor, journal, retry
        self.progress = progress
        self.tally = Tally()
        self.cancelled = False
        self._position = 0  # in the order of the run, of the next item
        self._pace = Pace()
        # Contents that were handed out, with how many items wait for each and since when.
        self._waiting: defaultdict[str, int] = defaultdict(int)
        self._handed: dict[str, tuple[int, float]] = {}  # last item of a block -> size, time

    @property
    def left(self) -> bool:
        """Whether something that was handed out has not come back."""
        return bool(self._waiting)

    def work(self, items: Iterable[Item]) -> None:
        # Closed at once when something fails: nobody computes for a journal that is not written.
        with closing(self.executor.run(self.task, self._blocks(items))) as stream:
            for results in stream:
                self._keep(results)
                if not self.cancelled and self.journal.cancel_asked:
                    self.cancelled = True
        if self.left and not getattr(self.executor, "leaves_items", False):
            raise EngineError(f"the executor lost {len(self._waiting):,} of its items")

    def _blocks(self, items: Iterable[Item]) -> Iterator[Sequence[Item]]:
        for window in windows(items):
            todo = arranged(self._new(window))
            self._report()
            start = 0
            while start < len(todo):
                block = self._pace.take(todo, start)
                start += len(block)
                if self.cancelled or self.journal.cancel_asked:
                    self.cancelled = True
                    for item in todo[start - len(block) :]:  # nobody will ever ask for these
                        self._waiting.pop(str(item.content_sha256))
                    return
                self._handed[block[-1].id] = len(block), time.monotonic()
                yield block
        self.tally.all_seen = True

    def _new(self, window: Sequence[Item]) -> list[Item]:
        """Those of a window whose content nobody has computed or is computing."""
        todo: list[Item] = []
        places = self.journal.register(window, self._position)
        self._position += len(window)
        tally = self.tally
        for item, (state, ours) in zip(window, places, strict=True):
            if state == "again":
                continue
            tally.seen += 1
            content = item.content_sha256
            if state == "refused" or content is None or item.document is None:
                tally.errors += 1
            elif content in self._waiting:
                self._waiting[content] += 1
            elif state == "ok" or (state == "error" and (ours or not self.retry)):
                tally.ok += state == "ok"
                tally.errors += state == "error"
                tally.known += not ours
                tally.shared += ours
            else:
                self._waiting[content] = 1
                todo.append(item)
        return todo

    def _keep(self, results: Sequence[ItemResult]) -> None:
        sound = [_sound(result) for result in results]
        self.journal.record(sound)
        now, tally = time.monotonic(), self.tally
        for result in sound:
            items = self._waiting.pop(result.content_sha256, 0)
            if not items:
                raise EngineError(f"the executor gave {result.item_id:.100} back twice")
            tally.computed += 1
            tally.shared += items - 1
            if result.status == "ok":
                tally.ok += items
            else:
                tally.errors += items
            for name in ("prompt_tokens", "cached_tokens", "answer_tokens"):
                setattr(tally, name, getattr(tally, name) + result.usage.get(name, 0))
            if result.item_id in self._handed:
                size, since = self._handed.pop(result.item_id)
                self._pace.took(size, now - since)
        self._report()

    def _report(self) -> None:
        if self.progress is not None:
            self.progress(self.tally)


def _sound(result: ItemResult) -> ItemResult:
    """A value that no JSON can hold is a failure of its item, not of the job."""
    try:
        dumps(result.value)
    except (ValueError, TypeError, RecursionError) as error:
        why = ErrorInfo("AnswerError", f"the answer cannot be stored as JSON: {error}")
        return ItemResult(result.item_id, result.content_sha256, "error", error=why)
    return result
