# SPDX-License-Identifier: Apache-2.0
"""`freehold policy`: the rules of this machine, whether a model is within them, and who went past.

Shows and checks; the file is written with an editor, its rules are `licences/policy.py`'s.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from freehold.cli import console, options
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from pathlib import Path

    from freehold.licences.policy import Policy

_MAX_LOG = 64 << 20


def command(
    action: Annotated[
        Literal["show", "check", "log"], typer.Argument(help="What to do.", show_default=False)
    ],
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL…]", help="Models to check.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show a house's rules on models, and check models."""
    from freehold.licences.policy_file import policy_in_force

    if action == "log":
        _log(as_json)
        return
    in_force = policy_in_force()
    if action == "show":
        _show(in_force, as_json)
    elif not models:
        raise InvalidParameterError("which model? `freehold policy check MODEL`")
    elif in_force is None:
        console.note("there is no policy: everything passes")
    elif not _check(models, in_force[0], as_json):
        raise typer.Exit(1)


def _show(in_force: tuple[Policy, Path] | None, as_json: bool) -> None:
    from dataclasses import asdict

    from freehold import config

    if in_force is None:
        path, _ = config.policy_file()
        console.note(f"there is no policy; {path} would hold it (docs/licences.md)")
        if as_json:
            console.data_json(None)
        return
    policy, path = in_force
    rules = {key: value for key, value in asdict(policy).items() if value not in (None, ())}
    if as_json:
        console.data_json({"path": str(path), **rules})
        return
    rows = [["policy", str(path)]]
    for key, value in rules.items():
        rows.append([key, ", ".join(value) if isinstance(value, tuple) else str(value)])
    console.data(console.printable(console.table(rows)))


def _check(models: list[str], policy: Policy, as_json: bool) -> bool:
    """Prints what each model breaks; whether none does."""
    from freehold.licensing import breaches_of, facts_of_name

    results: list[dict[str, Any]] = []
    for model in models:
        facts = facts_of_name(model)
        found = [
            {"action": action, "code": each.code, "rule": each.rule, "licence": each.licence,
             "why": each.sentence}
            for action in policy.actions
            for each in breaches_of(action, facts, policy)
        ]  # fmt: skip
        results.append({"model": model, "licences": list(facts.licences), "breaches": found})
    if as_json:
        console.data_json(results)
    else:
        for result in results:
            reasons = "; ".join(dict.fromkeys(each["why"] for each in result["breaches"]))
            licences = ", ".join(result["licences"])
            text = f"{result['model']} ({licences}): {reasons or 'within the policy'}"
            console.data(console.printable(text))
    return not any(result["breaches"] for result in results)


def _log(as_json: bool) -> None:
    from freehold.licences.policy_file import override_log

    path = override_log()
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_LOG).decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    entries = [_entry(line) for line in text.splitlines()]
    if as_json:
        console.data_json(entries)
        return
    if not entries:
        console.note("nobody went past the policy")
        return
    rows = [["time", "user", "action", "model", "rule", "why"]]
    for each in entries:
        rows.append([console.one_line(str(each.get(key, "?")), 60) for key in
                     ("time", "user", "action", "model", "code", "why")])  # fmt: skip
    console.data(console.table(rows))


def _entry(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"why": "a line that cannot be read"}
