# SPDX-License-Identifier: Apache-2.0
"""Where the policy lies, and the log of those who went past it.

Without a file there is no policy, and asking costs one failed `open`. A file that cannot be read
allows nothing. The log is appended to and never rewritten; what cannot be written down does not
happen. Knows no rule and no model.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from freehold import config
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.licences.policy import Policy

LOG_NAME = "policy-overrides.jsonl"
_MAX_POLICY_BYTES = 1 << 20
_MAX_WHY = 2000


def policy_in_force() -> tuple[Policy, Path] | None:
    """The policy and its file; None where there is none. Raises InvalidParameterError for a file
    that cannot be read: a policy nobody can read allows nothing."""
    path, named = config.policy_file()
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_POLICY_BYTES + 1)
    except FileNotFoundError:
        if named:
            raise InvalidParameterError(
                f"{path}: there is no policy here", hint="FREEHOLD_POLICY names it"
            ) from None
        return None
    except OSError as error:
        raise InvalidParameterError(
            f"{path}: the policy cannot be read: {error.strerror}"
        ) from None
    if len(data) > _MAX_POLICY_BYTES:
        raise InvalidParameterError(f"{path}: too large for a policy")
    from freehold.licences.policy import read_policy

    return read_policy(data.decode("utf-8", "replace"), str(path)), path


def override_log() -> Path:
    """Where overrides are written down. Raises InvalidParameterError."""
    folder = config.data_dir()
    if folder is None:
        raise InvalidParameterError(
            "there is no place to write an override down", hint="set XDG_DATA_HOME to a directory"
        )
    return folder / LOG_NAME


def record_override(reason: Mapping[str, object], why: str) -> None:
    """Append who goes past which rule, when and why. Raises InvalidParameterError without a why,
    and OSError where it cannot be written: what is not written down does not happen."""
    why = " ".join(why.split())
    if not why or len(why) > _MAX_WHY:
        raise InvalidParameterError(f"an override needs a reason of up to {_MAX_WHY:,} characters")
    path = override_log()
    policy = Path(str(reason["policy"])).read_bytes()
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "user": _user(),
        "uid": os.getuid(),
        **reason,
        "policy_sha256": hashlib.sha256(policy).hexdigest(),
        "why": why,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
