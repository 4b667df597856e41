# SPDX-License-Identifier: Apache-2.0
"""HTTP as models are fetched by it: one client with the rules that hold for every source.

A token belongs to one origin (scheme, host, port) and is sent nowhere else, whatever a redirect or
a challenge says. Redirects are followed here, one by one: http(s) only, never from https to http,
never from a public address to a private one, eight at most. Answers are never decompressed, so
nothing can unfold. What may pass by itself is a `Temporary`; `Refused` carries a status that a
source can explain. Knows no source and writes no file.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from freehold import __version__
from freehold.errors import DownloadError
from freehold.hub.web_errors import (
    Temporary,
    check_encoding,
    check_status,
    host_of,
    transport_error,
)
from freehold.hub.web_rules import Credential, address_of, is_public, origin

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_REDIRECTS = (301, 302, 303, 307, 308)
_WONDER = 1.5  # seconds of silence after which a person asks what is going on


@dataclass(frozen=True, slots=True)
class WebLimits:
    """How patient a client is. Times in seconds."""

    connect_timeout: float = 20.0
    read_timeout: float = 30.0  # without a single byte
    retries: int = 6  # in a row, without anything gained
    first_pause: float = 0.5  # doubled each time
    longest_pause: float = 30.0
    longest_wait: float = 300.0  # that a server may ask for by Retry-After
    redirects: int = 8


class Web:
    """A client for one pull. Safe for several threads."""

    def __init__(
        self,
        credential: Credential | None = None,
        limits: WebLimits | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`note` is told of waiting that a person would wonder about."""
        import httpx

        self.limits = limits or WebLimits()
        self._note, self._noted_at = note, 0.0
        self.stopped = threading.Event()  # set: nobody waits any longer
        self._credential = credential
        self._client = httpx.Client(
            follow_redirects=False,
            timeout=httpx.Timeout(self.limits.read_timeout, connect=self.limits.connect_timeout),
            headers={"User-Agent": f"freehold/{__version__}", "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )

    def close(self) -> None:
        """Close all connections."""
        self.stopped.set()
        self._client.close()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def has_credential(self) -> bool:
        """Whether there is a token."""
        return self._credential is not None

    def use(self, credential: Credential | None) -> None:
        """From now on, send this one."""
        self._credential = credential

    @contextmanager
    def open(
        self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Iterator[httpx.Response]:
        """The answer of status 2xx behind all redirects, its body not yet read.

        Raises Temporary, Refused, or DownloadError for a redirect that is not followed.
        """
        import httpx

        first = url
        try:
            for _ in range(self.limits.redirects + 1):
                request = self._client.build_request(
                    method, url, headers=self._headers(url, headers)
                )
                response = self._client.send(request, stream=True)
                try:
                    self._check_peer(response, first, url)
                    if response.status_code not in _REDIRECTS:
                        check_status(response, url)
                        yield response
                        return
                    url = self._next(response, first, url)
                finally:
                    response.close()
        except httpx.TimeoutException:
            raise Temporary(f"{host_of(url)} does not answer") from None
        except httpx.TransportError as error:
            raise transport_error(error, url) from None
        except (httpx.InvalidURL, UnicodeError):
            raise DownloadError(f"{url!r:.100} is not a URL") from None
        raise DownloadError(f"{host_of(first)} redirects more than {self.limits.redirects} times")

    def _headers(self, url: str, headers: Mapping[str, str] | None) -> dict[str, str]:
        sent = dict(headers or {})
        if self._credential is not None and origin(url) == self._credential.origin:
            sent["Authorization"] = f"Bearer {self._credential.token}"
        return sent

    def _next(self, response: httpx.Response, first: str, url: str) -> str:
        """Where a redirect leads, if it may be followed."""
        try:
            target = str(urljoin(url, response.headers.get("location", "")))
        except ValueError:
            raise DownloadError(f"{host_of(url)} redirects to what is no URL") from None
        scheme, host, port = origin(target)
        if urlsplit(url).scheme == "https" and scheme != "https":
            raise DownloadError(
                f"{host_of(url)} redirects from https to http, which is not followed"
            )
        if "@" in urlsplit(target).netloc:
            raise DownloadError(f"{host_of(url)} redirects to a URL with a password in it")
        if host != origin(first)[1] and not is_public(host, port) and is_public(*origin(first)[1:]):
            raise DownloadError(
                f"{host_of(url)} redirects to {host}, an address inside a private network"
            )
        return target

    def _check_peer(self, response: httpx.Response, first: str, url: str) -> None:
        """The address that was reached, once more: a name may have changed its address since."""
        if origin(url)[1] == origin(first)[1]:
            return
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        # Through a proxy the peer is the proxy, and who may be reached is the proxy's to say.
        if peer is None or self._proxied(url) or address_of(str(peer[0])).is_global:
            return
        if is_public(*origin(first)[1:]):
            raise DownloadError(f"{host_of(first)} redirects into a private network")

    def _proxied(self, url: str) -> bool:
        from urllib.request import getproxies, proxy_bypass

        scheme, host, _ = origin(url)
        proxies = getproxies()
        return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)

    def get(
        self, url: str, limit: int, headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, httpx.Headers]:
        """A small body of at most `limit` bytes, tried again as often as limits allow."""

        def once() -> tuple[bytes, httpx.Headers]:
            import httpx

            with self.open(url, headers) as response:
                check_encoding(response)
                body = bytearray()
                try:
                    for chunk in response.iter_raw():
                        body += chunk
                        if len(body) > limit:
                            raise DownloadError(
                                f"{host_of(url)} answers with more than {limit:,} bytes"
                            )
                except httpx.TransportError as error:
                    raise transport_error(error, url) from None
                return bytes(body), response.headers

        return self.patiently(once)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """`attempt`, again after a pause while it raises Temporary."""
        for tries in range(self.limits.retries + 1):
            try:
                return attempt()
            except Temporary as error:
                if tries == self.limits.retries:
                    raise self.given_up(error, tries + 1) from None
                self.pause(tries, error)
        raise AssertionError

    def given_up(self, error: Temporary, tries: int) -> DownloadError:
        """What is said when no further try is made."""
        return DownloadError(
            f"{error.message}, after {tries} tries",
            hint="what has come is kept: the same command goes on from there",
        )

    def pause(self, tries: int, why: Temporary) -> None:
        """Wait before try number `tries` + 2: what the server asked for, or longer each time."""
        asked = why.wait or 0.0
        if asked > self.limits.longest_wait:
            raise DownloadError(
                f"the server wants no request for {asked:,.0f} seconds",
                hint="run the same command then; it goes on from what has come",
            )
        grown = min(self.limits.first_pause * 2**tries, self.limits.longest_pause)
        # Spread out, or many clients that were refused together would come back together.
        seconds = max(asked, grown * random.uniform(0.5, 1.0))
        if seconds > _WONDER and monotonic() - self._noted_at > seconds:
            self._noted_at = monotonic()  # several threads wait for the same reason
            self._note(f"note: {why.message}; trying again in {seconds:.0f} seconds")
        self.stopped.wait(seconds)
        if self.stopped.is_set():
            raise DownloadError("stopped")
