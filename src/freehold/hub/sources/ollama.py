# SPDX-License-Identifier: Apache-2.0
"""Models of an Ollama registry, over plain HTTP: a manifest by name, blobs by digest.

A digest is 64 hexadecimal digits or it is refused: it becomes a file name. Where a registry wants
a token it names a place to get one; that place must be the registry itself, or one server could
have tokens of another sent to it. Tokens are anonymous: this source knows no account.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from freehold.errors import (
    DownloadError,
    IntegrityError,
    MalformedFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from freehold.formats.strict_json import parse_json_object
from freehold.hub.ollama_layers import PREFIX, WEIGHTS, LayerNames
from freehold.hub.reference import OLLAMA_HOST, Reference
from freehold.hub.remote import RemoteFile, RemoteModel
from freehold.hub.web import Web
from freehold.hub.web_errors import Refused
from freehold.hub.web_rules import Credential, is_loopback, origin

_ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"
_MAX_MANIFEST = 4 << 20
_MAX_SMALL = 1 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_CHALLENGE = re.compile(r'([a-z]+)="([^"\\]{0,2000})"')


@dataclass(frozen=True, slots=True)
class _Layer:
    kind: str
    sha256: str
    size: int


def endpoint_of(ref: Reference) -> str:
    """Where the registry of `ref` answers."""
    host = ref.host or OLLAMA_HOST
    return f"{'http' if is_loopback(host.partition(':')[0]) else 'https'}://{host}"


def resolve(ref: Reference, web: Web, *, endpoint: str | None = None) -> RemoteModel:
    """What `ref` stands for in its registry now.

    Raises ModelNotFoundError, UnsupportedModelError for what is no GGUF, or DownloadError.
    """
    base = (endpoint or endpoint_of(ref)).rstrip("/") + f"/v2/{ref.repository}"
    body = _get(web, f"{base}/manifests/{quote(ref.revision or 'latest')}", ref)
    manifest = _object(body, ref.name)
    layers = _layers(manifest, ref.name)
    models = [layer for layer in layers if layer.kind == "model"]
    if len(models) != 1:
        kinds = ", ".join(sorted({layer.kind for layer in layers})[:8]) or "nothing"
        raise UnsupportedModelError(
            f"{ref.name} holds {kinds}, not one GGUF file",
            hint="models that only run in a cloud, and those in parts, cannot be fetched",
        )
    files = _files(layers, base)
    config = _config(manifest, base, web, ref)
    texts = [_blob(web, base, layer) for layer in layers if layer.kind == "license"][:4]
    quant = config.get("file_type")
    return RemoteModel(
        reference=ref,
        source="ollama",
        repository=f"{ref.host + '/' if ref.host else ''}{ref.repository}",
        revision=f"sha256:{hashlib.sha256(body).hexdigest()}",
        quant=quant[:40] if isinstance(quant, str) and quant else None,
        files=files,
        entry=WEIGHTS,
        licence_claim=_first_line(texts[0]) if texts else None,
        metadata={"model_family": config.get("model_family")},
        licence_texts=tuple(texts),
        page=f"https://ollama.com/{ref.repository}" if ref.host is None else None,
    )


def _get(web: Web, url: str, ref: Reference) -> bytes:
    headers = {"Accept": _ACCEPT}
    try:
        try:
            return web.get(url, _MAX_MANIFEST, headers)[0]
        except Refused as refused:
            if refused.status != 401 or web.has_credential:
                raise
            web.use(_anonymous(web, url, refused.headers))
            return web.get(url, _MAX_MANIFEST, headers)[0]
    except Refused as refused:
        if refused.status == 404:
            raise ModelNotFoundError(
                f"{ref.name}: the registry has no such model", hint="check the name and the tag"
            ) from None
        raise


def _anonymous(web: Web, url: str, headers: Mapping[str, str]) -> Credential:
    """A token for whoever asks, from the place that the registry names."""
    challenge = headers.get("www-authenticate", "")
    fields = dict(_CHALLENGE.findall(challenge))
    realm = fields.get("realm", "")
    if not challenge.lower().startswith("bearer ") or not realm:
        raise DownloadError(f"{origin(url)[1]} wants a login of a kind that is not known")
    if origin(realm) != origin(url):
        raise DownloadError(
            f"{origin(url)[1]} sends to {origin(realm)[1]} for a token, which is not followed",
            hint="a token is only ever asked of, and shown to, the registry itself",
        )
    asked = {key: fields[key] for key in ("service", "scope") if key in fields}
    body, _ = web.get(f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}", _MAX_SMALL)
    found = _object(body, "the registry's token")
    token = found.get("token") or found.get("access_token")
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]{1,8192}", token):
        raise DownloadError(f"{origin(url)[1]} gives no token")
    return Credential.for_url(url, token)


def _object(body: bytes, where: str) -> dict[str, Any]:
    try:
        return parse_json_object(body, where)
    except MalformedFileError as error:
        raise DownloadError(f"not the answer of a registry: {error.message}") from None


def _layers(manifest: Mapping[str, Any], where: str) -> list[_Layer]:
    found = manifest.get("layers")
    if not isinstance(found, list) or len(found) > 4096:
        raise DownloadError(f"{where}: the manifest lists no layers")
    return [_layer(entry, where) for entry in found]


def _layer(entry: object, where: str) -> _Layer:
    if not isinstance(entry, dict):
        raise DownloadError(f"{where}: the manifest's layers are not objects")
    kind, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise DownloadError(f"{where}: the manifest names a digest that is none: {digest!r:.80}")
    if type(size) is not int or size < 0:
        raise DownloadError(f"{where}: the manifest does not say how large its layers are")
    name = kind.removeprefix(PREFIX)[:40] if isinstance(kind, str) else "unknown"
    return _Layer(name, match.group(1), size)


def _files(layers: list[_Layer], base: str) -> tuple[RemoteFile, ...]:
    """Layers that a store keeps, numbered where there are several of a kind."""
    files: list[RemoteFile] = []
    names = LayerNames()
    for layer in layers:
        name = names.of(layer.kind)
        if name is None:
            continue
        url = f"{base}/blobs/sha256:{layer.sha256}"
        files.append(RemoteFile(name, layer.size, url, sha256=layer.sha256))
    return tuple(files)


def _config(manifest: Mapping[str, Any], base: str, web: Web, ref: Reference) -> dict[str, Any]:
    """The manifest's configuration: format, family and quant of the model."""
    config = _object(_blob(web, base, _layer(manifest.get("config"), ref.name)).encode(), ref.name)
    kind = config.get("model_format", "gguf")
    if kind not in ("gguf", ""):
        raise UnsupportedModelError(f"{ref.name} is of the format {kind!r:.40}, not GGUF")
    return config


def _blob(web: Web, base: str, layer: _Layer) -> str:
    """A small blob as text, its digest checked; asked for once more where it is wrong."""
    for _ in range(2):
        body, _headers = web.get(f"{base}/blobs/sha256:{layer.sha256}", _MAX_SMALL)
        if hashlib.sha256(body).hexdigest() == layer.sha256:
            return body.decode("utf-8", "replace")
    raise IntegrityError(f"the registry's blob {layer.sha256[:12]} is another one than promised")


def _first_line(text: str) -> str | None:
    for line in text.splitlines():
        if words := " ".join(line.split()):
            return words[:120]
    return None
