# SPDX-License-Identifier: Apache-2.0
"""What a run is to be reproduced with: the model's files, the template, the engine, the machine.

Knows how to find these out, not what they are used for. Nothing here changes what a job is: that is
`fingerprint.py`'s.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from freehold.chat.template import chat_template_sources
from freehold.documents.jobs.fingerprint import Identity
from freehold.formats.checkpoint import Checkpoint


def run_record(
    identity: Identity, checkpoint: Checkpoint | None = None, ops: Any = None, *,
    command: Sequence[str] | None = None, resumable: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """All of it as JSON. `ops` is the backend where it is open. `command` is what was typed behind
    ``freehold``; `resumable` says whether typing it again gives the same items."""
    return {
        "identity": identity.as_json(),
        "model": None if checkpoint is None else _model(checkpoint),
        "engine": _engine(ops),
        "machine": _machine(),
        "readers": _readers(),
        "command": None if command is None else list(command),
        "folder": os.getcwd() if command is not None else None,  # noqa: PTH109
        "resumable": command is not None and resumable,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def template_hash(checkpoint: Checkpoint) -> str | None:
    """SHA-256 over the chat templates of the model's files; None where there are none."""
    sources = chat_template_sources(checkpoint)
    if not sources:
        return None
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\0{sources[name]}\0".encode())
    return digest.hexdigest()


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "files": [str(path) for path in checkpoint.files],
        "architecture": checkpoint.architecture,
        "template_sha256": template_hash(checkpoint),
    }


def _engine(ops: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"freehold": version("freehold")}
    if ops is not None:
        found["backend"] = type(ops).__module__.rpartition(".")[2]
        found["isa"] = getattr(ops, "isa", None)
    return found


def _machine() -> dict[str, Any]:
    import psutil

    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "python": sys.version.split()[0],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()[:100]
    except OSError:
        pass
    return platform.machine()


def _readers() -> dict[str, int]:
    import importlib

    from freehold.documents import readers

    found = {}
    for name in readers.names():
        module = importlib.import_module(f"{readers.__name__}.{name}")
        found[name] = int(module.VERSION)
    return found
