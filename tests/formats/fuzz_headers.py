# SPDX-License-Identifier: Apache-2.0
"""Mutate GGUF and safetensors files and watch what opening them does.

    python tests/formats/fuzz_headers.py --count 1000000 --seed 1 [--processes 2]

A case passes when opening, reading all metadata and decoding all tensors either works or raises
MalformedFileError or UnsupportedModelError, within a time and a memory limit. Case N of a seed
is always the same bytes: `--only N` repeats it. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_types import ValueType
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.safetensors_writer import write_safetensors
from freehold.formats.tensor_view import LazyTensor

CPU_LIMIT = 0.5  # seconds of one case; the median takes a few thousandths of that
HANG_LIMIT = 20.0  # seconds of wall clock until a case counts as hung
MEMORY_LIMIT = 1 << 20  # bytes Python may hold at once for a case; files are below 32 KiB

EXTREMES = (
    0, 1, 2, 7, 8, 31, 32, 33, 127, 128, 255, 256, 65535, 65536,
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1,
)  # fmt: skip
JSON_EXTREMES = (
    *EXTREMES, -1, -(2**63), 2**64, 10**40, 1.5, 1e308, True, False, None, "", "\ud800", "F32",
    "F16", "U8", "F4", "Q99", [], {}, [0], [0, 0], [2**32] * 4, [[[[]]]], {"dtype": "F32"},
)  # fmt: skip


# -- seeds ------------------------------------------------------------------------------------


def make_seeds(directory: Path) -> dict[str, list[bytes]]:
    """Small well-formed files that hold every value type and many tensor types, by suffix."""

    def tensor(name: str, qtype: str, shape: tuple[int, ...], nbytes: int) -> LazyTensor:
        return LazyTensor(name, shape, qtype, lambda: np.arange(nbytes, dtype=np.uint8))

    metadata = {
        "general.architecture": "llama",
        **{f"t.{kind.name.lower()}": 1 for kind in ValueType if kind < ValueType.BOOL},
        "t.bool": True,
        "t.u64": 2**63,
        "t.i64": -5,
        "t.f64": 0.5,
        "a.i32": [1, -2, 3],
        "a.f32": np.ones(3, np.float32),
        "a.bool": np.array([True, False]),
        "a.nested": [[1, 2], [3], [["x"]]],
        "tokenizer.ggml.tokens": ["<s>", "▁a", "", "b" * 20],
    }
    types = {f"t.{kind.name.lower()}": kind for kind in ValueType if kind < ValueType.BOOL}
    types |= {"t.i64": ValueType.INT64, "t.f64": ValueType.FLOAT64}
    tensors = [
        tensor("token_embd.weight", "F32", (4, 8), 128),
        tensor("blk.0.attn_q.weight", "Q4_0", (2, 32), 36),
        tensor("blk.0.attn_k.weight", "Q8_0", (32,), 34),
        tensor("blk.0.ffn_up.weight", "Q4_K", (1, 256), 144),
        tensor("blk.0.ffn_down.weight", "F16", (2, 1, 2, 2), 16),
        tensor("idx", "I32", (3,), 12),
        tensor("x", "Q8_1", (32,), 36),
    ]
    plain = [
        tensor("a.weight", "F32", (2, 3), 24),
        tensor("b.weight", "BF16", (4,), 8),
        tensor("scalar", "F16", (), 2),
        tensor("c", "I64", (1, 2), 16),
        tensor("none", "F32", (0, 4), 0),
        tensor("q", "F8_E4M3", (3,), 3),
    ]
    seed = directory / "seed"
    ggufs = []
    for big_endian in (False, True):
        whole = tensors[:-1] if big_endian else tensors  # freehold cannot swap Q8_1
        for some in (whole, tensors[:2], []):
            write_gguf(seed, metadata, some, value_types=types, big_endian=big_endian)
            ggufs.append(seed.read_bytes())
    safetensors = []
    for some in (plain, plain[:1], []):
        write_safetensors(seed, some, metadata={"format": "pt"} if some else None)
        safetensors.append(seed.read_bytes())
    seed.unlink()
    return {".gguf": ggufs, ".safetensors": safetensors}


# -- mutations --------------------------------------------------------------------------------


def _position(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(len(data)) if data else 0


def _flip_bits(rng: random.Random, data: bytearray, _: bytes) -> None:
    for _count in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[_position(rng, data)] ^= 1 << rng.randrange(8)


def _extreme(rng: random.Random, data: bytearray, _: bytes) -> None:
    start, size = _position(rng, data), rng.choice((1, 2, 4, 8, 8))
    value = rng.choice(EXTREMES) & (1 << 8 * size) - 1
    data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _nudge(rng: random.Random, data: bytearray, _: bytes) -> None:
    """Add a little to a byte: off-by-one lengths, neighbouring types."""
    if data:
        start = _position(rng, data)
        data[start] = (data[start] + rng.choice((-2, -1, 1, 2, 16))) % 256


def _truncate(rng: random.Random, data: bytearray, _: bytes) -> None:
    del data[_position(rng, data) :]


def _delete(rng: random.Random, data: bytearray, _: bytes) -> None:
    start = _position(rng, data)
    del data[start : start + rng.randrange(1, 64)]


def _duplicate(rng: random.Random, data: bytearray, _: bytes) -> None:
    start, end = sorted((_position(rng, data), _position(rng, data)))
    data[end:end] = data[start:end]


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, source = _position(rng, data), rng.randrange(len(other))
    piece = other[source : source + rng.randrange(1, 256)]
    data[start : start + (len(piece) if rng.random() < 0.5 else 0)] = piece


def _counts(rng: random.Random, data: bytearray, _: bytes) -> None:
    """The first numbers of a file decide most."""
    start = rng.choice((0, 4, 8, 16))
    data[start : start + 8] = struct.pack(rng.choice("<>") + "Q", rng.choice(EXTREMES))


MUTATIONS = (_flip_bits, _extreme, _nudge, _truncate, _delete, _duplicate, _splice, _counts)


def _mutate_json(rng: random.Random, data: bytearray) -> bytearray:
    """Change values inside the header and keep its length honest, to get past the first checks."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(sorted(header) or ["new"])
        entry = header.get(name)
        field = rng.choice(("dtype", "shape", "data_offsets", "whole", "extra", "rename"))
        if field == "rename":
            header[rng.choice(("", "\ud800", "__metadata__", "a\n", "z" * 2000))] = entry
        elif field == "whole" or not isinstance(entry, dict):
            header[name] = rng.choice(JSON_EXTREMES)
        elif isinstance(entry.get(field), list) and entry[field] and rng.random() < 0.7:
            changed = list(entry[field])
            changed[rng.randrange(len(changed))] = rng.choice(JSON_EXTREMES)
            header[name] = {**entry, field: changed}
        else:
            header[name] = {**entry, field: rng.choice(JSON_EXTREMES)}
    raw = json.dumps(header).encode()
    if rng.random() < 0.3:  # Duplicate names, deep nesting: not expressible as a dict.
        body = rng.choice((raw[1:-1], b'"n":' + b"[" * rng.choice((10, 900, 990, 3000)) + b"]"))
        raw = b"{" + body + b"," + raw[1:]
    if rng.random() < 0.3:
        mutable = bytearray(raw)
        rng.choice(MUTATIONS)(rng, mutable, raw)
        raw = bytes(mutable)
    return bytearray(len(raw).to_bytes(8, "little") + raw + rest)


