# SPDX-License-Identifier: Apache-2.0
"""`freehold serve`: models behind the endpoints that clients already speak.

Turns flags into settings and runs the server; everything else is `freehold.server`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from freehold.cli import console, options


@options.with_options
def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, directories or names; NAME=PATH serves PATH as NAME. Without any, all "
            "models of the store (`freehold list`).",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Serve the models of the store as well.")
    ] = False,
    allow_pull: Annotated[
        bool,
        typer.Option(
            "--allow-pull",
            help="Let clients fetch, copy and delete models of the store; where keys are kept, "
            "those made with --manage-models.",
        ),
    ] = False,
    allow_pull_from: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-pull-from",
            metavar="HOST[:PORT]",
            help="Let them fetch from this host beside Hugging Face and Ollama's registry; "
            "repeatable.",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0: any.")] = 8484,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            help="NAME=PATH: serve the model under this LoRA adapter, too, as MODEL:NAME; with "
            "several models MODEL:NAME=PATH. Repeatable.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", help="For all loaded models together, e.g. 12GiB; default: 80 % of free."
        ),
    ] = None,
    keep_alive: Annotated[
        str,
        typer.Option("--keep-alive", help="How long a model stays loaded unused; -1: for good."),
    ] = "10m",
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", help="Load this model first and never unload it; repeatable."),
    ] = None,
    preload: Annotated[
        list[str] | None,
        typer.Option("--preload", help="Load this model before it is asked for; repeatable."),
    ] = None,
    snapshot_dir: Annotated[
        str | None,
        typer.Option(
            "--snapshot-dir",
            help="Keep computed beginnings of prompts here, so that they survive a restart. "
            "Prompts can be made out from them. Default: they are not kept.",
        ),
    ] = None,
    snapshot_bytes: Annotated[
        str, typer.Option("--snapshot-bytes", help="The most that directory may take.")
    ] = "8GiB",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="Keep uploaded files and batches here; one server at a time uses a directory. "
            "Default: freehold/server among your data ($XDG_DATA_HOME).",
        ),
    ] = None,
    data_bytes: Annotated[
        str, typer.Option("--data-bytes", help="The most that directory may take.")
    ] = "8GiB",
    batch_lines: Annotated[
        int,
        typer.Option(
            "--batch-lines",
            min=1,
            max=1024,
            help="Requests of batches worked on at once while nobody else asks.",
        ),
    ] = 8,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="A name by which clients call this server; repeatable."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            help="A website whose pages may ask, e.g. https://a.example; repeatable.",
        ),
    ] = None,
    request_timeout: Annotated[
        str, typer.Option("--request-timeout", help="The most an answer may take; -1: no limit.")
    ] = "1h",
    max_body: Annotated[
        str, typer.Option("--max-body", help="The most a request may hold; files have their own.")
    ] = "32MiB",
    max_connections: Annotated[int, typer.Option("--max-connections", min=1)] = 512,
    grace: Annotated[
        str, typer.Option("--grace", help="Time for running answers when asked to stop.")
    ] = "30s",
    log_format: Annotated[
        Literal["text", "json"], typer.Option("--log-format", help="One line per request.")
    ] = "text",
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Write requests and answers into the log too.")
    ] = False,
    recommended: options.Recommended = True,
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:
    """Serve models to OpenAI, Anthropic and Ollama clients."""
    from freehold import config
    from freehold.server.quantities import parse_bytes, parse_keep_alive
    from freehold.server.run import serve
    from freehold.server.security.hosts import parse_host, parse_origin
    from freehold.server.security.keys import FILE_NAME, require_key
    from freehold.server.settings import ServerSettings

    models = models or []
    if not models and not allow_pull:
        _require_stored()
    key_file = config.config_dir() / FILE_NAME
    require_key(host, key_file)
    snapshots: dict[str, object] = {"snapshot_bytes": parse_bytes(snapshot_bytes)}
    if snapshot_dir is not None:
        snapshots["snapshot_dir"] = snapshot_dir
    longest = parse_keep_alive(request_timeout)
    settings = ServerSettings(
        models=tuple(models),
        adapters=tuple(adapter or ()),
        store=store or allow_pull or not models,
        allow_pull=allow_pull,
        pull_hosts=tuple(each.lower() for each in allow_pull_from or ()),
        host=host,
        port=port,
        engine={**engine.settings(), **snapshots},
        recommended_sampling=recommended,
        memory_bytes=None if memory is None else parse_bytes(memory),
        keep_alive=parse_keep_alive(keep_alive),
        pinned=tuple(pin or ()),
        preload=tuple(preload or ()),
        data_dir=data_dir or ((home := config.data_dir()) and home / "server"),
        data_bytes=parse_bytes(data_bytes),
        batch_lines=batch_lines,
        key_file=key_file,
        allow_hosts=tuple(parse_host(name) for name in allow_host or ()),
        allow_origins=tuple(parse_origin(site) for site in allow_origin or ()),
        request_timeout=None if math.isinf(longest) else longest,
        max_body_bytes=parse_bytes(max_body),
        max_connections=max_connections,
        grace=min(parse_keep_alive(grace), 86400.0),
        log_format=log_format,
        log_prompts=log_prompts,
    )
    if allow_pull_from and not allow_pull:
        console.note("note: --allow-pull-from does nothing without --allow-pull")
    serve(settings, lambda url: console.note(f"serving on {url} (Ctrl-C stops)"))


def _require_stored() -> None:
    """InvalidParameterError where there would be nothing to serve."""
    from freehold.errors import InvalidParameterError
    from freehold.hub.store import Store

    if not Store().models():
        raise InvalidParameterError(
            "no model is named, and the store has none",
            hint="`freehold pull NAME` fetches one; --allow-pull lets clients fetch them",
        )
