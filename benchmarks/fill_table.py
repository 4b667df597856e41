# SPDX-License-Identifier: Apache-2.0
"""Write the benchmark table of README.md from stored results, between its two markers.

Numbers in the README come from here alone; a test runs this with --check.

    python fill_table.py results/*.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
FOREIGN_SHARE = 0.03  # as in bench_engine.py
NOT_MEASURED = "No stored measurement yet: `make bench` measures your machine.\n"


def number(value: float) -> str:
    """Three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def section(result: dict[str, Any]) -> str:
    """One file's table with the machine, date, command and commit it came from."""
    lines = [
        f"**{result['model']['file']}**, {result['threads']} threads, {result['rounds']} "
        "alternating rounds, medians:",
        "",
        "| | freehold | llama.cpp, repacking on | off | ratio to the better | share of the limit |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    disturbed = False
    for figure in result["figures"]:
        medians = figure["median"]
        mark = " †" if figure.get("foreign_cpu", 0.0) > FOREIGN_SHARE else ""
        disturbed = disturbed or bool(mark)
        cells = [f"{figure['name']} ({figure['unit']}){mark}"]
        for engine in ("freehold", "llama.cpp repack", "llama.cpp plain"):
            cells.append(number(medians[engine]) if engine in medians else "–")
        cells.append(f"{figure['ratio']:.2f}×" if "ratio" in figure else "–")
        share = figure.get("share", {}).get("freehold")
        cells.append(f"{100 * share:.0f} %" if share is not None else "–")
        lines.append("| " + " | ".join(cells) + " |")
    machine = result["machine"]
    engines = ", ".join(sorted({v for k, v in result["engines"].items() if k != "freehold"}))
    if disturbed:
        lines += ["", "† disturbed: other processes had more than 3 % of the processor time"]
    lines += [
        "",
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"{machine['kernel']}; llama-cpp-python {engines}; {result['date'][:10]}, "
        f"commit {result['commit']}: `{result['command']}`",
        "",
    ]
    return "\n".join(lines)


def fill(readme: str, results: Sequence[dict[str, Any]]) -> str:
    """The README's text with everything between the markers replaced."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"fill_table.py: README.md has no {BEGIN} … {END}")
    wanted = [result for result in results if result["benchmark"] == "engine"]
    body = "\n".join(section(result) for result in wanted) or NOT_MEASURED
    return f"{head}{BEGIN}\n{body}{END}{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="*", help="files that bench_engine.py --output wrote")
    parser.add_argument("--check", action="store_true", help="fail if README.md would change")
    args = parser.parse_args()
    paths = [Path(name) for name in sorted(args.results) if Path(name).is_file()]
    results = [json.loads(path.read_text("utf-8")) for path in paths]
    before = README.read_text("utf-8")
    after = fill(before, results)
    if args.check:
        if after != before:
            sys.stderr.write("README.md does not match benchmarks/results: run `make docs`\n")
        return int(after != before)
    README.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
