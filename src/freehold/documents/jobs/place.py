# SPDX-License-Identifier: Apache-2.0
"""Where jobs lie: one journal and one lock each, in one folder of the user's data.

Knows names and locks; what a journal holds is `journal.py`'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from freehold.config import data_dir
from freehold.errors import InvalidParameterError, JobError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENDING = ".job.sqlite"


def folder() -> Path:
    """The folder of all jobs, which may not be there yet. Raises JobError."""
    home = data_dir()
    if home is None:
        raise JobError("this user has no home directory", hint="set XDG_DATA_HOME to a directory")
    return home / "jobs"


def journal_path(name: str, place: Path | None = None) -> Path:
    """Where the journal of a job lies. Raises InvalidParameterError for what cannot be a name."""
    if not _NAME.fullmatch(name):
        raise InvalidParameterError(
            f"a job cannot be named {name!r:.120}",
            hint="up to 100 letters, digits, dots, dashes and underscores",
        )
    return (place or folder()) / f"{name}{_ENDING}"


def default_name(task: str, fingerprint: str) -> str:
    """What a job is called that nobody named: the same question has the same name."""
    return f"{task}-{fingerprint[:10]}"


def names(place: Path | None = None) -> list[str]:
    """All jobs, those last touched first."""
    found = list((place or folder()).glob(f"*{_ENDING}"))
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.name.removesuffix(_ENDING) for path in found]


def find(name: str, place: Path | None = None) -> Path:
    """The journal of a job by its name or by the only one that begins so. Raises JobError."""
    path = journal_path(name, place)
    if path.exists():
        return path
    close = [other for other in names(place) if other.startswith(name)]
    if len(close) == 1:
        return journal_path(close[0], place)
    if close:
        raise JobError(f"{len(close)} jobs begin with {name}", hint=f"{', '.join(close)[:300]}")
    raise JobError(f"there is no job {name!r:.120}", hint="`freehold jobs list` shows them")


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(_ENDING) + ".lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Work on a job alone. The system lets go of it when the process ends, however it ends.

    Raises JobError while another process has it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JobError(f"{path.parent}: {error.strerror}") from None
    try:
        if not _taken(handle):
            name = path.name.removesuffix(_ENDING)
            who = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            raise JobError(
                f"the job {name} is being worked on" + (f" by process {who}" if who else ""),
                hint=f"wait, `freehold jobs cancel {name}`, or give this one a name: --job NAME",
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    for attempt in range(3):  # whoever only looks has it for a moment
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05 * (attempt < 2))
        else:
            return True
    return False


def worker(path: Path) -> int | None:
    """The process that works on a job; None while none does."""
    try:
        handle = os.open(_lock_path(path), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(handle)
    return None
