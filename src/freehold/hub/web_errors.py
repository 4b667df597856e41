# SPDX-License-Identifier: Apache-2.0
"""What an answer's status, or a connection that broke, means for whoever fetches.

Either it may pass by itself (`Temporary`), or it will not (`Refused`, which carries the status for
a source to explain), or there is something on the way that a person has to look at.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from freehold.errors import DownloadError

if TYPE_CHECKING:
    import httpx

_PASSING = (408, 425, 429, 500, 502, 503, 504)


class Temporary(DownloadError):
    """May work at the next try. `wait` is what the server asked for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(DownloadError):
    """The server said no, with a status that trying again does not change."""

    def __init__(self, message: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def check_encoding(response: httpx.Response) -> None:
    """DownloadError unless the body is the file's own bytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise DownloadError(
            f"{response.url.host} sends {encoding[:20]} although asked for the file as it is"
        )


def check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if 200 <= status < 300:
        return
    message = f"{host_of(url)} answers {status} {response.reason_phrase[:40]}".rstrip()
    if status in _PASSING:
        raise Temporary(message, _retry_after(response.headers.get("retry-after")))
    raise Refused(message, status, response.headers)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After asks for; None where it says nothing one can follow."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def transport_error(error: httpx.TransportError, url: str) -> DownloadError:
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return DownloadError(
                f"{host_of(url)} cannot prove who it is: {cause.verify_message}",
                hint="SSL_CERT_FILE names certificates of a house of one's own",
            )
        if isinstance(cause, socket.gaierror):
            return Temporary(f"no address is known for {host_of(url)}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return Temporary(f"{host_of(url)} cannot be reached")
    return Temporary(f"the connection to {host_of(url)} broke off")


def host_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2][:100]
