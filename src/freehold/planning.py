# SPDX-License-Identifier: Apache-2.0
"""From what a person calls a model to a plan for it: names, headers and the catalogue joined with
`planner`.

A file or a model of the store is read by its headers, a name of the catalogue by the shape that is
written there, a reference to another machine by fetching its headers and nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from freehold.catalogue.catalogue import find, members
from freehold.config import calibration_dir
from freehold.errors import InvalidParameterError, ModelNotFoundError
from freehold.formats.checkpoint import Checkpoint, open_checkpoint
from freehold.model_names import resolve_model
from freehold.planner.calibration import Calibration, load_calibration
from freehold.planner.fit import Fit, fit
from freehold.planner.machine import Machine, this_machine
from freehold.planner.member_sizes import POOR_QUANTS, USUAL_QUANTS, known_sizes, quants_of
from freehold.planner.memory import longest_fit, need
from freehold.planner.plan import Plan, Question, make_plan
from freehold.planner.probe import is_due, known_rates, measure, record_mark
from freehold.planner.recommend import USABLE_RATE, Choice, recommend
from freehold.planner.remote_headers import Fetch, RemotePart, open_remote
from freehold.planner.sizes import ModelSizes, sizes_of
from freehold.quants import mixes

__all__ = [
    "USUAL_QUANTS", "Where", "choose_quant", "here", "plan_model", "recommend_here",
]  # fmt: skip

_USEFUL_CONTEXT = 1024  # less is nothing to recommend
_ELSEWHERE = ("http://", "https://", "hf:", "ollama:")


# A name to the files it stands for elsewhere, the one to open, and what fetches parts of them.
Remote: TypeAlias = Callable[[str], AbstractContextManager[tuple[Sequence[RemotePart], str, Fetch]]]
Note: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Where:
    """A machine, and what is known of its speed."""

    machine: Machine
    calibration: Calibration


def here(*, gpus: bool = True, probe: bool = False) -> Where:
    """This machine as it is now. `probe` measures it if nobody has yet, in two seconds."""
    machine, folder = this_machine(gpus=gpus), calibration_dir()
    due = probe and is_due(machine, folder)
    rates = measure(machine, folder) if due else known_rates(machine, folder)
    if rates is not None:
        machine = machine.with_rates(rates)
    return Where(machine, load_calibration(folder, record_mark(machine)))


# -- plans -----------------------------------------------------------------------------------------


def plan_model(
    name: str, question: Question, where: Where, *, quant: str | None = None,
    remote: Remote | None = None, note: Note = lambda text: None,
) -> Plan:  # fmt: skip
    """A plan for the model of a name: a file, a stored model, one of the catalogue, or a reference.

    `quant` chooses for the catalogue; what lies in files is as it is. `remote` gives the files of
    a reference to elsewhere, and `note` is told what was fetched of them.

    Raises ModelNotFoundError, UnsupportedModelError, MalformedFileError, DownloadError, and what
    `make_plan` raises."""
    sizes, label, found = _sizes_named(name, question, where.machine, quant, remote, note)
    plan = make_plan(found, label, sizes, where.machine, question, where.calibration)
    if plan.fits or label is None or (member := find(found)) is None or not member.shape:
        return plan
    return replace(plan, remedies=(*plan.remedies, *_smaller(member.shape, plan)))


def _smaller(model: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """The best quantisation of a model that fits where the one of a plan does not, as a remedy;
    with a shorter context where nothing else helps."""
    shorter = ""
    for quant in quants_of(model):
        sizes = known_sizes(model, quant, plan.model)
        wanted = need(sizes, plan.context, parallel=plan.parallel, kv_dtype=plan.kv_dtype)
        if wanted.total <= plan.budget:
            return (f"--quant {quant} fits",)
        context = longest_fit(sizes, plan.budget, parallel=plan.parallel, kv_dtype=plan.kv_dtype)
        if context >= _USEFUL_CONTEXT:
            shorter = shorter or f"--quant {quant} --context {context} fits"
    return (shorter,) if shorter and not plan.remedies else ()


def _sizes_named(
    name: str, question: Question, machine: Machine, quant: str | None, remote: Remote | None,
    note: Note,
) -> tuple[ModelSizes, str | None, str]:  # fmt: skip
    try:
        path = resolve_model(name)
        is_there = path.exists()
    except ModelNotFoundError:
        is_there = False
    if is_there:
        _refuse_quant(name, quant)
        with open_checkpoint(path) as checkpoint:
            return _sizes_of_file(checkpoint), None, name
    if name.startswith(_ELSEWHERE) and remote is not None:
        return _remote_sizes(name, remote, note), quant, name
    member = find(name)
    if member is None:
        resolve_model(name)  # says what is wrong with the name
        raise ModelNotFoundError(
            f"{name:.200}: no such file, and the catalogue has no such model",
            hint="`freehold models` lists what it has",
        )
    if not member.shape:
        raise ModelNotFoundError(
            f"{member.name}: the catalogue does not know its sizes",
            hint="plan its file, or a reference: hf:org/repo",
        )
    if quant is None:
        quant = choose_quant(member.shape, machine, context=question.context).quant
    mixes.get(quant)
    return known_sizes(member.shape, quant, member.name), quant.upper(), member.name


def _sizes_of_file(checkpoint: Checkpoint) -> ModelSizes:
    sizes = sizes_of(checkpoint)
    if not sizes.parameters:
        raise ModelNotFoundError(
            f"{checkpoint.path}: holds no weights, only metadata",
            hint="name the file with the weights",
        )
    return sizes


def _refuse_quant(name: str, quant: str | None) -> None:
    if quant is not None:
        raise InvalidParameterError(
            f"{name:.200} is a file, whose quantisation is what it is",
            hint="leave out --quant, or name a model of the catalogue",
        )


def choose_quant(
    model: Mapping[str, Any],
    machine: Machine | None = None,
    *,
    context: int | None = None,
    among: Sequence[str] | None = None,
) -> Fit:
    """The quantisation to take for a model on this machine (or `machine`): the best that fits and
    is fast enough to use.

    `model` is a vendor's config.json, such as `Member.shape`; `among` has the best first. Where
    none fits, the smallest is told, with `fits` false. Raises UnsupportedModelError for a model
    that freehold cannot run."""
    machine = machine or this_machine(gpus=False)
    tried = []
    for quant in quants_of(model) if among is None else among:
        sizes = known_sizes(model, quant, str(model.get("model_type", "config.json")))
        fitting = context if context is None else min(context, sizes.context_length)
        tried.append(fit(sizes, machine, quant, fitting))
    fits = [found for found in tried if found.fits]
    if not fits:
        return min(tried, key=lambda found: found.need.total)
    good = [found for found in fits if found.quant not in POOR_QUANTS] or fits[:1]
    # Fewer bits are faster, too; where none are fast enough, no more are given up than usual.
    quick = (found for found in good if found.decode_tokens_per_second >= USABLE_RATE)
    return next(quick, good[-1])


def recommend_here(
    where: Where, *, context: int | None = None, task: str = "chat", count: int = 5
) -> list[Choice]:
    """Models of the catalogue to take on a machine, the best first."""
    return recommend(
        members(), where.machine, context=context, task=task,
        calibration=where.calibration, count=count,
    )  # fmt: skip


# -- headers from elsewhere ------------------------------------------------------------------------


def _remote_sizes(name: str, remote: Remote, note: Note) -> ModelSizes:
    with remote(name) as (files, entry, fetch), tempfile.TemporaryDirectory() as folder:
        checkpoint, fetched = open_remote(files, entry, Path(folder), fetch)
        with checkpoint:
            note(f"note: {fetched / 1e6:.1f} MB of headers were fetched, and no weights")
            return _sizes_of_file(checkpoint)
