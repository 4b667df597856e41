# SPDX-License-Identifier: Apache-2.0
"""`freehold licence`: what a model's licences mean for what somebody wants to do with it.

Turns flags into a situation and prints the verdict; the reasoning is `freehold.licences`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import _licence_text, console, options
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.licences.situation import Situation

_U = "Your situation"


def _flag(*names: str, help: str) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(
        *names, help=help, rich_help_panel=_U, show_default=False
    )
    return info


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model file or directory, a name such as llama3.2:3b, or hf:owner/name.",
            show_default=False,
        ),
    ] = None,
    commercial: Annotated[
        bool | None, _flag("--commercial/--no-commercial", help="Whether the use is commercial.")
    ] = None,
    mau: Annotated[
        int | None,
        _flag("--mau", help="Monthly active users of all your products, when the text counts."),
    ] = None,
    monthly_revenue: Annotated[
        int | None,
        _flag("--monthly-revenue", help="Of the company or employer, in US dollars."),
    ] = None,
    annual_revenue: Annotated[
        int | None, _flag("--annual-revenue", help="The same in a year.")
    ] = None,
    region: Annotated[
        str | None,
        _flag("--region", help="Where you live or your company sits: EU, DE, US …"),
    ] = None,
    host: Annotated[bool, _flag("--host", help="Others use it over a network.")] = False,
    distribute: Annotated[
        bool, _flag("--distribute", help="Weights, or a product with them in it, go to others.")
    ] = False,
    modify: Annotated[bool, _flag("--modify", help="It is fine-tuned, merged or changed.")] = False,
    train_on_outputs: Annotated[
        bool, _flag("--train-on-outputs", help="Its answers train or improve another model.")
    ] = False,
    end_user: Annotated[
        bool, _flag("--end-user", help="It came inside somebody else's finished product.")
    ] = False,
    purpose: Annotated[
        list[str] | None,
        _flag("--purpose", help="A purpose a licence may forbid, e.g. military; repeatable."),
    ] = None,
    derived_name: Annotated[
        str | None, _flag("--derived-name", help="Name of the model that you make from it.")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Show every question, answer and its place.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--list", help="List the licences freehold knows.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where anything blocks or is not known.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Say what licences mean for your use of a model."""
    from freehold.licences.reader import licences
    from freehold.licences.situation import Situation

    if every:
        _licence_text.show_list(as_json)
        return
    if model is None:
        raise InvalidParameterError(
            "which model? `freehold licence MODEL`", hint="--list shows the licences freehold knows"
        )
    known = sorted({topic for each in licences().values() for topic in each.topics})
    if unknown := set(purpose or ()) - set(known):
        raise InvalidParameterError(
            f"no licence speaks of the purpose {sorted(unknown)[0]!r:.60}",
            hint=f"there are: {', '.join(known)}",
        )
    situation = Situation(
        commercial=commercial, mau=mau, monthly_revenue=monthly_revenue,
        annual_revenue=annual_revenue, region=region, distribute=distribute, host=host,
        modify=modify, train_on_outputs=train_on_outputs, end_user=end_user,
        purposes=tuple(purpose or ()), derived_name=derived_name,
    )  # fmt: skip
    _show(model, situation, answers, as_json, check)


def _show(model: str, situation: Situation, answers: bool, as_json: bool, check: bool) -> None:
    from freehold.licences.reasoning import judge
    from freehold.licensing import facts_of_name

    facts = facts_of_name(model)
    verdict = judge(facts.licences, situation, multimodal=facts.multimodal)
    if as_json:
        console.data_json(_licence_text.as_json(facts, situation, verdict))
    else:
        console.data(console.printable(_licence_text.render(facts, verdict)))
        if answers:
            console.data("\n" + console.printable(_licence_text.answer_table(facts.licences)))
    if check and verdict.status != "no blocking clause found":
        raise typer.Exit(1)
