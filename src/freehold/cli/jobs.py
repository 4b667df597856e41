# SPDX-License-Identifier: Apache-2.0
"""`freehold jobs`: what was begun over many documents, how far it is, and what came of it.

Knows the words of the command line; the work is `_job_options`' and `documents/jobs/`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from freehold.cli import _jobs_shown, options
from freehold.cli._job_options import JobFlags
from freehold.errors import InvalidParameterError

Action = Literal["list", "show", "run", "resume", "cancel", "export", "import", "remove"]
_TAKES: dict[str, tuple[str, ...]] = {  # what stands behind each action
    "list": (), "show": ("NAME",), "run": ("FILE",), "resume": ("NAME",), "cancel": ("NAME",),
    "export": ("NAME",), "import": ("NAME", "RESULTS"), "remove": ("NAME",),
}  # fmt: skip


@options.with_options
def command(
    action: Annotated[Action, typer.Argument(help="What to do.", show_default=False)],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FILE]",
            help="A job, or so much of its name that only one begins so; for `run` a file of "
            "OpenAI batch requests; for `import` a job and a file of results.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="run: the model that answers.", show_default=False),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", help="run: a low-rank adapter (LoRA).", show_default=False),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="export, run: jsonl, csv, sqlite, parquet, or batch (OpenAI's results); default: "
            "what --out ends in.",
            show_default=False,
        ),
    ] = None,
    vllm: Annotated[
        bool,
        typer.Option("--vllm", help="export: what is not done, as input for vLLM's run-batch."),
    ] = False,
    served_as: Annotated[
        str | None,
        typer.Option(
            "--served-as", help="export --vllm: the model's name there.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
    recommended: options.Recommended = True,
    flags: JobFlags = JobFlags(),  # noqa: B008 - frozen
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:
    """List, run, resume and export jobs over many documents."""
    given = _expected(action, names or [])
    if vllm and action != "export":
        raise InvalidParameterError("--vllm belongs to `freehold jobs export`")
    if action == "list":
        _jobs_shown.show_list(json)
    elif action == "show":
        _jobs_shown.show_one(given[0], json)
    elif action == "run":
        from freehold.cli._jobs_run import run_requests

        if model is None:
            raise InvalidParameterError(
                "which model answers?", hint="freehold jobs run FILE --model M"
            )
        run_requests(Path(given[0]), model, adapter, flags, form, engine, recommended)
    elif action == "resume":
        from freehold.cli._jobs_run import resume

        resume(given[0], retry_errors=flags.retry_errors)
    elif action in ("cancel", "remove"):
        from freehold.cli import _jobs_run

        (_jobs_run.cancel if action == "cancel" else _jobs_run.remove)(given[0])
    elif action == "import":
        from freehold.cli._jobs_away import take_back

        take_back(given[0], Path(given[1]))
    elif vllm:
        from freehold.cli._jobs_away import hand_over

        hand_over(given[0], flags.out, served_as, retry_errors=flags.retry_errors)
    else:
        from freehold.cli._jobs_run import export

        export(given[0], flags.out, form)


def _expected(action: str, given: list[str]) -> list[str]:
    wanted = _TAKES[action]
    if len(given) != len(wanted):
        raise InvalidParameterError(
            f"`freehold jobs {action}` takes {' and '.join(wanted) or 'nothing more'}",
            hint=f"freehold jobs {' '.join((action, *wanted))}",
        )
    return given
