# SPDX-License-Identifier: Apache-2.0
"""The lock file: which models, to the byte, a project was made with. TOML, to be committed.

It pins digests, revision, template hash and licence claim of every model, and holds no paths, so
that it means the same on every machine. Writing and reading it; hashing files is
`verification.py`'s.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from freehold.errors import FreeholdError, MalformedFileError
from freehold.formats.strict_json import describe
from freehold.hub.file_names import check_file_name, check_model_name, check_sha256
from freehold.hub.store import StoredModel

FILE_NAME = "freehold.lock"
MAX_BYTES = 16 << 20
_VERSION = 1
_OPTIONAL = ("revision", "quant", "licence_claim", "template_sha256")


@dataclass(frozen=True, slots=True)
class LockedModel:
    """What is pinned of one model."""

    name: str
    source: str
    repository: str
    entry: str
    files: Mapping[str, tuple[str, int]]  # name to SHA-256 and bytes
    revision: str | None = None
    quant: str | None = None
    licence_claim: str | None = None
    template_sha256: str | None = None
    licences: tuple[str, ...] = ()  # ids of what binds, as they were found when it was locked


def lock_of(model: StoredModel, licences: tuple[str, ...] = ()) -> LockedModel:
    """What a lock file pins of a model, with the licences that are found to bind it."""
    return LockedModel(
        model.name,
        model.source,
        model.repository,
        model.entry,
        {file.name: (file.sha256, file.size) for file in model.files},
        model.revision,
        model.quant,
        model.licence_claim,
        model.template_sha256,
        licences,
    )


def differences(locked: LockedModel, now: LockedModel) -> list[str]:
    """In what a stored model, by `lock_of`, differs from what is pinned; by which program it came
    is no difference."""
    found = [
        f"{key} is {getattr(now, key)!r}, locked {getattr(locked, key)!r}"
        for key in ("repository", "entry", *_OPTIONAL)
        if getattr(now, key) != getattr(locked, key)
    ]
    if set(now.licences) != set(locked.licences):
        found.append(f"licences are {_listed(now.licences)}, locked {_listed(locked.licences)}")
    for name in sorted(locked.files.keys() | now.files.keys()):
        if name not in now.files:
            found.append(f"{name} is missing")
        elif name not in locked.files:
            found.append(f"{name} is not in the lock file")
        elif now.files[name] != locked.files[name]:
            found.append(f"{name} has the digest {now.files[name][0]}, not {locked.files[name][0]}")
    return found


def _listed(licences: tuple[str, ...]) -> str:
    return ", ".join(sorted(licences)) or "none"


# -- the file ---------------------------------------------------------------------------------


def write(models: Iterable[LockedModel]) -> str:
    """The text of a lock file; the same models always give the same text."""
    lines = [
        "# Written by `freehold lock`; checked by `freehold verify --lock`.",
        f"version = {_VERSION}",
    ]
    for model in sorted(models, key=lambda model: model.name):
        lines += ["", "[[model]]"]
        for key in ("name", "source", "repository", "entry", *_OPTIONAL):
            value = getattr(model, key)
            if value is not None:
                lines.append(f"{key} = {_string(value)}")
        if model.licences:
            lines.append(f"licences = [{', '.join(map(_string, sorted(model.licences)))}]")
        for name, (sha256, size) in sorted(model.files.items()):
            lines += [
                "", "[[model.file]]", f"name = {_string(name)}", f'sha256 = "{sha256}"',
                f"size = {size}",
            ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _string(text: str) -> str:
    """A basic string of TOML: JSON's escapes are among its own, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def read(data: bytes, where: str) -> list[LockedModel]:
    """The models of a lock file. Raises MalformedFileError."""
    if len(data) > MAX_BYTES:
        raise MalformedFileError(f"{where}: larger than {MAX_BYTES >> 20} MiB")
    if re.search(rb"[\[{]{64}", data):
        raise MalformedFileError(f"{where}: nested too deeply")
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (UnicodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise MalformedFileError(f"{where}: not a TOML file: {error}") from None
    if content.get("version") != _VERSION:
        raise MalformedFileError(
            f"{where}: version {describe(content.get('version'))} of lock files is not known"
        )
    listed = content.get("model", [])
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise MalformedFileError(f"{where}: model must be a list of tables")
    models = [_model(item, where) for item in listed]
    if len({model.name for model in models}) != len(models):
        raise MalformedFileError(f"{where}: a model occurs twice")
    return models


def _model(item: Mapping[str, Any], where: str) -> LockedModel:
    files: dict[str, tuple[str, int]] = {}
    listed = item.get("file")
    if not isinstance(listed, list) or not listed:
        raise MalformedFileError(f"{where}: a model has a list of files")
    try:
        name = check_model_name(_text(item, "name", where))
        for file in listed:
            if not isinstance(file, dict) or type(file.get("size")) is not int:
                raise MalformedFileError(f"{where}: {name}: a file has name, sha256 and size")
            key = check_file_name(_text(file, "name", where))
            if key in files:
                raise MalformedFileError(f"{where}: {name}: {key} occurs twice")
            files[key] = (check_sha256(_text(file, "sha256", where)), file["size"])
    except MalformedFileError:
        raise
    except FreeholdError as error:
        raise MalformedFileError(f"{where}: {error.message}") from None
    licences = item.get("licences", [])
    if not isinstance(licences, list) or not all(isinstance(each, str) for each in licences):
        raise MalformedFileError(f"{where}: {name}: licences must be a list of texts")

    def optional(key: str) -> str | None:
        return None if item.get(key) is None else _text(item, key, where)

    return LockedModel(
        name=name,
        source=_text(item, "source", where),
        repository=_text(item, "repository", where),
        entry=_text(item, "entry", where),
        files=files,
        revision=optional("revision"),
        quant=optional("quant"),
        licence_claim=optional("licence_claim"),
        template_sha256=optional("template_sha256"),
        licences=tuple(licences),
    )


def _text(item: Mapping[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise MalformedFileError(f"{where}: {key} must be a text, not {describe(value)}")
    return value