def make_case(seeds: dict[str, list[bytes]], seed: int, index: int) -> tuple[str, bytes]:
    """Suffix and bytes of case ``index``."""
    rng = random.Random(seed << 32 | index)
    suffix = ".gguf" if rng.random() < 0.6 else ".safetensors"
    data = bytearray(rng.choice(seeds[suffix]))
    if suffix == ".safetensors" and rng.random() < 0.6:
        return suffix, bytes(_mutate_json(rng, data))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(MUTATIONS)(rng, data, rng.choice(seeds[suffix]))
    return suffix, bytes(data[:16384])


# -- judging ----------------------------------------------------------------------------------


def use_everything(path: Path) -> str:
    """Open, look at all there is, decode all that can be; the name of the outcome."""
    try:
        with open_checkpoint(path) as checkpoint:
            size = path.stat().st_size
            for value in checkpoint.metadata.values():
                if hasattr(value, "tolist"):
                    value.tolist()
            for tensor in checkpoint.tensors.values():
                assert 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= size
                with contextlib.suppress(UnsupportedModelError):
                    assert tensor.to_f32().shape == tensor.shape
            return "opened"
    except (MalformedFileError, UnsupportedModelError) as error:
        return type(error).__name__


class CaseError(Exception):
    """A case broke a rule."""


