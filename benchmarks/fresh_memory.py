# SPDX-License-Identifier: Apache-2.0
"""Seconds this machine needs to hand out memory: `python fresh_memory.py BYTES THREADS`.

Writes one byte to every page of a fresh anonymous mapping in huge pages and prints the time. An
engine that arranges the weights anew cannot load faster. On a virtual machine whose idle pages go
back to the host this is far slower than clearing them would be.
"""

from __future__ import annotations

import mmap
import sys
import threading
import time

import numpy as np


def seconds_to_occupy(size: int, threads: int) -> float:
    """Seconds from asking for `size` bytes until all of them are there."""
    began = time.perf_counter()
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        pages = np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE]
        parts = np.array_split(pages, threads)
        workers = [threading.Thread(target=part.fill, args=(1,)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
        del pages, parts, workers
    return seconds


if __name__ == "__main__":
    print(seconds_to_occupy(int(sys.argv[1]), int(sys.argv[2])))
