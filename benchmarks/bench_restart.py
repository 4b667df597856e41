# SPDX-License-Identifier: Apache-2.0
"""What a long prefix costs after a restart, when its keys and values were kept on disk.

Three fresh processes a round, each with the same prompt of `--prefix` tokens, to its first token:
without snapshots, with an empty directory for them (the computing and the keeping), and with the
directory that the second left behind. The third also has to give the same numbers, to the bit.
Loading the model is not part of it.

    python bench_restart.py --model llama-1b-Q4_K_M.gguf --rounds 3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import Worker, finish, header, median, progress, say, table
from worker_protocol import random_ids

SIDES = ("without", "keeping", "restarted")
VOCABULARY = 1000  # ids below this exist in any model


def prefill(args: argparse.Namespace, ids: list[int], snapshots: str | None) -> dict[str, Any]:
    """One fresh process."""
    worker = Worker("library", sys.executable, "worker_library.py")
    try:
        worker.call("load", path=str(Path(args.model).resolve()), threads=args.threads,
                    context=args.prefix + 64, streams=1, snapshots=snapshots)  # fmt: skip
        reply = worker.call("prefill", ids=ids)
        worker.call("unload")  # what is still to be written is
        return reply
    finally:
        worker.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a GGUF file made with --words")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefix", type=int, default=2000, help="tokens")
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    if not Path(args.model).is_file():
        parser.error(f"no such file: {args.model}")
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    cached: list[int] = []
    for r in range(args.rounds):
        ids = random_ids(args.prefix, VOCABULARY, r)
        with tempfile.TemporaryDirectory() as directory:
            replies = [prefill(args, ids, where) for where in (None, directory, directory)]
        for side, reply in zip(SIDES, replies, strict=True):
            seconds[side].append(reply["seconds"])
            progress(f"round {r + 1}: {side}: {reply['seconds']:.3f} s, {reply['cached']} cached")
        cached.append(replies[-1]["cached"])
        if len({reply["digest"] for reply in replies}) != 1:
            raise SystemExit("bench_restart.py: the numbers after a restart are not the same")
    ratios = [b / a for a, b in zip(seconds["without"], seconds["restarted"], strict=True)]
    say(
        table(
            ["prefix", *(f"{side} (s)" for side in SIDES), "restarted / without", "of rounds"],
            [
                [
                    f"{args.prefix} tokens", *(f"{median(seconds[side]):.3f}" for side in SIDES),
                    f"{median(ratios):.3f}", f"{min(ratios):.3f} to {max(ratios):.3f}",
                ]
            ],
        )
    )  # fmt: skip
    if min(cached) < 0.9 * args.prefix:
        raise SystemExit(f"bench_restart.py: only {min(cached)} tokens came back from disk")
    finish({**header("restart"), "seconds": seconds, "ratio": median(ratios)}, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
