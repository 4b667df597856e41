# SPDX-License-Identifier: Apache-2.0
"""`freehold models`: the catalogue of published models, searched, filtered, or one in detail.

Asks no network. Knows which flags mean which question; answers come from the catalogue, the
licences and the planner, and are laid out in `_models_table`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console, options
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.catalogue.member import Member
    from freehold.catalogue.search import Query
    from freehold.cli._models_fit import Choice
    from freehold.planner.machine import Machine

_SHOWN = 25  # models that fit, of which a terminal shows the best


class _Licence(StrEnum):
    osi = "osi"
    commercial = "commercial"
    no_user_limit = "no-user-limit"


class _Openness(StrEnum):
    weights = "weights"
    data = "data"
    code = "code"
    full = "full"


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="A model's name, to see all about it; or words that names must have. With --fits "
            "a tier such as 8gb stands for that machine.",
            show_default=False,
        ),
    ] = None,
    fits: Annotated[
        bool, typer.Option("--fits", help="Only models this machine, or a tier, can run.")
    ] = False,
    licence: Annotated[
        list[_Licence] | None,
        typer.Option("--licence", help="What every licence of it must grant; repeatable."),
    ] = None,
    openness: Annotated[
        _Openness | None, typer.Option("--openness", help="What must be openly published.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="What it must be made for: chat, code, tools …")
    ] = None,
    min_context: Annotated[
        int, typer.Option("--min-context", min=0, help="Positions it must have.")
    ] = 0,
    family: Annotated[str | None, typer.Option("--family", help="A family such as llama.")] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", "-c", min=1, help="Context to plan for; default: 8192 at most."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help="Show so many; 0: all.", show_default=False)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Find a model by size, licence, openness and what fits here."""
    from freehold.catalogue.search import LICENCE_TERMS, Query
    from freehold.licences.openness import LEVELS

    words = list(words or ())
    machine = _machine(words) if fits else None
    terms = tuple(term for term in LICENCE_TERMS if term in {each.value for each in licence or ()})
    level = next((each for each in LEVELS if each == openness), None)
    query = Query(tuple(words), family, task, min_context, terms, level)
    if machine is None and (member := _named(query)) is not None:
        _one(member, context, as_json)
        return
    _several(query, machine, max(context or 0, min_context) or None, limit, as_json)


def _machine(words: list[str]) -> Machine:
    """The tier that one of `words` names, which is taken out, or else this machine."""
    from freehold.planner.machine import this_machine
    from freehold.planner.tiers import TIERS

    for word in words:
        if word.lower() in TIERS:
            words.remove(word)
            return TIERS[word.lower()]
    return this_machine(gpus=False)


def _named(query: Query) -> Member | None:
    """The model that the one word of `query` is the whole name of."""
    from freehold.catalogue.catalogue import find

    if len(query.words) != 1:
        return None
    member = find(query.words[0])
    # A short name stands for a whole version here, of which the list shows all sizes.
    short = member is not None and query.words[0].lower() in member.aliases
    return None if short and ":" not in query.words[0] else member


def _several(
    query: Query, machine: Machine | None, context: int | None, limit: int | None, as_json: bool
) -> None:
    from freehold.catalogue.search import search

    found = search(query)
    if machine is None and query.words and len(found.members) == 1 and not as_json:
        _one(found.members[0], context, as_json)
        return
    if machine is None:
        rows: list[tuple[Member, Choice | None]] = [(member, None) for member in found.members]
    else:
        from freehold.cli._models_fit import choose

        rows = [(each.member, each) for each in choose(found.members, machine, context)]
    if limit is None:
        limit = 0 if as_json or machine is None else _SHOWN
    shown = rows[: limit or None]
    if as_json:
        console.data_json([_plain(*row) for row in shown])
    elif shown:
        from freehold.cli._models_table import show_list

        show_list(shown)
    _remarks(rows, len(shown), found.unknown, machine)
    if not rows and not as_json:
        hint = "ask for less, or see `freehold models` for all"
        raise InvalidParameterError("no model of the catalogue answers all of that", hint=hint)


def _remarks(
    rows: list[tuple[Member, Choice | None]],
    shown: int,
    unknown: tuple[Member, ...],
    machine: Machine | None,
) -> None:
    if machine is not None and rows:
        free = console.size(machine.free)
        console.note(f"on {machine.name} with {free} of memory free; speed is an estimate")
    if len(rows) > shown:
        console.note(f"{len(rows) - shown} more: --limit 0 shows all")
    if unknown:
        names = ", ".join(member.name for member in unknown[:4])
        more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        console.note(f"left out, because nobody has read whether they may stay: {names}{more}")


def _one(member: Member, context: int | None, as_json: bool) -> None:
    from freehold.cli._models_fit import best_fit
    from freehold.planner.machine import this_machine

    machine = this_machine(gpus=False)
    fit = best_fit(member, machine, context) if member.shape else None
    if as_json:
        from freehold.cli._models_fit import Choice

        console.data_json(_plain(member, None if fit is None else Choice(member, fit)))
        return
    from freehold.cli._models_table import show_one

    show_one(member, fit, machine)


def _plain(member: Member, choice: Choice | None) -> dict[str, Any]:
    """Everything known of a model, for a program."""
    from dataclasses import asdict

    from freehold.catalogue.openness import openness

    values = {key: _json(value) for key, value in asdict(member).items()}
    openly = openness(member)
    values["openness"] = {"level": openly.level, **openly.answers, "reasons": dict(openly.reasons)}
    if choice is not None:
        fit = choice.fit
        values["fit"] = {
            "quant": fit.quant,
            "context": fit.context,
            "bytes": fit.need.as_dict(),
            "budget": fit.budget,
            "decode_tokens_per_second": fit.decode_tokens_per_second,
        }
    return values


def _json(value: Any) -> Any:
    """`value` with dates as JSON can hold them."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _json(each) for key, each in value.items()}
    return [_json(each) for each in value] if isinstance(value, (list, tuple)) else value
