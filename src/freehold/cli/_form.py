# SPDX-License-Identifier: Apache-2.0
"""The options that give an answer a form.

Knows their spelling and reads their files; what can be kept is decided where grammars are made.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from freehold.cli import _text
from freehold.errors import ConstraintError, InvalidParameterError
from freehold.types import Constraint

_PANEL = "Form of the answer"

Schema = Annotated[
    str | None,
    typer.Option(
        "--schema", metavar="FILE", help="JSON that a JSON Schema allows; the schema's file.",
        rich_help_panel=_PANEL, show_default=False,
    ),
]  # fmt: skip
JsonObject = Annotated[
    bool, typer.Option("--json-object", help="Any JSON object.", rich_help_panel=_PANEL)
]
Regex = Annotated[
    str | None,
    typer.Option(
        "--regex", metavar="PATTERN", help="What a regular expression matches as a whole.",
        rich_help_panel=_PANEL, show_default=False,
    ),
]  # fmt: skip
Choice = Annotated[
    list[str] | None,
    typer.Option(
        "--choice", metavar="TEXT", help="One of these texts; repeatable.",
        rich_help_panel=_PANEL, show_default=False,
    ),
]  # fmt: skip
GrammarFile = Annotated[
    str | None,
    typer.Option(
        "--grammar", metavar="FILE", help="What a Lark grammar derives; the grammar's file.",
        rich_help_panel=_PANEL, show_default=False,
    ),
]  # fmt: skip


def constraint(
    schema: str | None, json_object: bool, regex: str | None, choice: list[str] | None,
    grammar: str | None,
) -> Constraint | None:  # fmt: skip
    """The form these options ask for.

    Raises InvalidParameterError where there are several, ConstraintError for a file that holds
    none.
    """
    given = {
        "--schema": schema is not None,
        "--json-object": json_object,
        "--regex": regex is not None,
        "--choice": bool(choice),
        "--grammar": grammar is not None,
    }
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise InvalidParameterError(f"an answer has one form, and {' and '.join(names)} ask for it")
    if schema is not None:
        return Constraint("json_schema", _json_file(schema))
    if json_object:
        return Constraint("json")
    if regex is not None:
        return Constraint("regex", regex)
    if choice:
        return Constraint("choice", choice)
    return None if grammar is None else Constraint("lark", _text.read_file(grammar))


def _json_file(path: str) -> object:
    try:
        return json.loads(_text.read_file(path))
    except (ValueError, RecursionError) as error:
        raise ConstraintError(f"{path} holds no JSON: {error}") from None
