# SPDX-License-Identifier: Apache-2.0
"""`freehold keys`: who may ask `freehold serve`.

The file and its rules are `server/security/keys.py`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from freehold.cli import console
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.server.security.keys import ApiKey

_DAY = 86400


def command(
    action: Annotated[
        Literal["create", "list", "revoke"], typer.Argument(help="What to do.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Argument(help="Name of the key, to create or revoke it.")
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            "--days", min=1, max=36500, help="How long a new key is valid; default: for good."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A model the key may use, or a pattern; repeatable. Default: all."
        ),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option("--requests-per-minute", min=1)] = None,
    tokens_per_minute: Annotated[
        int | None,
        typer.Option("--tokens-per-minute", min=1, help="Of prompts and answers together."),
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", min=1, help="Requests at the same time.")
    ] = None,
    manage_models: Annotated[
        bool,
        typer.Option(
            "--manage-models",
            help="Let the key fetch, copy and delete models on servers with --allow-pull.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="List as one JSON document.")] = False,
) -> None:
    """Create, list and revoke the API keys of `freehold serve`."""
    from freehold.config import config_dir
    from freehold.server.security import keys

    path = config_dir() / keys.FILE_NAME
    if action == "list":
        if name is not None:
            raise InvalidParameterError("`freehold keys list` takes no name")
        _show(keys.read_keys(path), json)
        return
    if name is None:
        raise InvalidParameterError(
            f"which key? `freehold keys {action} NAME`", hint="`freehold keys list` shows them"
        )
    if action == "revoke":
        keys.revoke_key(path, name)
        console.note(f"{name} is revoked; running servers refuse it from now on")
        return
    secret = keys.create_key(
        path,
        name,
        expires=None if days is None else int(time.time()) + days * _DAY,
        models=None if model is None else tuple(model),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=concurrent,
        manage_models=manage_models,
    )
    console.data(secret)
    console.note("this is the only time the key is shown: keep it where it is needed")


def _show(keys: tuple[ApiKey, ...], as_json: bool) -> None:
    if as_json:
        console.data_json(
            [
                {
                    "name": key.name,
                    "created": key.created,
                    "expires": key.expires,
                    "expired": key.expired(),
                    "models": key.models,
                    "requests_per_minute": key.requests_per_minute,
                    "tokens_per_minute": key.tokens_per_minute,
                    "concurrent_requests": key.concurrent_requests,
                    "manage_models": key.manage_models,
                }
                for key in keys
            ]
        )
        return
    if not keys:
        console.note("there are no keys; `freehold keys create NAME` makes one")
        return
    rows = [("NAME", "CREATED", "EXPIRES", "MODELS", "LIMITS")]
    for key in keys:
        expires = "never" if key.expires is None else _date(key.expires)
        if key.expired():
            expires += " (over)"
        models = " ".join(key.models or ("all",)) + (" (manages)" if key.manage_models else "")
        rows.append((key.name, _date(key.created), expires, models, _limits(key)))
    console.data(console.table(rows))


def _date(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"


def _limits(key: ApiKey) -> str:
    limits = [
        f"{number:,} {word}"
        for number, word in (
            (key.requests_per_minute, "requests/min"),
            (key.tokens_per_minute, "tokens/min"),
            (key.concurrent_requests, "at a time"),
        )
        if number is not None
    ]
    return ", ".join(limits) or "none"
