# SPDX-License-Identifier: Apache-2.0
"""How a benchmark talks to an engine in another process: one JSON object a line, both ways.

Knows pipes and process statistics; knows no engine. Imported by the workers, so it must run on
any Python an engine lives in: standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Handler = Callable[..., dict[str, Any]]


def random_ids(count: int, vocab_size: int, seed: int) -> list[int]:
    """Token ids without a repeated prefix between seeds, so that no prefix cache can help."""
    rng = random.Random(seed)
    return [rng.randrange(vocab_size) for _ in range(count)]


def memory_stats() -> dict[str, Any]:
    """Peak and present resident set in bytes.

    VmHWM, not ru_maxrss: the latter is inherited from the parent across fork and exec.
    """
    names = {"VmHWM": "peak_rss", "VmRSS": "rss", "RssAnon": "rss_anon", "RssFile": "rss_file"}
    stats: dict[str, Any] = {}
    with open("/proc/self/status") as status:  # noqa: PTH123 (plain open keeps this file small)
        for line in status:
            key, _, rest = line.partition(":")
            if key in names:
                stats[names[key]] = int(rest.split()[0]) * 1024
    return stats


def die_with_parent() -> None:
    """A stopped worker would outlive a killed benchmark with gigabytes in its hands."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def serve(handlers: dict[str, Handler]) -> None:
    """Answer commands on stdin until it closes.

    Engines print to stdout when they feel like it, so the pipe is moved to a private descriptor
    and stdout is pointed at stderr before anything else is imported.
    """
    die_with_parent()
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("op")
        if name == "quit":
            return
        try:
            began, cpu = time.perf_counter(), time.process_time()
            reply = memory_stats() if name == "stats" else handlers[name](**command)
            reply.setdefault("seconds", time.perf_counter() - began)
            reply["cpu_seconds"] = time.process_time() - cpu
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
