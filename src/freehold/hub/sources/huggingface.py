# SPDX-License-Identifier: Apache-2.0
"""Models of Hugging Face and of mirrors that speak its protocol.

`huggingface_hub` knows the login and takes the answers apart. The requests are `web.py`'s: its
rules on redirects, tokens and sizes hold for every source, where the library's client reads
whatever a mirror sends. Nothing is told to the endpoint but what is asked of it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from freehold.errors import (
    DownloadError,
    IntegrityError,
    MalformedFileError,
    ModelNotFoundError,
)
from freehold.formats.strict_json import parse_json_object
from freehold.hub.gguf_variants import Chooser
from freehold.hub.model_files import MAX_TEXT, is_grant, select, select_file
from freehold.hub.reference import Reference
from freehold.hub.remote import RemoteFile, RemoteModel
from freehold.hub.transfer import git_digest
from freehold.hub.web import Web
from freehold.hub.web_errors import Refused

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

ENDPOINT = "https://huggingface.co"
_MAX_ANSWER = 32 << 20  # the largest repositories have some tens of thousands of files
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def saved_token() -> str | None:
    """The token of this user's login, or of HF_TOKEN."""
    from huggingface_hub import get_token

    return get_token()


def resolve(
    ref: Reference, web: Web, *, endpoint: str = ENDPOINT, chooser: Chooser | None = None
) -> RemoteModel:
    """What `ref` stands for at `endpoint` now.

    Raises ModelNotFoundError, or DownloadError where the endpoint does not answer or not as it
    should, or wants conditions accepted first.
    """
    endpoint = endpoint.rstrip("/")
    info = _info(ref, web, endpoint)
    commit = _commit(ref, info)
    base = f"{endpoint}/{ref.repository}/resolve/{commit}"
    files = [file for s in info.siblings or [] if (file := _file(s, base)) is not None]
    where = f"hf:{ref.repository}"
    if ref.file is not None:
        chosen, entry = select_file(files, ref.file, where)
        label = None
    else:
        chosen, entry, label = select(files, ref.quant, chooser, where)
    claims = _claims(info)
    if info.gated:
        _check_access(ref, chosen[0], web, endpoint)
    texts = [f for f in chosen if is_grant(f.name)]
    return RemoteModel(
        reference=ref if label is None or ref.quant else replace(ref, quant=label),
        source="huggingface",
        repository=ref.repository,
        revision=commit,
        quant=label,
        files=chosen,
        entry=entry,
        licence_claim=_licence_claim(claims),
        base_models=_base_models(claims),
        gated=bool(info.gated),
        page=f"{endpoint}/{ref.repository}",
        metadata=claims,
        licence_texts=tuple(_text(f, web) for f in texts[:4]),
    )


def _info(ref: Reference, web: Web, endpoint: str) -> ModelInfo:
    url = f"{endpoint}/api/models/{ref.repository}"
    if ref.revision is not None:
        url += f"/revision/{quote(ref.revision, safe='')}"
    try:
        body, _ = web.get(f"{url}?blobs=true", _MAX_ANSWER)
    except Refused as refused:
        raise _explain(refused, ref, web, endpoint) from None
    host = urlsplit(endpoint).netloc
    try:
        data: dict[str, Any] = parse_json_object(body, host)
    except MalformedFileError as error:
        raise DownloadError(
            f"{host} does not answer as a Hugging Face endpoint does ({error.message})"
        ) from None
    return _parse(data, host)


def _parse(data: dict[str, Any], host: str) -> ModelInfo:
    from huggingface_hub.hf_api import ModelInfo

    # Only what is used, so that nothing else in a strange answer can be in the way.
    wanted = ("id", "sha", "gated", "tags", "cardData", "siblings", "gguf")
    try:
        known = {key: data[key] for key in wanted if key in data}
        info = ModelInfo(**known)  # type: ignore[no-untyped-call]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DownloadError(
            f"{host} does not answer as a Hugging Face endpoint does ({type(error).__name__})"
        ) from None
    return info


def _commit(ref: Reference, info: ModelInfo) -> str:
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise DownloadError(f"hf:{ref.repository}: the endpoint names no commit")
    asked = (ref.revision or "").lower()
    if _COMMIT.fullmatch(asked) and asked != commit:
        raise DownloadError(f"hf:{ref.repository}: asked for commit {asked}, offered {commit}")
    return commit