def run(seed: int, start: int, stop: int, step: int = 1) -> dict[str, object]:
    """Run cases ``start, start + step, …`` below ``stop``; raises CaseError at the first fault."""
    outcomes: Counter[str] = Counter()
    slowest, peak_memory = (0.0, -1), 0

    def hung(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, hung)
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as name:
        directory = Path(name)
        seeds = make_seeds(directory)
        for index in range(start, stop, step):
            suffix, data = make_case(seeds, seed, index)
            path = directory / f"case{suffix}"
            path.write_bytes(data)
            tracemalloc.start()
            signal.setitimer(signal.ITIMER_REAL, HANG_LIMIT)
            began = time.process_time()
            try:
                outcome = use_everything(path)
            except BaseException as error:
                raise CaseError(f"case {index} of seed {seed}: {error!r}") from error
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            seconds = time.process_time() - began
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            peak_memory = max(peak_memory, peak)
            if peak > MEMORY_LIMIT:
                raise CaseError(f"case {index} of seed {seed}: {peak:,} bytes of memory")
            if seconds > CPU_LIMIT:
                raise CaseError(f"case {index} of seed {seed}: {seconds:.2f} s")
            outcomes[suffix[1:] + " " + outcome] += 1
            slowest = max(slowest, (seconds, index))
    return {
        "cases": sum(outcomes.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "slowest_ms": round(slowest[0] * 1000, 2),
        "slowest_case": slowest[1],
        "peak_traced_bytes": peak_memory,
    }


def _run_workers(args: argparse.Namespace) -> list[dict[str, object]]:
    command = [sys.executable, __file__, "--count", str(args.count), "--seed", str(args.seed)]
    workers = [
        subprocess.Popen(
            [*command, "--first", str(i), "--step", str(args.processes)],
            stdout=subprocess.PIPE, text=True,
        )
        for i in range(args.processes)
    ]  # fmt: skip
    while any(worker.poll() is None for worker in workers):
        if any(worker.returncode for worker in workers):
            for worker in workers:
                worker.terminate()
        time.sleep(0.2)
    if any(worker.returncode for worker in workers):
        sys.exit(1)
    texts = [worker.communicate()[0] for worker in workers]
    return [json.loads(text.splitlines()[-1]) for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="first case")
    parser.add_argument("--step", type=int, default=1, help="distance between cases")
    parser.add_argument("--only", type=int, help="run this case alone")
    args = parser.parse_args()
    began = time.monotonic()
    if args.processes > 1:
        parts = _run_workers(args)
    elif args.only is not None:
        parts = [run(args.seed, args.only, args.only + 1)]
    else:
        parts = [run(args.seed, args.first, args.count, args.step)]
    outcomes: Counter[str] = Counter()
    for part in parts:
        outcomes.update(part["outcomes"])
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:>10,}  {outcome}")
    slowest = max(parts, key=lambda part: part["slowest_ms"])
    result = {
        "cases": sum(part["cases"] for part in parts),
        "seed": args.seed,
        "outcomes": dict(sorted(outcomes.items())),
        "slowest_ms": slowest["slowest_ms"],
        "slowest_case": slowest["slowest_case"],
        "peak_traced_bytes": max(part["peak_traced_bytes"] for part in parts),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
