# SPDX-License-Identifier: Apache-2.0
"""Runs `freehold` command lines, each in a process of its own that can be killed.

Reads one JSON list of arguments a line, answers with the process id, and then with the exit status
(negative for a signal). Forks, so that Python and its packages are loaded once for hundreds.
"""

from __future__ import annotations

import json
import os
import sys

import httpx  # noqa: F401
import huggingface_hub.hf_api  # noqa: F401 -- loaded before the forks

import freehold.pulling  # noqa: F401
from freehold.cli.main import run


def main() -> None:
    for line in sys.stdin:
        arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for handle in (0, 1):
                os.dup2(null, handle)
            code = 70
            try:
                code = run(arguments)
            finally:
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
