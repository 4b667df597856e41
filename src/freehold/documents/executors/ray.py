# SPDX-License-Identifier: Apache-2.0
"""The executor of a Ray cluster: workers on its nodes, each with a model of its own.

Ray starts the workers and carries blocks to them and results back; the journal stays where the job
was started. A worker that dies is replaced and its blocks are given out again; a document that
takes one worker after another with it is given up, and the job goes on. Every node must have
freehold installed and the model under the same path or name.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from freehold import config
from freehold.documents import tasks
from freehold.documents.answering import Answering, EngineWatch
from freehold.documents.jobs.items import ErrorInfo, Item, ItemResult
from freehold.errors import InvalidParameterError, JobError

_BLOCKS = 4  # in flight at each worker; they share the steps of its engine
_DEATHS = 2  # of workers under one document and nothing else, after which it is given up
# Workers that died one after another, no block answered between them: it is not the documents.
_STILLBORN = 4  # before they had a model
_FUTILE = 40  # a bad document in a block takes less than this to be found


class RayExecutor:
    """Answers with `workers` workers, each of which opens `model` with `settings` (of `LLM`).

    `address` is a running cluster's (``auto``, ``ray://…``); without one a cluster of this machine
    alone is started and ended with the job. Raises JobError where Ray is not installed or no
    cluster answers.
    """

    def __init__(
        self, model: str, settings: Mapping[str, Any], *, workers: int = 2,
        adapter: str | None = None, address: str | None = None, model_digest: str | None = None,
    ) -> None:  # fmt: skip
        if workers < 1:
            raise InvalidParameterError("a job needs at least one worker")
        self._ray = _ray()
        self._given = model, dict(settings), adapter
        self._count, self._digest = workers, model_digest
        self.deaths = 0  # of workers, so far
        self._started = _connect(self._ray, address)
        cpus = self._ray.cluster_resources().get("CPU", 1.0)
        share = settings.get("threads") or max(1, math.floor(cpus / workers))
        self._given[1]["threads"] = share
        # Fewer than it has threads where the cluster has no more: workers must all fit.
        self._cpus = min(float(share), cpus / workers)

    def close(self) -> None:
        """Leave the cluster, and end it where it was started for this job."""
        if self._started:
            self._started = False
            self._ray.shutdown()

    def run(
        self, task: tasks.Task, blocks: Iterable[Sequence[Item]]
    ) -> Generator[Sequence[ItemResult]]:
        """Results block by block, as they become ready."""
        fleet = _Fleet(self._ray, self._new_worker, self._count)
        try:
            for results in fleet.work(task, iter(blocks)):
                self.deaths = fleet.deaths
                yield results
        finally:
            self.deaths = fleet.deaths
            fleet.end()

    def _new_worker(self) -> Any:
        remote = self._ray.remote(_Worker).options(
            num_cpus=self._cpus, max_concurrency=_BLOCKS, max_restarts=0
        )
        return remote.remote(*self._given, self._digest)


class _Worker:
    """Lives in a process that Ray started, on some node."""

    def __init__(
        self, model: str, settings: dict[str, Any], adapter: str | None, digest: str | None
    ) -> None:
        from freehold.documents.llm_asker import LLMAsker
        from freehold.documents.model_digest import model_digest
        from freehold.documents.shared_asker import SharedAsker
        from freehold.llm import LLM

        adapters = {"job": adapter} if adapter is not None else None
        llm = LLM(model, adapters=adapters, **settings)
        asker = SharedAsker(LLMAsker(llm, "job" if adapters else None))
        if digest is not None and model_digest(llm.checkpoint) != digest:
            raise JobError(
                f"{model} is another model on a worker than where the job was started",
                hint="put the same file on every node",
            )
        self._answering = Answering(asker)

    def ready(self) -> None:
        """Answered once there is a model."""

    def answer(self, name: str, spec: dict[str, Any], block: Sequence[Item]) -> list[ItemResult]:
        """One block by the task of this name and spec."""
        return self._answering.answer(tasks.from_spec(name, spec), block)


@dataclass
class _Block:
    """Items. Those whose worker died go to one that does nothing else, so that the next death is
    theirs or they are cleared."""

    items: Sequence[Item]
    suspect: bool = False
    deaths: int = 0  # of workers that did nothing else


@dataclass(eq=False)
class _Member:
    """A worker as the fleet sees it."""

    actor: Any
    began: Any  # a reference that is there once it has a model
    busy: int = 0
    alone: bool = False  # with a suspect


@dataclass
class _Fleet:
    """The workers of one run and what they are working on."""

    ray: Any
    new_worker: Any
    size: int
    deaths: int = 0
    stillborn: int = 0
    futile: int = 0
    members: list[_Member] = field(default_factory=list)
    running: dict[Any, tuple[_Member, _Block]] = field(default_factory=dict)
    again: deque[_Block] = field(default_factory=deque)
    watch: EngineWatch = field(default_factory=EngineWatch)

    def work(
        self, task: tasks.Task, source: Iterator[Sequence[Item]]
    ) -> Iterator[Sequence[ItemResult]]:
        """Keep every worker busy until nothing is left."""
        name, spec = task.name, task.spec()
        while True:
            while (pair := self._pair(source)) is not None:
                member, block = pair
                member.busy, member.alone = member.busy + 1, block.suspect
                reference = member.actor.answer.remote(name, spec, block.items)
                self.running[reference] = member, block
            if not self.running:
                return
            ready, _ = self.ray.wait([*self.running], num_returns=1)
            for reference in ready:
                member, block = self.running.pop(reference)
                member.busy, member.alone = member.busy - 1, False
                results = self._fetch(reference, member, block)
                if results:
                    self.watch.seen(results)
                    yield results

    def end(self) -> None:
        """Let the workers go."""
        for member in self.members:
            self.ray.kill(member.actor)
        self.members.clear()

    def _pair(self, source: Iterator[Sequence[Item]]) -> tuple[_Member, _Block] | None:
        """A worker that can take something, and what it takes."""
        missing = len(self.members) < self.size
        if self.again and (missing or any(not member.busy for member in self.members)):
            block: _Block | None = self.again.popleft()
        elif missing or any(member.busy < _BLOCKS and not member.alone for member in self.members):
            items = next(source, None)
            block = None if items is None else _Block(items)
        else:
            block = None
        if block is None:
            return None
        if missing:
            actor = self.new_worker()
            self.members.append(_Member(actor, actor.ready.remote()))
        open_ones = [member for member in self.members if not member.alone]
        return min(open_ones, key=lambda member: member.busy), block

    def _fetch(self, reference: Any, member: _Member, block: _Block) -> list[ItemResult]:
        """The results, or nothing where the worker died. Raises what the task raised."""
        exceptions = self.ray.exceptions
        try:
            results: list[ItemResult] = self.ray.get(reference)
        except exceptions.RayTaskError as error:
            raise _cause(error) from None
        except exceptions.RayActorError as error:
            self._bury(member, error)
            return self._spare(block)
        self.stillborn = self.futile = 0
        return results

    def _bury(self, member: _Member, error: Exception) -> None:
        if member not in self.members:
            return  # another of its blocks told already
        self.members.remove(member)
        self.deaths += 1
        self.futile += 1
        inner = error.args[0] if error.args else None
        if isinstance(inner, self.ray.exceptions.RayTaskError):
            raise _cause(inner) from None  # it could not even begin
        self.stillborn = 0 if self._began(member) else self.stillborn + 1
        if self.stillborn >= _STILLBORN or self.futile >= _FUTILE:
            raise JobError(
                f"{self.futile} workers died one after another: {_first_line(error)}",
                hint="what is answered is kept; is there memory for a model per worker?",
            )

    def _began(self, member: _Member) -> bool:
        try:
            self.ray.get(member.began, timeout=0)
        except (self.ray.exceptions.RayError, TimeoutError):
            return False
        return True

    def _spare(self, block: _Block) -> list[ItemResult]:
        """Give a block out again, in halves where it is to blame, or give up on a document."""
        if block.suspect:
            block.deaths += 1
        if block.deaths and len(block.items) > 1:
            middle = len(block.items) // 2
            halves = block.items[:middle], block.items[middle:]
            self.again.extend(_Block(half, suspect=True) for half in halves)
        elif block.deaths < _DEATHS:
            block.suspect = True
            self.again.append(block)
        else:
            why = ErrorInfo("EngineError", f"{block.deaths} workers died over this document")
            return [
                ItemResult(item.id, str(item.content_sha256), "error", error=why)
                for item in block.items
            ]
        return []


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise JobError(
            "Ray is not installed", hint="python -m pip install 'freehold[ray]'"
        ) from None
    return ray


def _connect(ray: Any, address: str | None) -> bool:
    """Whether this call connected. Ray's reports to its makers are turned off."""
    if ray.is_initialized():
        return False
    config.turn_off_ray_reports()
    try:
        ray.init(
            address=address or "local", include_dashboard=None if address else False,
            log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(
            f"no Ray cluster answers at {address or 'this machine'}: {_first_line(error)}"
        ) from None
    return True


def _cause(error: BaseException) -> BaseException:
    """What was raised at the worker, without Ray's wrapping."""
    return getattr(error, "cause", None) or error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
