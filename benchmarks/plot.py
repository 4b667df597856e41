# SPDX-License-Identifier: Apache-2.0
"""Draw stored engine results: each engine's share of the machine's limit, figure by figure.

python plot.py results/*.json --out ../docs/benchmarks.png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Distinguishable in print and by people who do not see red and green apart.
COLOURS = {"freehold": "#0b6e4f", "llama.cpp repack": "#d08c2f", "llama.cpp plain": "#8fa3bf"}


def draw(axes: Any, result: dict[str, Any]) -> None:
    """One file's groups of bars."""
    figures = [figure for figure in result["figures"] if "share" in figure]
    engines = [engine for engine in COLOURS if engine in figures[0]["share"]]
    height = 0.8 / len(engines)
    for e, engine in enumerate(engines):
        places = [f + e * height for f in range(len(figures))]
        shares = [100 * figure["share"][engine] for figure in figures]
        axes.barh(places, shares, height * 0.92, label=engine, color=COLOURS[engine])
        for place, share, figure in zip(places, shares, figures, strict=True):
            text = f"{figure['median'][engine]:.3g}"
            # a bar that leaves the picture keeps its figure inside
            axes.text(min(share + 1, 101), place, text, va="center", fontsize=7, color="#444444")
    middle = height * (len(engines) - 1) / 2
    axes.set_yticks([f + middle for f in range(len(figures))], [f["name"] for f in figures])
    axes.invert_yaxis()
    axes.set_xlim(0, 110)
    axes.set_xlabel("% of the machine's limit (labels: tokens per second, loading: seconds)")
    axes.set_title(f"{result['model']['file']}, {result['threads']} threads", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+", help="files that bench_engine.py --output wrote")
    parser.add_argument("--out", required=True, help="picture to write (.png or .svg)")
    args = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.stderr.write("plot.py needs matplotlib: pip install matplotlib\n")
        return 2
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    loaded = [json.loads(Path(name).read_text("utf-8")) for name in args.results]
    results = [
        result
        for result in loaded
        if result["benchmark"] == "engine" and any("share" in f for f in result["figures"])
    ]
    if not results:
        sys.stderr.write("plot.py: none of the files has figures with a measured limit\n")
        return 2
    columns = min(2, len(results))
    rows = -(-len(results) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(6 * columns, 4.2 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(results) :]:
        axes.set_visible(False)
    for axes, result in zip(grid.flat, results, strict=False):
        draw(axes, result)
    machine = results[0]["machine"]
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    days = sorted({result["date"][:10] for result in results})
    measured = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, {measured}")
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=150)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
