# SPDX-License-Identifier: Apache-2.0
"""Runs what recurses as deep as its input says, in code whose stack cannot grow.

The grammar library follows chains of rules and references by recursion. A chain of thousands fits
into a request and does not fit into a thread's usual stack, whose end is the end of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

# Of addresses, not of memory: pages are taken as they are touched. The longest chain that the
# limits on grammars let through takes a fifth of it.
STACK_BYTES = 512 << 20
_Result = TypeVar("_Result")
_setting = threading.Lock()  # the size is the whole process's


def on_deep_stack(function: Callable[[], _Result]) -> _Result:
    """What `function` returns or raises, run on a thread with `STACK_BYTES` of stack."""
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="freehold-grammar")
    with _setting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
