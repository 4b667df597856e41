# SPDX-License-Identifier: Apache-2.0
"""`freehold models` for a person: the table of models, and the page about one.

Knows layout and wording, nothing of models.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from freehold.catalogue.openness import openness
from freehold.cli import console

if TYPE_CHECKING:
    from freehold.catalogue.member import Artefact, Assessment, Evidence, Member
    from freehold.cli._models_fit import Choice
    from freehold.planner.fit import Fit
    from freehold.planner.machine import Machine

_PIPE_WIDTH = 120  # where no terminal says how wide it is
# From here on there is room for how open a model is, what it is for, when it came.
_FOR_OPENNESS, _FOR_TASKS, _FOR_DATES = 90, 105, 125
_LEVELS = {"yes": "yes", "no": "no", "unknown": "not known"}
_ARTEFACTS: dict[Artefact, str] = {
    "weights": "weights", "pretraining_data": "pretraining data",
    "posttraining_data": "post-training data", "training_code": "training code",
}  # fmt: skip
_STYLES = {"open": "green", "partial": "yellow", "closed": "red", "unknown": "dim"}
_ALWAYS = "Always read the licence before deploying in a commercial product."


def _out() -> Console:
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False)


def show_list(rows: Iterable[tuple[Member, Choice | None]]) -> None:
    """Print a table, a line for each model."""
    rows = list(rows)
    out = _out()
    fitted = rows[0][1] is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    if fitted:
        table.add_column("as", no_wrap=True)
        table.add_column("memory", justify="right", no_wrap=True)
        table.add_column("tok/s", justify="right", no_wrap=True)
    table.add_column("context", justify="right", no_wrap=True)
    table.add_column("licence", min_width=10, overflow="fold")
    if out.width >= _FOR_OPENNESS:
        table.add_column("open")
    if out.width >= _FOR_TASKS:
        table.add_column("for", min_width=16)
    if out.width >= _FOR_DATES:
        table.add_column("released", no_wrap=True, style="dim")
    for member, choice in rows:
        narrow = fitted and out.width < _FOR_OPENNESS  # the licence is worth more
        cells = [member.name, console.count(member.parameters) if narrow else _parameters(member)]
        if choice is not None:
            fit = choice.fit
            speed = console.rate(fit.decode_tokens_per_second)
            cells += [fit.quant, console.size(fit.need.total), speed]
        cells += [_context(member.context), _licence(member)]
        if out.width >= _FOR_OPENNESS:
            cells.append(_level(member))
        if out.width >= _FOR_TASKS:
            cells.append(" ".join(member.tasks))
        if out.width >= _FOR_DATES:
            cells.append(f"{member.released:%b %Y}")
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)


def show_one(member: Member, fit: Fit | None, machine: Machine) -> None:
    """Print all that is known of one model, each thing with its source."""
    out = _out()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in _facts(member):
        grid.add_row(name, text)
    grid.add_row("fits here", _fit(member, fit, machine))
    for artefact, shown in _ARTEFACTS.items():
        grid.add_row(shown, _evidence(member.evidence[artefact]))
    openly = openness(member)
    grid.add_row("fully open", f"{_LEVELS[openly.answers['full']]}: {openly.reasons['full']}")
    for each in member.assessments:
        note = f" ({each.note})" if each.note else ""
        seen = _seen(each)
        grid.add_row(each.framework, f"{each.verdict}{note}; {each.url}, {seen}")
    for note in member.notes:
        grid.add_row("note", note)
    for i, url in enumerate(member.sources):
        grid.add_row("sources" if i == 0 else "", url)
    grid.add_row("", f"as of {member.checked} or later")
    out.print(Text(member.title, style="bold"))
    out.print(grid)
    out.print(Text(_ALWAYS, style="yellow"))


def _facts(member: Member) -> Iterable[tuple[str, str]]:
    yield "name", ", ".join(member.names)
    yield "vendor", f"{member.vendor}, released {member.released:%d %B %Y}"
    parameters = f"{member.parameters:,}"
    if member.active_parameters != member.parameters:
        parameters += f", of which a token passes through {console.count(member.active_parameters)}"
    yield "parameters", parameters
    yield "context", f"{member.context:,} tokens"
    yield "made for", ", ".join(member.tasks)
    yield "licence", _licence(member)
    if member.documents:
        yield "binds too", ", ".join(member.documents)
    if member.upstream:
        yield "made from", ", ".join(member.upstream)
    if member.sampling:
        yield "sampling", ", ".join(f"{k} {v}" for k, v in member.sampling.items())
    yield "repository", f"https://huggingface.co/{member.repo}"
    for kind, repo in member.variants.items():
        yield "", f"{kind}: {repo}"
    for i, repo in enumerate(member.gguf_repos):
        yield "as GGUF" if i == 0 else "", repo
    if member.gguf_repos:
        yield "to get it", f"freehold pull {member.name}"


def _evidence(evidence: Evidence) -> Text:
    text = Text(evidence.state, style=_STYLES[evidence.state])
    rest = [evidence.note, evidence.licence or "", evidence.url, _seen(evidence)]
    text.append(" · " + " · ".join(part for part in rest if part), style="default")
    return text


_HOW = {
    "copy": "read in a copy", "aggregate": "of a list of many models", "memory": "from memory",
    "second-hand": "as others tell it",
}  # fmt: skip


def _seen(said: Evidence | Assessment) -> str:
    """When something was found, and how where its own page was not read."""
    return " ".join(part for part in (_HOW.get(said.how, ""), f"{said.checked}") if part)


def _fit(member: Member, fit: Fit | None, machine: Machine) -> str:
    if not member.shape:
        return "not known: freehold has no shape of it, or does not run it"
    if fit is None:
        return f"no: {console.size(machine.free)} of memory are free"
    speed = console.rate(fit.decode_tokens_per_second)
    return (
        f"as {fit.quant} with {fit.context:,} tokens in {console.size(fit.need.total)} of "
        f"{console.size(machine.free)} free; about {speed} tokens a second"
    )


def _level(member: Member) -> str:
    openly = openness(member)
    return openly.level or _LEVELS[openly.answers["weights"]]


def _licence(member: Member) -> str:
    return " + ".join(member.licence) or "not read"


def _parameters(member: Member) -> str:
    text = console.count(member.parameters)
    if member.active_parameters == member.parameters:
        return text
    return f"{text} ({console.count(member.active_parameters)})"


def _context(positions: int) -> str:
    return f"{positions / 1e6:.0f}M" if positions >= 1_000_000 else f"{positions / 1024:.3g}K"
