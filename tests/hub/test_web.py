# SPDX-License-Identifier: Apache-2.0
"""Who is told a token, and where a redirect may lead."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from freehold.errors import DownloadError
from freehold.hub.web import Web, WebLimits
from freehold.hub.web_errors import Refused
from freehold.hub.web_rules import Credential, is_public, origin
from model_server import Fault, ModelServer, endless, redirect, status

LIMITS = WebLimits(read_timeout=1, retries=2, first_pause=0.001, longest_pause=0.01)
SECRET = "hf_secret"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        running.files["/x.gguf"] = (b"data", None)
        yield running


def test_a_token_is_sent_to_its_origin_alone(server: ModelServer) -> None:
    server.faults.append(Fault("^/x.gguf$", redirect(f"{server.cdn}/x.gguf?signed=1"), times=1))
    with Web(Credential.for_url(server.url, SECRET), LIMITS) as web:
        body, _ = web.get(f"{server.url}/x.gguf", 100)
    assert body == b"data"
    first, second = server.requests("x.gguf")
    assert first.headers["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in second.headers
    assert SECRET not in str(second)


def test_the_same_host_on_another_port_is_another_origin(server: ModelServer) -> None:
    with Web(Credential.for_url(server.url, SECRET), LIMITS) as web:
        web.get(f"{server.cdn}/x.gguf", 100)
    assert "authorization" not in server.requests("x.gguf")[0].headers


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_on_the_same_host(server: ModelServer, code: int) -> None:
    server.faults.append(Fault("^/a$", redirect("/x.gguf", code)))
    with Web(Credential.for_url(server.url, SECRET), LIMITS) as web:
        assert web.get(f"{server.url}/a", 100)[0] == b"data"
    assert server.requests("x.gguf")[0].headers["authorization"] == f"Bearer {SECRET}"


def test_a_token_is_not_shown_and_not_sent_in_clear_text() -> None:
    assert SECRET not in repr(Credential.for_url("https://hub.example", SECRET))
    with pytest.raises(DownloadError, match="not sent"):
        Credential.for_url("http://hub.example", SECRET)


def routed(answer: Callable[[httpx.Request], httpx.Response]) -> Web:
    """A client that reaches `answer` under any name."""
    web = Web(limits=LIMITS)
    web._client = httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=False)
    return web


def leading_to(location: str) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/start":
            return httpx.Response(302, headers={"Location": location})
        return httpx.Response(200, stream=httpx.ByteStream(b"reached"))

    return answer


ADDRESSES = {
    "hub.example": "93.184.215.14",
    "cdn.example": "93.184.215.15",
    "metadata.example": "169.254.169.254",
    "mapped.example": "::ffff:127.0.0.1",
    "inside.example": "10.1.2.3",
    "six.example": "fd00::1",
    "local.example": "127.0.0.1",
    "shared.example": "100.64.0.1",
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: object) -> list[object]:
        address = ADDRESSES.get(host, host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("freehold.hub.web_rules.socket.getaddrinfo", resolve)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "location",
    ["https://metadata.example/", "https://mapped.example/", "https://inside.example/",
     "https://six.example/", "https://local.example/", "https://shared.example/",
     "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://0.0.0.0/",
     "http://cdn.example/", "http://hub.example/", "ftp://cdn.example/", "file:///etc/passwd",
     "https://u:p@cdn.example/", "https://", "//", "https://[", "data:text/plain,x"],
)  # fmt: skip
def test_where_a_redirect_must_not_lead(location: str) -> None:
    with routed(leading_to(location)) as web, pytest.raises(DownloadError) as caught:
        web.get("https://hub.example/start", 100)
    assert not isinstance(caught.value, Refused)


@pytest.mark.usefixtures("names")
def test_where_it_may() -> None:
    for location in ("https://cdn.example/x", "/x", "//cdn.example/x"):
        with routed(leading_to(location)) as web:
            assert web.get("https://hub.example/start", 100)[0] == b"reached"
    # Whoever names a mirror inside the house may be sent to another machine of the house.
    with routed(leading_to("https://inside.example/x")) as web:
        assert web.get("https://10.9.9.9/start", 100)[0] == b"reached"
    assert is_public("hub.example", 443)
    assert not is_public("mapped.example", 443)


def test_redirects_end(server: ModelServer) -> None:
    server.faults.append(Fault("x.gguf", redirect("/x.gguf")))
    with Web(limits=LIMITS) as web, pytest.raises(DownloadError, match="more than 8 times"):
        web.get(f"{server.url}/x.gguf", 100)
    assert len(server.requests("x.gguf")) == 9


def test_small_bodies_are_small(server: ModelServer) -> None:
    server.files["/x.gguf"] = (bytes(101), None)
    with Web(limits=LIMITS) as web:
        with pytest.raises(DownloadError, match="more than 100 bytes"):
            web.get(f"{server.url}/x.gguf", 100)
        server.faults.append(Fault("x.gguf", endless()))
        with pytest.raises(DownloadError, match="more than 100 bytes"):
            web.get(f"{server.url}/x.gguf", 100)


def test_statuses(server: ModelServer) -> None:
    with Web(limits=LIMITS) as web:
        server.faults.append(Fault("x.gguf", status(503), times=2))
        assert web.get(f"{server.url}/x.gguf", 100)[0] == b"data"
        server.faults.append(Fault("x.gguf", status(503), times=3))
        with pytest.raises(DownloadError, match="after 3 tries"):
            web.get(f"{server.url}/x.gguf", 100)
        server.faults.append(Fault("x.gguf", status(403), times=1))
        with pytest.raises(Refused, match="403"):
            web.get(f"{server.url}/x.gguf", 100)
        server.faults.append(Fault("x.gguf", status(429, {"Retry-After": "99999"}), times=1))
        with pytest.raises(DownloadError, match="99,999 seconds"):
            web.get(f"{server.url}/x.gguf", 100)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Web(limits=LIMITS) as web, pytest.raises(DownloadError, match="cannot be reached"):
        web.get(f"http://127.0.0.1:{port}/x", 100)


def test_no_proxy_credentials_of_netrc(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Web(limits=LIMITS) as web:
        web.get(f"{server.url}/x.gguf", 100)
    assert "authorization" not in server.requests("x.gguf")[0].headers


@pytest.mark.parametrize("url", ["", "x", "ftp://h/", "http://", "http://[", "http://h:x/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(DownloadError):
        origin(url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate nobody signed, and what a server with it needs."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, path = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return path, context


def test_a_server_that_cannot_prove_who_it_is(
    certificate: tuple[Path, ssl.SSLContext],
) -> None:
    context = certificate[1]
    with ModelServer(context) as server, Web(limits=LIMITS) as web:
        server.files["/x.gguf"] = (b"data", None)
        assert server.url.startswith("https://")
        with pytest.raises(DownloadError, match="cannot prove who it is") as caught:
            web.get(f"{server.url}/x.gguf", 100)
        assert "tries" not in str(caught.value)  # trying again would not help
        assert not server.seen


def test_a_house_may_have_certificates_of_its_own_and_https_stays_https(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with (
        ModelServer(context) as server,
        ModelServer() as plain,
        Web(Credential.for_url(server.url, SECRET), LIMITS) as web,
    ):
        server.files["/x.gguf"] = (b"data", None)
        assert web.get(f"{server.url}/x.gguf", 100)[0] == b"data"
        server.faults.append(Fault("x.gguf", redirect(f"{plain.url}/x.gguf")))
        with pytest.raises(DownloadError, match="from https to http"):
            web.get(f"{server.url}/x.gguf", 100)
        assert not plain.seen
