# SPDX-License-Identifier: Apache-2.0
"""The CPU backend's linear op against the machine: read bandwidth and the int8 peak.

Sweeps storage types and numbers of columns (rows of activations) over the matrix shapes of a 1B
model. The limit of a cell is the longer of reading the weights once and doing the operations;
the share is that time over the measured one. Weights are taken in turn from copies that together
exceed the last-level cache several times, as the layers of a model do.

    python bench_kernels.py --types Q4_K,Q8_0 --columns 1,8,512
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from common import finish, header, limits_of, median, progress, say, table
from freehold import quants
from freehold.backends import create
from random_tensors import RandomTensor

SHAPES = {  # [out_features, in_features] of a Llama 3.2 1B layer, and its output matrix
    "attn_q": (2048, 2048),
    "ffn_up": (8192, 2048),
    "ffn_down": (2048, 8192),
    "output": (128256, 2048),
}
WORKING_SET = 256 << 20  # bytes of weights cycled through; the cache holds 32 MB of them here
MAX_COPIES = 64


def seconds_per_call(ops: Any, weights: list[Any], x: np.ndarray, budget: float) -> float:
    """Median over passes through all weights, for at least `budget` seconds and three passes."""
    passes: list[float] = []
    ops.linear(x, weights[0])
    deadline = time.perf_counter() + budget
    while len(passes) < 3 or time.perf_counter() < deadline:
        began = time.perf_counter()
        for weight in weights:
            ops.linear(x, weight)
        passes.append((time.perf_counter() - began) / len(weights))
    return median(passes)


def measure(ops: Any, qtype: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All shapes and columns of one type."""
    rows = []
    for name in args.shapes:
        out_features, in_features = SHAPES[name]
        file_bytes = quants.get(qtype).nbytes(out_features * in_features)
        copies = max(1, min(MAX_COPIES, WORKING_SET // file_bytes))
        weights = [
            ops.load_weight(RandomTensor(name, qtype, (out_features, in_features), seed))
            for seed in range(copies)
        ]
        limits = limits_of(ops)  # anew: bandwidth on a shared host drifts
        for columns in args.columns:
            x = np.random.default_rng(2).standard_normal((columns, in_features), dtype=np.float32)
            seconds = seconds_per_call(ops, weights, x, args.seconds)
            operations = 2.0 * out_features * in_features * columns
            peak = limits["attention_flops"] if quants.get(qtype).is_float else limits["int8_ops"]
            read_time = file_bytes / limits["read_bytes"]
            rows.append(
                {
                    "type": qtype,
                    "shape": name,
                    "columns": columns,
                    "seconds": seconds,
                    "gb_per_s": file_bytes / seconds / 1e9,
                    "gop_per_s": operations / seconds / 1e9,
                    "limited_by": "read" if read_time > operations / peak else "multiply",
                    "share": max(read_time, operations / peak) / seconds,
                }
            )
        progress(f"{qtype} {name}: done")
    return rows


def arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--types", type=names, default=names("Q4_K,Q6_K,Q4_0,Q8_0"), help="or all")
    parser.add_argument("--shapes", type=names, default=names("attn_q,ffn_up,ffn_down"))
    parser.add_argument("--columns", type=numbers, default=[1, 2, 4, 8, 16, 64, 512])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--isa", help="force a kernel level")
    parser.add_argument("--seconds", type=float, default=0.5, help="at least, per cell")
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    if args.types == ["all"]:
        args.types = list(quants.names())
    if set(args.shapes) - set(SHAPES):
        parser.error(f"--shapes knows {', '.join(SHAPES)}")
    return args


def main() -> int:
    args = arguments()
    result = header("kernels")
    ops = create("cpu", threads=args.threads, isa=args.isa)
    before = limits_of(ops)
    cells = [cell for qtype in args.types for cell in measure(ops, qtype, args)]
    rows = [
        [
            f"{cell['type']} {cell['shape']}",
            str(cell["columns"]),
            f"{1e6 * cell['seconds']:.0f}",
            f"{cell['gb_per_s']:.1f}",
            f"{cell['gop_per_s']:.0f}",
            cell["limited_by"],
            f"{100 * cell['share']:.0f} %",
        ]
        for cell in cells
    ]
    say(table(["matrix", "columns", "µs", "GB/s", "GOP/s", "limited by", "share"], rows))
    result.update(threads=args.threads, isa=args.isa, limits=before, cells=cells)
    finish(result, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
