# SPDX-License-Identifier: Apache-2.0
"""`freehold pull`: fetch a model into the store, or go on where an earlier try ended.

Words and the bar are here; where models come from is `pulling.py`'s.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console, options
from freehold.errors import InvalidParameterError, PolicyError

if TYPE_CHECKING:
    from freehold.hub.store import StoredModel
    from freehold.pulling import PullPlan

_MAX_TOKEN = 8192


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Such as llama3.2:3b, hf:org/repo, hf:org/repo:Q6_K@v1.1, ollama:name:tag, a URL "
            "or a path.",
            show_default=False,
        ),
    ],
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant", help="Of the GGUF files, such as Q4_K_M; default: what suits this machine."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit of the repository.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="URL", help="A mirror or registry to ask instead."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="File with a token for that server; - is stdin. Default: your Hugging Face login.",
        ),
    ] = None,
    policy_override: Annotated[
        str | None,
        typer.Option(
            "--policy-override",
            metavar="WHY",
            help="Fetch although the policy forbids it; the reason is written down.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would come, and fetch nothing.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Fetch a model into the store, whole or not at all."""
    from freehold.pulling import PullOptions, plan_pull, pull

    chosen = PullOptions(
        quant=quant,
        revision=revision,
        endpoint=endpoint,
        token=None if token_file is None else _token(token_file),
        override=policy_override,
    )
    try:
        if dry_run:
            plan = plan_pull(name, chosen, note=console.note)
            if as_json:
                console.data_json(_plan_json(plan))
            else:
                console.data(render_plan(plan))
            return
        with console.progress_bar("pull") as bar:
            rate = _Rate()

            def show(done: int, total: int, file: str) -> None:
                speed = rate.of(done)
                parts = [f"{console.size(done)} of {console.size(total)}", speed, file]
                bar(done, total, "  ".join(part for part in parts if part))

            stored = pull(name, chosen, progress=show, note=console.note)
    except PolicyError as error:
        if as_json:
            console.data_json({"error": error.message, "reason": error.reason})
        raise
    except KeyboardInterrupt:
        console.note("\nstopped; what has come is kept, and the same command goes on from there")
        raise
    if as_json:
        console.data_json(_stored_json(stored))
    else:
        console.data(stored.name)
        size = console.size(sum(file.size for file in stored.files))
        console.note(f"complete: {size}; run it with `freehold run {_short(stored)}`")


def _token(path: Path) -> str:
    """The token in a file: an argument would be seen by everybody who lists processes."""
    if str(path) == "-":
        text = sys.stdin.read(_MAX_TOKEN + 1)
    else:
        with path.open(encoding="ascii", errors="replace") as file:
            text = file.read(_MAX_TOKEN + 1)
    token = text.strip()
    if not token or len(text) > _MAX_TOKEN or not all(33 <= ord(c) <= 126 for c in token):
        raise InvalidParameterError(f"{path} holds no token: one word of plain characters")
    return token


class _Rate:
    """Bytes per second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=50)

    def of(self, done: int) -> str:
        """The rate as a person reads it; empty while there is none to tell."""
        now = time.monotonic()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > 5:
            self._seen.popleft()
        since, before = self._seen[0]
        if now - since < 0.5 or done <= before:
            return ""
        return f"{console.size((done - before) / (now - since))}/s"


def _short(stored: StoredModel) -> str:
    return min((stored.name, *stored.aliases), key=len)


def _plan_json(plan: PullPlan) -> dict[str, Any]:
    model = plan.model
    return {
        "name": model.reference.name,
        "aliases": list(model.aliases),
        "source": model.source,
        "repository": model.repository,
        "revision": model.revision,
        "quant": model.quant,
        "licence_claim": model.licence_claim,
        "base_models": list(model.base_models),
        "gated": model.gated,
        "files": [
            {"name": file.name, "size": file.size, "sha256": file.sha256} for file in model.files
        ],
        "bytes": plan.need.total,
        "bytes_present": plan.need.present,
        "bytes_missing": plan.need.missing,
        "bytes_free": plan.need.free,
    }


def _stored_json(stored: StoredModel) -> dict[str, Any]:
    return {
        "name": stored.name,
        "aliases": list(stored.aliases),
        "source": stored.source,
        "repository": stored.repository,
        "revision": stored.revision,
        "quant": stored.quant,
        "licence_claim": stored.licence_claim,
        "base_models": list(stored.base_models),
        "path": str(stored.path()),
        "files": [
            {"name": file.name, "size": file.size, "sha256": file.sha256} for file in stored.files
        ],
    }


def render_plan(plan: PullPlan) -> str:
    """What would come, for a person."""
    model, need = plan.model, plan.need
    rows = [
        ["name", model.reference.name],
        ["from", model.page or model.repository],
        ["revision", model.revision or "not told"],
        ["licence", f"{model.licence_claim} (the uploader's claim)" if model.licence_claim
         else "none stated"],
    ]  # fmt: skip
    if model.base_models:
        rows.append(["made from", ", ".join(model.base_models)])
    if need.present:
        rows.append(["here already", console.size(need.present)])
    rows.append(["to fetch", f"{console.size(need.missing)}, {console.size(need.free)} free"])
    files = [["file", "size", "sha256"]]
    for file in model.files:
        files.append([file.name, console.size(file.size), (file.sha256 or "not told")[:12]])
    return console.table(rows) + "\n\n" + console.table(files, right=(1,))
