# SPDX-License-Identifier: Apache-2.0
"""`freehold plan`: will it fit, how fast will it be, when will it be done; or what to take.

Flags in, a plan out; what is planned is `freehold.planning`'s, how it reads `_plan_text`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console, options
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.planner.remote_headers import Fetch, RemotePart
    from freehold.planning import Remote


def _count(*names: str, help: str) -> Any:
    return typer.Option(*names, min=1, max=10**9, metavar="N", help=help, show_default=False)


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A file, a name of the catalogue, hf:org/repo[:quant] or a URL of which only the "
            "headers are fetched. Without one, models for this machine are recommended.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        int | None, _count("--context", "-c", help="Positions of a sequence; default: 8192.")
    ] = None,
    parallel: Annotated[
        int | None, _count("--parallel", "-p", help="Sequences at once; default: 1, documents: 8.")
    ] = None,
    kv_type: Annotated[
        options.KVType, typer.Option("--kv-type", "--kv-dtype", help="Element type of the cache.")
    ] = options.KVType.f16,
    quant: Annotated[
        str | None,
        typer.Option("--quant", help="For a model of the catalogue; default: the best that fits."),
    ] = None,
    documents: Annotated[
        int | None, _count("--documents", "-n", help="Documents to work through.")
    ] = None,
    tokens_in: Annotated[
        int | None, _count("--tokens-in", help="Tokens of a document; default: 1000.")
    ] = None,
    tokens_out: Annotated[
        int | None, _count("--tokens-out", help="Tokens of an answer; default: 200.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="When they are to be done: 06:00, or 2026-12-24T06:00."),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option("--as", help="Plan for a kind of machine: 8gb, 16gb, 24gb-gpu, multi-gpu."),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="What a recommended model is to be good for.")
    ] = "chat",
    probe: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure", help="Measure this machine, once, in about two seconds."
        ),
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Tell what a model needs and how fast it is, or what to take.

    The exit code is 1 where a model does not fit, or documents will not be done in time."""
    from freehold import planning
    from freehold.cli import _plan_text, _plan_values
    from freehold.planner.calibration import Calibration
    from freehold.planner.deadline import parse_deadline
    from freehold.planner.plan import Question
    from freehold.planner.tiers import tier as find_tier

    now = datetime.now().astimezone()
    question = Question(
        context=context,
        parallel=parallel,
        kv_dtype=kv_type.value,
        documents=documents,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        by=None if by is None else parse_deadline(by, now),
    )
    if by is not None and not question.is_job:
        raise InvalidParameterError("--by is about documents", hint="say how many: --documents N")
    if tier is not None:
        where = planning.Where(find_tier(tier), Calibration())
    else:
        where = planning.here(probe=probe)
    if model is None:
        _recommend(planning, where, question, task, as_json)
        return
    plan = planning.plan_model(
        model, question, where, quant=quant, remote=_files_of(quant), note=console.note
    )
    if as_json:
        console.data_json(_plan_values.as_dict(plan))
    else:
        console.data(console.printable(_plan_text.render(plan)))
    if not plan.fits or (plan.job is not None and plan.job.on_time is False):
        raise typer.Exit(1)


def _files_of(quant: str | None) -> Remote:
    """What tells the files behind a name, asked only of names of elsewhere."""

    @contextmanager
    def files(name: str) -> Iterator[tuple[list[RemotePart], str, Fetch]]:
        from freehold.planner.remote_headers import RemotePart
        from freehold.pulling import PullOptions, remote_parts

        with remote_parts(name, PullOptions(quant=quant), note=console.note) as (model, fetch):
            parts = [RemotePart(f.name, f.size, str(f.location)) for f in model.files]
            yield parts, model.entry, fetch

    return files


def _recommend(planning: Any, where: Any, question: Any, task: str, as_json: bool) -> None:
    from freehold.catalogue.member import TASKS
    from freehold.cli import _plan_text, _plan_values

    if question.is_job:
        raise InvalidParameterError(
            "--documents is about one model", hint="name it: freehold plan MODEL --documents N"
        )
    if task not in TASKS:
        raise InvalidParameterError(
            f"there is no task {task!r:.40}", hint=f"one of {', '.join(TASKS)}"
        )
    choices = planning.recommend_here(where, context=question.context, task=task)
    if as_json:
        console.data_json(_plan_values.choices_as_dict(where.machine, choices))
    else:
        console.data(console.printable(_plan_text.render_choices(where.machine, choices)))
    if not choices:
        raise typer.Exit(1)