def _file(sibling: RepoSibling, base: str) -> RemoteFile | None:
    """None for a file under a name that a store cannot keep: no file of a model has one."""
    name, lfs = sibling.rfilename, sibling.lfs
    size = lfs.size if lfs is not None else sibling.size
    if not isinstance(name, str) or type(size) is not int:
        raise DownloadError(f"the endpoint does not say how large {name!r:.80} is")
    try:
        return RemoteFile(
            name=name,
            size=size,
            location=f"{base}/{quote(name)}",
            sha256=lfs.sha256 if lfs is not None else None,
            git_sha1=sibling.blob_id if lfs is None else None,
        )
    except DownloadError:
        if name.lower().endswith((".gguf", ".safetensors", ".json")):
            raise
        return None


def _claims(info: ModelInfo) -> dict[str, object]:
    """What the uploader says about licence and origin."""
    card: dict[str, Any] = {}
    if info.card_data is not None and hasattr(info.card_data, "to_dict"):
        card = info.card_data.to_dict()  # type: ignore[no-untyped-call]
    claims: dict[str, object] = {
        key: card[key]
        for key in ("license", "license_name", "license_link", "base_model", "datasets")
        if card.get(key)
    }
    tags = [t for t in info.tags or [] if isinstance(t, str)][:1000]
    if "license" not in claims:
        named = [t.removeprefix("license:") for t in tags if t.startswith("license:")]
        if named:
            claims["license"] = named[0]
    if "base_model" not in claims:
        # Tags say it twice: base_model:REPO and base_model:quantized:REPO.
        bases = {t.rpartition(":")[2] for t in tags if t.startswith("base_model:")}
        if bases:
            claims["base_model"] = sorted(bases)
    return claims


def _licence_claim(claims: Mapping[str, object]) -> str | None:
    found = claims.get("license")
    if isinstance(found, list):
        found = ", ".join(str(item) for item in found[:4])
    if found == "other" and claims.get("license_name"):
        found = claims["license_name"]
    return str(found)[:200] if found else None


def _base_models(claims: Mapping[str, object]) -> tuple[str, ...]:
    found = claims.get("base_model")
    bases = found if isinstance(found, list) else [found]
    return tuple(b for b in bases if isinstance(b, str) and len(b) <= 200)[:20]


def _text(file: RemoteFile, web: Web) -> str:
    """The text of a licence, which a policy may judge: the very bytes of the commit."""
    for _ in range(2):
        body, _headers = web.get(str(file.location), MAX_TEXT)
        if file.git_sha1 is None or git_digest(io.BytesIO(body), len(body)) == file.git_sha1:
            return body.decode("utf-8", "replace")
    raise IntegrityError(f"{file.name} is another text than the one of this commit")


def _check_access(ref: Reference, file: RemoteFile, web: Web, endpoint: str) -> None:
    """Whether this user may fetch from a repository with conditions: ask for one byte."""
    try:
        with web.open(str(file.location), {"Range": "bytes=0-0"}):
            return
    except Refused as refused:
        raise _explain(refused, ref, web, endpoint) from None


def _explain(refused: Refused, ref: Reference, web: Web, endpoint: str) -> DownloadError:
    """Why an endpoint said no, for people. Its own words go by a code in a header."""
    code = refused.headers.get("x-error-code", "")
    name, page = f"hf:{ref.repository}", f"{endpoint}/{ref.repository}"
    if code == "GatedRepo":
        known = web.has_credential
        return DownloadError(
            f"{name} is gated: its maker gives it to those who accept conditions on {page}",
            hint=f"accept them there{'' if known else f', then {_LOGIN}'}, and run this again",
        )
    if code == "RevisionNotFound":
        return _absent(f"{name} has no revision {ref.revision or 'main'}", f"see {page}/commits")
    if refused.status == 401 and web.has_credential and code != "RepoNotFound":
        return DownloadError(f"{urlsplit(endpoint).netloc} does not accept the token", hint=_LOGIN)
    if refused.status in (401, 404):
        return _absent(f"{name} does not exist, or is not public", f"if it is yours, {_LOGIN}")
    if refused.status == 403:
        return DownloadError(f"{name}: access is forbidden", hint=f"see {page}")
    return refused


def _absent(message: str, hint: str) -> DownloadError:
    return _NotThere(message, hint=hint)


class _NotThere(DownloadError, ModelNotFoundError):
    """Both: what cannot be fetched because there is no such thing."""
