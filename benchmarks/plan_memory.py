# SPDX-License-Identifier: Apache-2.0
"""Planned memory beside real memory: shapes, contexts, sequences at once and types of cache.

    python plan_memory.py --models DIR [--only gemma3] [--out FILE]

Each case is a process of its own that fills all contexts; what it had at most (resident, peak) is
held against `freehold.planner.memory.need`. Files are made in DIR where they are not there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import progress
from freehold.formats.checkpoint import open_checkpoint
from freehold.planner.memory import need
from freehold.planner.sizes import sizes_of
from plan_models import write_model

WITHIN = 0.10


@dataclass(frozen=True, slots=True)
class Case:
    shape: str
    mix: str
    context: int
    parallel: int
    kv_dtype: Any


CASES = (
    Case("smollm-135m", "Q8_0", 2048, 1, "f16"),
    Case("smollm-135m", "Q8_0", 1024, 8, "q8_0"),
    Case("smollm-135m", "BF16", 512, 4, "f32"),
    Case("qwen2-0.5b", "Q4_K_M", 4096, 1, "f16"),
    Case("qwen2-0.5b", "Q4_K_M", 1024, 16, "q8_0"),
    Case("qwen3-0.6b", "Q4_0", 4096, 1, "f16"),
    Case("qwen3-0.6b", "Q4_0", 2048, 2, "f32"),
    Case("gemma3-270m", "Q4_K_M", 8192, 1, "f16"),  # windows of 512
    Case("gemma3-270m", "Q4_K_M", 2048, 8, "f32"),
    Case("gemma3-1b", "Q4_K_M", 4096, 1, "bf16"),
    Case("llama-1b", "Q4_K_M", 2048, 1, "f16"),
    Case("llama-1b", "Q4_K_M", 1024, 4, "q8_0"),
    Case("mixtral-small", "Q4_K_M", 4096, 1, "f16"),  # experts
    Case("qwen3moe-small", "Q4_K_M", 2048, 1, "q8_0"),
    Case("deepseek-small", "Q4_K_M", 2048, 1, "f16"),  # latents
    Case("llama4-small", "Q4_K_M", 4096, 1, "bf16"),  # chunks of 2048
    Case("gpt-oss-small", "MXFP4_MOE", 4096, 1, "f16"),  # windows of 128, sinks
)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """One case: what was planned, what it took."""
    path = write_model(folder, case.shape, case.mix)
    with open_checkpoint(path) as checkpoint:
        planned = need(
            sizes_of(checkpoint), case.context, parallel=case.parallel, kv_dtype=case.kv_dtype
        )
    wanted = {
        "model": str(path), "context": case.context, "parallel": case.parallel,
        "kv_dtype": case.kv_dtype, "kv_memory_bytes": planned.kv_cache,
    }  # fmt: skip
    worker = Path(__file__).parent / "plan_worker.py"
    done = subprocess.run(
        [sys.executable, str(worker), json.dumps(wanted)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-2000:]}")
    real = json.loads(done.stdout)
    if real["preemptions"]:
        raise SystemExit(f"{case}: the cache did not hold all sequences")
    return {
        "shape": case.shape, "mix": case.mix, "context": case.context,
        "parallel": case.parallel, "kv_dtype": case.kv_dtype,
        "planned": planned.as_dict(), "real": real["peak_rss"], "pss": real["pss"],
        "off": planned.total / real["peak_rss"] - 1,
        "cache_off": planned.kv_cache / real["cache_bytes"] - 1,
        "weights_off": planned.weights / real["weight_bytes"] - 1,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="where files are and are made")
    parser.add_argument("--only", default="", help="cases whose shape holds this word")
    parser.add_argument("--out", type=Path, help="write the JSON here, too")
    args = parser.parse_args()
    rows = []
    print(f"{'case':<42} {'weights':>8} {'cache':>7} {'planned':>8} {'real':>8} {'off':>7}")
    for case in CASES:
        if args.only not in case.shape:
            continue
        row = measure(case, args.models)
        rows.append(row)
        name = f"{case.shape} {case.mix} {case.parallel}x{case.context} {case.kv_dtype}"
        planned = row["planned"]
        mb = [planned["weights"], planned["kv_cache"], planned["total"], row["real"]]
        cells = " ".join(f"{n / 1e6:{w}.0f}" for n, w in zip(mb, (8, 7, 8, 8), strict=True))
        print(f"{name:<42} {cells} {row['off']:>+7.1%}", flush=True)
    good = sum(abs(row["off"]) <= WITHIN for row in rows)
    progress(f"{good} of {len(rows)} within {WITHIN:.0%}")
    report = {"within": good, "of": len(rows), "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps({"within": good, "of": len(rows), "limit": WITHIN}))
    return 0 if good >= 0.9 * len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
