# SPDX-License-Identifier: Apache-2.0
"""Names of machines as HTTP's headers spell them, and which of them mean this machine."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from freehold.errors import InvalidParameterError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own and nobody else's."""
    host = host.lower().removesuffix(".")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str | None:
    """The name in a Host header, without port, in small letters; None where it is none."""
    match = _HOST.fullmatch(header.strip())
    return None if match is None else match.group(1).lower().removesuffix(".")


def origin_host(origin: str) -> str | None:
    """``localhost:3000`` of ``http://localhost:3000``; None for ``null`` and what is no website."""
    scheme, mark, rest = origin.strip().partition("://")
    if scheme.lower() not in ("http", "https") or not mark or not _HOST.fullmatch(rest):
        return None
    return rest.lower()


def parse_host(text: str) -> str:
    """A name for ``--allow-host``. Raises InvalidParameterError."""
    name = host_name(text)
    if name is None:
        raise InvalidParameterError(f"{text!r:.80} is no name of a machine")
    return name


def parse_origin(text: str) -> str:
    """A website for ``--allow-origin``: scheme, name and port as browsers write them.

    Raises InvalidParameterError.
    """
    parts = urlsplit(text.strip().removesuffix("/"))
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", parts.scheme) or not _HOST.fullmatch(parts.netloc):
        raise InvalidParameterError(
            f"{text!r:.80} is no origin", hint="write it like https://chat.example.org"
        )
    if parts.path or parts.query or parts.fragment:
        raise InvalidParameterError(f"{text!r:.80}: an origin has no path")
    return f"{parts.scheme}://{parts.netloc}".lower()
