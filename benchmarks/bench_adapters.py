# SPDX-License-Identifier: Apache-2.0
"""What adapters cost: a prompt, and decoding with one stream and several, under none, one, several.

The adapters change every matrix of the layers of a GGUF model without experts, with random values.
All figures of a round follow each other, because shared hosts drift; ratios are to the same
round's figure without adapters.

    python bench_adapters.py --model llama-1b-Q4_K_M.gguf --rank 16
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common import finish, header, median, progress, say, table
from freehold import LLM, SamplingParams
from freehold.engine.engine import Engine
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_writer import write_gguf
from freehold.models.adapters import Adapter
from random_tensors import RandomTensor


def write_adapter(model: str, path: Path, rank: int, qtype: str, seed: int) -> None:
    """A random adapter for all matrices in the layers of `model`."""
    tensors = []
    with open_checkpoint(model) as checkpoint:
        for name, tensor in checkpoint.tensors.items():
            if name.startswith("blk.") and len(tensor.shape) == 2:
                rows, columns = tensor.shape
                tensors.append(RandomTensor(f"{name}.lora_a", qtype, (rank, columns), seed))
                tensors.append(RandomTensor(f"{name}.lora_b", qtype, (rows, rank), seed + 1))
        keys = {
            "general.type": "adapter", "general.architecture": checkpoint.architecture,
            "adapter.type": "lora", "adapter.lora.alpha": float(rank),
        }  # fmt: skip
    write_gguf(path, keys, tensors)


def decode_rate(
    engine: Engine, adapters: Sequence[Adapter | None], tokens: int, clock: Callable[[], float]
) -> float:
    """Tokens of all streams per second once all of them decode; stream i is under adapter i."""
    vocab = 1000
    params = SamplingParams(max_tokens=tokens + len(adapters) + 2, temperature=0, ignore_eos=True)
    ids = [
        engine.add([(7 * s + i) % vocab for i in range(32)], params, adapter=adapter)
        for s, adapter in enumerate(adapters)
    ]
    waiting = set(ids)
    while waiting:
        waiting -= {output.request_id for output in engine.step() if output.new_token_ids}
    began = clock()
    for _ in range(tokens):
        engine.step()
    seconds = clock() - began
    for request_id in ids:
        engine.abort(request_id)
    return tokens * len(adapters) / seconds


def prefill_rate(
    engine: Engine, adapter: Adapter | None, tokens: int, clock: Callable[[], float]
) -> float:
    """Tokens of a fresh prompt per second, to its first answer."""
    params = SamplingParams(max_tokens=1, temperature=0)
    began = clock()
    engine.add([i % 1000 for i in range(tokens)], params, adapter=adapter)
    while engine.has_unfinished():
        engine.step()
    return tokens / (clock() - began)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--type", default="F16", help="in which the adapters are stored")
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16, help="steps per figure")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prefill figures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="seconds of this process instead of the clock's: on a busy machine, with --threads 1",
    )  # fmt: skip
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    result = header("adapters")
    clock = time.process_time if args.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        files = {f"a{i}": Path(folder) / f"a{i}.gguf" for i in range(args.adapters)}
        for seed, path in enumerate(files.values()):
            write_adapter(args.model, path, args.rank, args.type, 2 * seed)
        context = args.prompt + 256
        llm = LLM(args.model, adapters=files, threads=args.threads, context_length=context,
                  max_num_seqs=args.streams, skip_tokenizer_init=True)  # fmt: skip
    with llm:
        engine = llm.make_engine(prefix_caching=False)
        loaded = [llm.adapter(name) for name in files]
        streams = args.streams
        cases: dict[str, list[Adapter | None]] = {
            "1 stream, none": [None],
            "1 stream, 1 adapter": loaded[:1],
            f"{streams} streams, none": [None] * streams,
            f"{streams} streams, 1 adapter on one of them": [*loaded[:1], *[None] * (streams - 1)],
            f"{streams} streams, 1 adapter": loaded[:1] * streams,
            f"{streams} streams, {args.adapters} adapters": [
                loaded[i % args.adapters] for i in range(streams)
            ],
        }
        prompts = {
            f"prompt of {args.prompt}, none": None,
            f"prompt of {args.prompt}, 1 adapter": loaded[0],
        }
        rates: dict[str, list[float]] = {name: [] for name in (*cases, *prompts)}
        for adapters in cases.values():  # once to warm up
            decode_rate(engine, adapters, 2, clock)
        for number in range(args.rounds):
            for name, adapters in cases.items():
                rates[name].append(decode_rate(engine, adapters, args.tokens, clock))
            for name, adapter in prompts.items():
                rates[name].append(prefill_rate(engine, adapter, args.prompt, clock))
            progress(f"round {number + 1} of {args.rounds}")
    rows, figures = [], []
    base: list[float] = []
    for name, values in rates.items():
        base = values if name.endswith("none") else base
        ratio = median([value / other for value, other in zip(values, base, strict=True)])
        figures.append({"case": name, "tokens_per_second": median(values), "ratio": ratio})
        rows.append([name, f"{median(values):.1f}", f"{ratio:.2f}"])
    say(table(["figure", "tokens/s", "ratio"], rows))
    result.update(
        model=Path(args.model).name, rank=args.rank, type=args.type, threads=args.threads,
        cpu_time=args.cpu_time, figures=figures,
    )  # fmt: skip
    finish(result, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
