# SPDX-License-Identifier: Apache-2.0
"""What a client of Ollama's API calls a model: which one it means, and whether it may be fetched.

Names are Ollama's (``llama3.2:3b``, ``name``, ``who/name:tag``, ``hf.co/org/repo:Q4_K_M``) or
freehold's own. A name of the catalogue is the catalogue's model, as it is everywhere in freehold.
Asks no network and looks at no file.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from freehold.catalogue import catalogue
from freehold.errors import InvalidParameterError
from freehold.hub import reference
from freehold.hub.reference import Reference
from freehold.server.failures import RequestError


def ollama_name(asked: str) -> str | None:
    """``ollama:…`` for a name as Ollama writes it, None for a name of another kind."""
    if ":/" in asked:
        return None
    try:
        parsed = reference.parse(f"ollama:{asked}")
    except InvalidParameterError:
        return None
    return parsed.name


def reference_of(asked: str) -> Reference:
    """What a name means. Raises InvalidParameterError where it is none."""
    try:
        found = reference.parse(asked)
    except InvalidParameterError:
        other = ollama_name(asked)
        if other is None:
            raise
        return reference.parse(other)
    if found.kind == "catalogue" and catalogue.find(found.repository) is None:
        return reference.parse(f"ollama:{asked}")
    return found


def comes_from_elsewhere(stored: str) -> bool:
    """Whether a model of this name in the store could be fetched again; copies, and what was
    adopted under a name of its own, are known here alone."""
    try:
        found = reference_of(stored)
    except InvalidParameterError:
        return False
    return found.kind != "path" and found.name == stored


def fetchable(asked: str, hosts: Collection[str]) -> Reference:
    """`reference_of` for a name that a client wants fetched. `hosts` are those that may be asked
    beside Hugging Face and Ollama's registry.

    Raises RequestError for files of this machine and for other hosts: whoever may have models
    fetched shall not thereby reach what only this machine can.
    """
    found = reference_of(asked)
    if found.kind == "path":
        raise RequestError(
            "paths of the server's machine are not fetched for clients",
            param="model", kind="forbidden", hint="`freehold pull PATH` there does it",
        )  # fmt: skip
    host = urlsplit(found.repository).netloc if found.kind == "url" else found.host
    if host is not None and host.lower() not in hosts:
        raise RequestError(
            f"this server fetches nothing from {host:.120}",
            param="model", kind="forbidden",
            hint="it asks Hugging Face and Ollama's registry; --allow-pull-from HOST adds a host",
        )  # fmt: skip
    return found
