# SPDX-License-Identifier: Apache-2.0
"""Seconds this machine needs to hand out memory: `python fresh_memory.py BYTES THREADS`.

Writes one byte to every page of a fresh anonymous mapping in huge pages and prints the time. An
engine that arranges the weights anew cannot load faster. On a virtual machine whose idle pages go
back to the host this is far slower than clearing them would be.
"""

from __future__ import annotations

import sys

from freehold.planner.probe import seconds_to_occupy

if __name__ == "__main__":
    print(seconds_to_occupy(int(sys.argv[1]), int(sys.argv[2])))
