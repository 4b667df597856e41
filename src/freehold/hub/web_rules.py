# SPDX-License-Identifier: Apache-2.0
"""Who may be asked, and who may be told a secret: rules over URLs and addresses.

Knows what a token's own origin is and which addresses belong to the public internet. Opens no
connection; resolving a name is all it asks of the network.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from freehold.errors import DownloadError


@dataclass(frozen=True, slots=True)
class Credential:
    """A bearer token, and the only origin it may be sent to."""

    origin: tuple[str, str, int]
    token: str

    @classmethod
    def for_url(cls, url: str, token: str) -> Credential:
        """`token` for the origin of `url`. Raises DownloadError where it would travel in clear
        text over a network."""
        scheme, host, port = origin(url)
        if scheme != "https" and not is_loopback(host):
            raise DownloadError(
                f"a token is not sent to {host} over http, where anybody on the way can read it",
                hint="use https, or fetch without a token",
            )
        return cls((scheme, host, port), token)

    def __repr__(self) -> str:  # tokens must not get into logs
        return f"Credential(origin={self.origin})"


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL. Raises DownloadError for what is no http(s) URL."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        port = parts.port or (443 if scheme == "https" else 80)
    except ValueError:
        raise DownloadError(f"{url!r:.100} is not a URL") from None
    if scheme not in ("http", "https") or not host:
        raise DownloadError(f"{url!r:.100} is not an http or https URL")
    return scheme, host, port


def is_loopback(host: str) -> bool:
    """Whether a host, written as it is in URLs, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that a text spells, one of IPv4 also where it is written inside IPv6."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1 is 127.0.0.1
    return mapped or address


def is_public(host: str, port: int) -> bool:
    """Whether every address of `host` is one of the public internet; True where it has none, for
    then connecting fails anyway."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True
    return all(address_of(str(entry[4][0])).is_global for entry in found)
