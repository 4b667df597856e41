# SPDX-License-Identifier: Apache-2.0
"""What a person calls a model that is to be fetched, taken apart: the grammar of names.

Knows five kinds: a catalogue's shorthand (``llama3.2:3b``), a Hugging Face repository
(``hf:org/repo[:quant][@revision]``), a model of an Ollama registry (``ollama:name[:tag]``), an
http(s) URL and a path. Touches neither disk nor network. Names travel into URLs and file names,
so every part is matched whole against the letters its place allows; nothing is cleaned up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from freehold.errors import InvalidParameterError, StoreError
from freehold.hub.file_names import check_file_name

Kind = Literal["catalogue", "huggingface", "ollama", "url", "path"]

MAX_LENGTH = 4096
HF_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
OLLAMA_HOST = "registry.ollama.ai"

_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_HF_PART = re.compile(_WORD)
_QUANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_CATALOGUE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,79}(?::[A-Za-z0-9][A-Za-z0-9._-]{0,79})?")
_OLLAMA_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
_HOST = re.compile(r"(?=.{1,253}(?::|\Z))[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_SHA256 = re.compile(r"sha256[:=]([0-9a-fA-F]{64})")
_MODEL_SUFFIXES = (".gguf", ".safetensors")
_FORMS = (
    "names look like llama3.2:3b, hf:org/repo, hf:org/repo:Q4_K_M, ollama:name:tag, "
    "https://host/model.gguf or ./model.gguf"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One name. Which fields mean something depends on `kind`."""

    kind: Kind
    repository: str  # org/repo · namespace/name · URL without fragment · path · catalogue name
    quant: str | None = None  # huggingface: label of the variant wanted
    revision: str | None = None  # huggingface: branch, tag or commit; ollama: the tag
    file: str | None = None  # huggingface: one file of the repository
    host: str | None = None  # ollama: a registry other than the usual one
    sha256: str | None = None  # url: the digest its fragment promises

    @property
    def name(self) -> str:
        """The canonical spelling, under which the store knows the model."""
        if self.kind == "huggingface":
            text = f"hf:{self.repository}"
            text += f"/{self.file}" if self.file else f":{self.quant}" if self.quant else ""
            return text + (f"@{self.revision}" if self.revision else "")
        if self.kind == "ollama":
            name = self.repository.removeprefix("library/") if not self.host else self.repository
            return f"ollama:{f'{self.host}/' if self.host else ''}{name}:{self.revision}"
        return self.repository


def parse(text: str) -> Reference:
    """Take a name apart. Raises InvalidParameterError, which says what names look like."""
    if not text or len(text) > MAX_LENGTH or not text.isprintable():
        raise InvalidParameterError(
            "a model's name is one line of printable characters"
            if len(text) <= MAX_LENGTH
            else f"a model's name has at most {MAX_LENGTH:,} characters",
            hint=_FORMS,
        )
    prefix, colon, rest = text.partition(":")
    if colon and prefix.lower() == "hf":
        return _huggingface(rest, text)
    if colon and prefix.lower() == "ollama":
        return _ollama(rest, text)
    first, slash, rest = text.partition("/")
    if slash and first.lower() in HF_HOSTS:
        return _huggingface(rest, text)
    if _SCHEME.match(text):
        return _url(text)
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return Reference("path", text)
    if text.lower().endswith(_MODEL_SUFFIXES):
        return Reference("path", text)
    if _CATALOGUE.fullmatch(text):
        return Reference("catalogue", text.lower())
    if slash and not text.startswith("."):
        raise InvalidParameterError(
            f"{_shown(text)}: a repository or a folder?",
            hint=f"write hf:{_shown(text)} for the one, ./{_shown(text)} for the other",
        )
    raise InvalidParameterError(f"{_shown(text)} is not a model's name", hint=_FORMS)


def with_choice(ref: Reference, quant: str | None, revision: str | None) -> Reference:
    """`ref` with what flags say beside it. Raises InvalidParameterError where both say something
    and differ, or where the kind has no such thing."""
    for word, flag, written in (("quant", quant, ref.quant), ("revision", revision, ref.revision)):
        if flag is None:
            continue
        if ref.kind not in ("huggingface", "catalogue"):
            raise InvalidParameterError(f"--{word} is for models from Hugging Face repositories")
        if written is not None and written.lower() != flag.lower():
            raise InvalidParameterError(f"the name says {written}, --{word} says {_shown(flag)}")
    if quant is not None:
        if ref.file is not None:
            raise InvalidParameterError("the name is that of one file already; drop --quant")
        _match(_QUANT, quant, "quant", quant)
    if revision is not None:
        _check_revision(revision, revision)
    return replace(ref, quant=quant or ref.quant, revision=revision or ref.revision)


def huggingface(repository: str, quant: str | None, revision: str | None) -> Reference:
    """The reference of a repository that a catalogue names."""
    plain = _huggingface(repository, repository)
    return with_choice(plain, quant, revision)


