# SPDX-License-Identifier: Apache-2.0
"""A model file at a URL. The server is asked how long it is and by what it tells versions apart.

Without a digest in the URL (``#sha256=…``) nothing says which bytes are the right ones: the
digest the store keeps is then that of what came.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from freehold.errors import DownloadError, InvalidParameterError, ModelNotFoundError
from freehold.hub.gguf_variants import quant_label, split_names
from freehold.hub.reference import Reference
from freehold.hub.remote import RemoteFile, RemoteModel
from freehold.hub.web import Web
from freehold.hub.web_errors import Refused, check_encoding

if TYPE_CHECKING:
    import httpx

_TOTAL = re.compile(r"bytes 0-0/([0-9]{1,18})")
_MAX_SPLITS = 1000


def resolve(ref: Reference, web: Web) -> RemoteModel:
    """The file at the URL, with the other splits of its set. Raises DownloadError."""
    parts = urlsplit(ref.repository)
    folder, _, last = parts.path.rpartition("/")
    name = unquote(last)
    names = split_names(name) or [name]
    if len(names) > _MAX_SPLITS:
        raise DownloadError(f"{name}: more than {_MAX_SPLITS:,} splits")
    if ref.sha256 is not None and len(names) > 1:
        raise InvalidParameterError("one digest cannot be that of several splits")
    files = tuple(
        _look(n, parts._replace(path=f"{folder}/{quote(n)}").geturl(), web, ref.sha256)
        for n in names
    )
    return RemoteModel(
        reference=ref,
        source="url",
        repository=parts._replace(query="").geturl(),  # a query may hold a signature
        revision=files[0].validator,
        quant=quant_label(name),
        files=files,
        entry=names[0],
        page=None,
    )


def _look(name: str, url: str, web: Web, sha256: str | None) -> RemoteFile:
    """Ask for the first byte: its answer tells what a HEAD would, and is allowed more often."""

    def once() -> RemoteFile:
        with web.open(url, {"Range": "bytes=0-0"}) as response:
            check_encoding(response)
            size = _size(response)
            tag = response.headers.get("etag", "")
            date = response.headers.get("last-modified", "")
            validator = tag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag) else date[:60] or None
            return RemoteFile(
                name=name,
                size=size,
                location=url,
                sha256=sha256,
                validator=validator,
                # Where versions cannot be told apart, half a file is nothing to go on from.
                revision=None if validator else uuid.uuid4().hex,
            )

    try:
        return web.patiently(once)
    except Refused as refused:
        if refused.status in (404, 410):
            raise ModelNotFoundError(f"{name}: {refused.message}") from None
        if refused.status == 416:
            raise DownloadError(f"{name} is empty") from None
        raise


def _size(response: httpx.Response) -> int:
    if response.status_code == 206:
        match = _TOTAL.fullmatch(response.headers.get("content-range", "").strip())
        if match is not None:
            return int(match[1])
    else:
        length = response.headers.get("content-length", "")
        if re.fullmatch(r"[0-9]{1,18}", length):
            return int(length)
    raise DownloadError(
        f"{response.url.host} does not say how large the file is",
        hint="fetch it by other means, then `freehold pull ./FILE`",
    )
