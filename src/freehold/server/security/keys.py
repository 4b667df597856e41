# SPDX-License-Identifier: Apache-2.0
"""API keys: who may ask the server, for which models, and how much.

A key is 256 random bits. The file holds its SHA-256 only (nothing slower is needed: there is
nothing to guess), is replaced whole and changed under a lock. A running server reads it again when
it changes, so that a revoked key stops working at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from freehold.errors import FreeholdError, InvalidParameterError, MalformedFileError
from freehold.formats.atomic_files import atomic_files
from freehold.formats.strict_json import describe, parse_json_object
from freehold.server.security.hosts import is_loopback

FILE_NAME = "keys.json"
PREFIX = "fh-"
MAX_FILE_BYTES = 16 << 20
_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
_log = logging.getLogger("freehold.server")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; the key itself is not."""

    name: str
    sha256: str  # of the secret, in hexadecimal digits
    created: int  # seconds since 1970
    expires: int | None = None  # seconds since 1970; None: never
    models: tuple[str, ...] | None = None  # names or patterns (``llama*``); None: all
    requests_per_minute: int | None = None  # None: no limit
    tokens_per_minute: int | None = None  # of prompts and answers together
    concurrent_requests: int | None = None
    manage_models: bool = False  # may fetch, copy and delete models where the server allows that

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidParameterError(
                f"a key cannot be named {describe(self.name)}",
                hint="up to 64 letters, digits, dots, dashes and underscores",
            )
        for field in _LIMITS:
            value = getattr(self, field)
            if value is not None and not (_is_whole(value) and 1 <= value <= 10**12):
                raise InvalidParameterError(f"{field} must be a whole number of at least 1")
        if self.models is not None and not self.models:
            raise InvalidParameterError("a key that may use no model is of no use")

    def may_use(self, model: str) -> bool:
        """Whether requests with this key see and reach the model served under that name."""
        return self.models is None or any(fnmatchcase(model, each) for each in self.models)

    def expired(self, now: float | None = None) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= (time.time() if now is None else now)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# -- the file -----------------------------------------------------------------------------------


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """All keys of a file, in the order in which they were created; none where there is no file.

    Raises MalformedFileError, and InvalidParameterError where others could write the file.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
                raise InvalidParameterError(
                    f"{path}: others than you can write this file", hint=f"chmod 600 {path}"
                )
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ()
    if len(data) > MAX_FILE_BYTES:
        raise MalformedFileError(f"{path}: too large for a file of keys")
    content = parse_json_object(data, str(path))
    if content.get("version") != _VERSION or not isinstance(content.get("keys"), list):
        raise MalformedFileError(f"{path}: not a file of keys that this version can read")
    keys = tuple(_key(path, number, raw) for number, raw in enumerate(content["keys"]))
    if len({key.name for key in keys}) != len(keys):
        raise MalformedFileError(f"{path}: two keys have the same name")
    return keys


def _key(path: Path, number: int, raw: Any) -> ApiKey:
    where = f"{path}: keys[{number}]"
    fields = set(ApiKey.__dataclass_fields__)
    if not isinstance(raw, Mapping) or not {"name", "sha256", "created"} <= set(raw) <= fields:
        raise MalformedFileError(f"{where} has not the fields of a key")
    models = raw.get("models")
    sound = (
        isinstance(raw["sha256"], str)
        and _DIGEST.fullmatch(raw["sha256"]) is not None
        and _is_whole(raw["created"])
        and (raw.get("expires") is None or _is_whole(raw["expires"]))
        and isinstance(raw.get("manage_models", False), bool)
        and (
            models is None
            or (isinstance(models, list) and all(isinstance(name, str) for name in models))
        )
    )
    if not sound:
        raise MalformedFileError(f"{where} has a field of the wrong type")
    try:
        return replace(ApiKey(**{**raw, "models": None}), models=models and tuple(models))
    except InvalidParameterError as error:
        raise MalformedFileError(f"{where}: {error.message}") from None


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    text = json.dumps({"version": _VERSION, "keys": [asdict(key) for key in keys]}, indent=1)
    with atomic_files() as create:
        file = create(path)
        os.fchmod(file.fileno(), 0o600)  # before there is anything in it
        file.write(text.encode() + b"\n")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile. The lock is a file of its own, because the file
    itself is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(
        path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def create_key(path: Path, name: str, **fields: Any) -> str:
    """Make a key and return its secret, which is kept nowhere. `fields` are those of `ApiKey`.

    Raises InvalidParameterError, MalformedFileError and OSError.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(name, digest_of(secret), int(time.time()), **fields)
    with _locked(path):
        keys = read_keys(path)
        if any(each.name == name for each in keys):
            raise InvalidParameterError(
                f"there is a key named {name}", hint="revoke it first, or take another name"
            )
        _write(path, (*keys, key))
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Forget a key: who has it is refused from now on.

    Raises InvalidParameterError where there is none of that name, MalformedFileError and OSError.
    """
    with _locked(path):
        keys = read_keys(path)
        if all(key.name != name for key in keys):
            raise InvalidParameterError(
                f"there is no key named {name!r:.80}", hint="`freehold keys list` shows them"
            )
        _write(path, tuple(key for key in keys if key.name != name))


def require_key(host: str, path: Path) -> None:
    """See that nobody listens on an address that others reach while no key is valid.

    Raises InvalidParameterError, and what `read_keys` raises.
    """
    if all(key.expired() for key in read_keys(path)) and not is_loopback(host):
        raise InvalidParameterError(
            f"{host or 'that address'} can be reached from outside, and there is no API key",
            hint="make one with `freehold keys create NAME`, or listen on 127.0.0.1",
        )


def digest_of(secret: str) -> str:
    """The SHA-256 under which a key is kept."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class KeyRing:
    """The keys of a running server. A file that cannot be read opens no door: it holds no key."""

    def __init__(self, path: Path) -> None:
        """Raises MalformedFileError and InvalidParameterError as `read_keys` does."""
        self._path = path
        self._seen = self._stamp()
        self._keys = read_keys(path)

    def keys(self) -> tuple[ApiKey, ...]:
        """All keys as they are in the file now, expired ones included."""
        stamp = self._stamp()
        if stamp != self._seen:
            try:
                self._keys = read_keys(self._path)
            except (FreeholdError, OSError) as error:
                self._keys = ()
                _log.error("no API key is valid until this is mended: %s", error)
            self._seen = stamp
        return self._keys

    def named(self, name: str) -> ApiKey | None:
        """The key of that name, expired or not."""
        return next((key for key in self.keys() if key.name == name), None)

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, expired or not."""
        if len(secret) > 256:
            return None
        digest, found = digest_of(secret), None
        for key in self.keys():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
