# SPDX-License-Identifier: Apache-2.0
"""Where the work of a job is done, one file per place.

An executor is given blocks of items and gives their results back, in whatever order they become
ready. It keeps nothing: what it has not given back when it ends was not done.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, Protocol

from freehold.documents.jobs.items import Item, ItemResult

__all__ = ["Executor"]


class Executor(Protocol):
    """Runs a task over blocks."""

    def run(self, task: Any, blocks: Iterable[Sequence[Item]]) -> Generator[Sequence[ItemResult]]:
        """Results of whole or partial blocks, every item exactly once, as they become ready.

        `blocks` is read on the thread that reads the results, and only as far ahead as is worked
        on: what was read and not given back is in flight. What fails for one item is a result;
        what is raised ends the job and keeps what came before. Closed before its end, it stops.
        """