def _huggingface(text: str, whole: str) -> Reference:
    text, at, revision = text.partition("@")
    if at:
        _check_revision(revision, whole)
    path, colon, quant = text.partition(":")
    if colon:
        _match(_QUANT, quant, "quant", whole)
    parts = path.split("/")
    if len(parts) < 2:
        raise InvalidParameterError(f"{_shown(whole)}: a repository is org/repo", hint=_FORMS)
    for part in parts[:2]:
        _match(_HF_PART, part, "repository", whole)
        if ".." in part or "--" in part or part.lower().endswith(".git"):
            raise InvalidParameterError(f"{_shown(whole)}: no repository has such a name")
    file = "/".join(parts[2:]) or None
    if len(parts) > 2 and (colon or not file or not _is_model_file(file)):
        raise InvalidParameterError(
            f"{_shown(whole)}: what follows org/repo must be a .gguf or .safetensors file",
            hint=_FORMS,
        )
    return Reference(
        "huggingface", "/".join(parts[:2]), quant or None, (revision if at else None), file
    )


def _ollama(text: str, whole: str) -> Reference:
    parts = text.split("/")
    host = parts.pop(0) if len(parts) == 3 else None
    if len(parts) not in (1, 2):
        raise InvalidParameterError(
            f"{_shown(whole)}: too many parts", hint="ollama:[host/][namespace/]name[:tag]"
        )
    if host is not None:
        _match(_HOST, host, "registry", whole)
    name, colon, tag = parts.pop().partition(":")
    if colon:
        _match(_TAG, tag, "tag", whole)
    namespace = parts.pop() if parts else "library"
    for part in (namespace, name):
        _match(_OLLAMA_PART, part, "name", whole)
        if ".." in part:
            raise InvalidParameterError(f"{_shown(whole)}: no model has such a name")
    if host is not None and host.lower() == OLLAMA_HOST:
        host = None
    return Reference(
        "ollama", f"{namespace}/{name}", revision=(tag if colon else "latest"), host=host
    )


def _url(text: str) -> Reference:
    try:
        url = urlsplit(text)
        port = url.port  # noqa: F841 -- reading it is what checks it
        host = url.hostname
    except ValueError:
        raise InvalidParameterError(f"{_shown(text)} is not a URL") from None
    if url.scheme.lower() not in ("http", "https"):
        raise InvalidParameterError(
            f"models are fetched by http and https, not {url.scheme.lower()}",
            hint="give a file of this machine as a path" if url.scheme.lower() == "file" else None,
        )
    if not host or any(c.isspace() for c in text):
        raise InvalidParameterError(f"{_shown(text)} is not a URL")
    if "@" in url.netloc:
        raise InvalidParameterError(
            "a URL must not carry a password: it would end up in lists and logs",
            hint="give a token by --token-file",
        )
    if host.lower() in HF_HOSTS:
        return _huggingface_page(url, text)
    digest = None
    if url.fragment:
        match = _SHA256.fullmatch(url.fragment)
        if match is None:
            raise InvalidParameterError(
                f"{_shown(text)}: what follows # must be sha256= and 64 hexadecimal digits"
            )
        digest = match.group(1).lower()
    file = unquote(url.path.rpartition("/")[2])
    if not _is_model_file(file):
        raise InvalidParameterError(
            f"{_shown(text)}: the URL's path must end in the name of a .gguf file",
            hint="or in .safetensors; a repository is fetched by hf:org/repo",
        )
    return Reference("url", url._replace(fragment="").geturl(), sha256=digest)


def _huggingface_page(url: SplitResult, whole: str) -> Reference:
    """A page or file of huggingface.co as people copy it from a browser."""
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    repository, rest = "/".join(parts[:2]), parts[2:]
    if not rest:
        return _huggingface(repository, whole)
    if rest[0] == "tree" and len(rest) == 2:
        return _huggingface(f"{repository}@{rest[1]}", whole)
    if rest[0] in ("blob", "resolve") and len(rest) > 2:
        revision = "" if rest[1] == "main" else f"@{rest[1]}"
        return _huggingface(f"{repository}/{'/'.join(rest[2:])}{revision}", whole)
    raise InvalidParameterError(
        f"{_shown(whole)} is neither a repository's page nor a file's", hint=_FORMS
    )


def _is_model_file(file: str) -> bool:
    try:
        check_file_name(file)
    except StoreError:
        return False
    return file.lower().endswith(_MODEL_SUFFIXES)


def _check_revision(revision: str, whole: str) -> None:
    _match(_REVISION, revision, "revision", whole)
    if ".." in revision or "//" in revision or revision.endswith(("/", ".lock", ".")):
        raise InvalidParameterError(f"{_shown(whole)}: no revision has such a name")


def _match(pattern: re.Pattern[str], part: str, what: str, whole: str) -> None:
    if not pattern.fullmatch(part):
        raise InvalidParameterError(
            f"{_shown(whole)}: {_shown(part)!r} cannot be the {what}", hint=_FORMS
        )


def _shown(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
