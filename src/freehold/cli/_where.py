# SPDX-License-Identifier: Apache-2.0
"""Where a job is answered: by a model in this process, by workers on a Ray cluster, or by servers.

Flags that all commands over documents share, and what they mean. Knows no task.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from freehold import config
from freehold.cli import console
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.cli.options import EngineFlags
    from freehold.documents.asking import Asker
    from freehold.documents.executors import Executor
    from freehold.documents.jobs import Identity, Work

_W = "Where"


def _opt(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_W, show_default=False)


@dataclass(frozen=True)
class WhereFlags:
    """Who answers."""

    executor: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--executor", help="A model in this process, or workers on Ray.", rich_help_panel=_W
        ),
    ] = "local"
    workers: Annotated[
        int, _opt("--workers", help="ray: workers, each with a model; default: 2.")
    ] = 2
    ray_address: Annotated[
        str | None,
        _opt("--ray-address", help="ray: a running cluster; default: one of this machine alone."),
    ] = None
    endpoint: Annotated[
        list[str] | None,
        _opt(
            "--endpoint",
            help="An OpenAI-compatible server that answers instead, such as http://host:8080/v1; "
            "repeat for a fleet. --model is its name there; FREEHOLD_ENDPOINT_KEY its key.",
        ),
    ] = None
    endpoint_concurrency: Annotated[
        int, _opt("--endpoint-concurrency", help="Requests at each server at a time; default: 16.")
    ] = 16
    endpoint_context: Annotated[
        int | None,
        _opt(
            "--endpoint-context", help="Tokens of a context there, where the server does not say."
        ),
    ] = None


@dataclass
class Answerer:
    """Who answers a job. `asker` is there unless the workers are elsewhere and only they ask."""

    asker: Asker | None
    executor: Executor | None = None
    digest: str = ""
    adapter_digest: str | None = None  # where the digest is the model's alone

    def here(self) -> Asker:
        """Whoever can be asked from this process. Raises InvalidParameterError."""
        if self.asker is None:
            raise InvalidParameterError(
                "workers answer jobs and nothing else", hint="calibrate with --executor local"
            )
        return self.asker

    def identity(self, task: Work) -> Identity:
        """What makes the job of this task under this model the same job."""
        from freehold.documents.jobs import Identity

        digest = self.digest if self.asker is None else self.asker.model_digest
        return Identity.of(task, digest, adapter=self.adapter_digest)

    def arguments(self, task: Work) -> dict[str, Any]:
        """What `_job_options.work` takes of this."""
        if self.executor is None:
            return {"asker": self.asker}
        return {"executor": self.executor, "identity": self.identity(task)}


@contextmanager
def answering(
    model: str, where: WhereFlags, engine: EngineFlags, adapter: Path | None = None
) -> Iterator[Answerer]:
    """Who answers, ready to. Raises InvalidParameterError for flags that contradict each other."""
    if where.endpoint and where.executor != "local":
        raise InvalidParameterError("--endpoint and --executor each say who answers: give one")
    with ExitStack() as stack:
        if where.endpoint:
            if adapter is not None:
                raise InvalidParameterError(
                    "a server is asked for an adapter by name", hint="--model BASE:ADAPTER"
                )
            yield _endpoints(model, where, stack)
        elif where.executor == "ray":
            yield _ray(model, where, engine, adapter, stack)
        else:
            yield _here(model, engine, adapter, stack)


def _here(model: str, engine: EngineFlags, adapter: Path | None, stack: ExitStack) -> Answerer:
    from freehold.documents.llm_asker import LLMAsker

    adapters = None if adapter is None else {"job": adapter}
    llm = stack.enter_context(engine.open(model, adapters=adapters))
    for notice in llm.notices:
        console.note(f"note: {notice}")
    return Answerer(LLMAsker(llm, "job" if adapters else None))


def _endpoints(model: str, where: WhereFlags, stack: ExitStack) -> Answerer:
    from freehold.documents.endpoint_asker import EndpointAsker
    from freehold.documents.executors.endpoint import EndpointExecutor

    askers = []
    for url in where.endpoint or ():
        asker = EndpointAsker(
            url, model, api_key=config.endpoint_key(), concurrency=where.endpoint_concurrency,
            context_length=where.endpoint_context,
        )  # fmt: skip
        stack.callback(asker.close)
        askers.append(asker)
    digests = {asker.model_digest: asker.url for asker in askers}
    if len(digests) > 1:
        raise InvalidParameterError(
            f"{model} is not the same model at {' and '.join(digests.values())}",
            hint="answers of one job come from one model",
        )
    return Answerer(askers[0], EndpointExecutor(askers), next(iter(digests)))


def _ray(
    model: str, where: WhereFlags, engine: EngineFlags, adapter: Path | None, stack: ExitStack
) -> Answerer:
    from freehold.documents.executors.ray import RayExecutor
    from freehold.documents.model_digest import adapter_digest, model_digest
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.model_names import resolve_model

    path = resolve_model(model)
    with open_checkpoint(path) as checkpoint:
        digest = model_digest(checkpoint)
    executor = RayExecutor(
        str(path.absolute()), engine.settings(), workers=where.workers,
        adapter=None if adapter is None else str(adapter.absolute()), address=where.ray_address,
        model_digest=digest,
    )  # fmt: skip
    stack.callback(executor.close)
    under = None if adapter is None else adapter_digest(adapter)
    return Answerer(None, executor, digest, under)
