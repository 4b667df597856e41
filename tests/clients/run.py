# SPDX-License-Identifier: Apache-2.0
"""Clients too heavy for the test suite, each in an environment of its own, against a served model.

    python tests/clients/run.py [lm_eval litellm instructor langchain] [--environments DIR]

Run it with the Python of the tests. Makes missing environments under DIR (build/clients), serves
two tiny models of random weights, one of which calls tools, and compares what each client gets with
what the library and transformers give. Nothing but pip needs the network. Exit code 1 where a
client differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "server")]

import thinking_model  # noqa: E402
import tiny_judged  # noqa: E402
from live_server import live_server  # noqa: E402

from freehold import LLM, SamplingParams  # noqa: E402
from freehold.server.settings import ServerSettings  # noqa: E402

HERE = Path(__file__).parent
REQUIREMENTS = {
    "lm_eval": ["lm_eval[api]>=0.4.9"],
    "litellm": ["litellm>=1.60"],
    "instructor": ["instructor>=1.7"],
    "langchain": ["langchain-openai>=1"],
}
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
# Clients are not to look for newer models, price lists or places to report to.
QUIET = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false", "OPENAI_API_KEY": "unused",
}  # fmt: skip


def python_of(name: str, environments: Path) -> Path:
    """The interpreter of a client's environment, made where it is missing."""
    folder = environments / name
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        print(f"{name}: installing {' '.join(REQUIREMENTS[name])}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS[name]], check=True)
        (folder / ".ready").touch()
    return python


def output_of(command: list[Any]) -> str:
    """What it prints; its complaints are shown where it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise SystemExit(f"{command[1:]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done.stdout


def script(python: Path, name: str, *urls: str) -> Any:
    command = [python, HERE / f"{name}_client.py", *urls]
    return json.loads(output_of(command).splitlines()[-1])


def expect(what: str, got: Any, want: Any) -> None:
    if got != want:
        raise SystemExit(f"{what}: {got!r:.300}, and not {want!r:.300}")


@dataclass
class Served:
    """Where the two models are asked, and the first in the library's and transformers' hands."""

    url: str  # of "tiny"
    caller_url: str  # of "caller", which calls tools
    llm: LLM
    judged: tiny_judged.Judged


# -- what each should get ------------------------------------------------------------------------


def check_text(name: str, got: dict[str, Any], llm: LLM, talk: list[dict[str, str]]) -> None:
    """What litellm and LangChain both ask for."""
    said = llm.chat(talk, GREEDY)
    expect(f"{name}: chat", got["chat"], said.text)
    expect(f"{name}: stream of chat", got["chat_stream"], said.text)
    expect(f"{name}: usage", got["chat_usage"], len(said.token_ids))
    texts = [c.text for c in llm.generate(["the Thames", "the Rhine"], GREEDY)]
    expect(f"{name}: completion", got["completion"], texts[0])
    expect(f"{name}: completions", got["completions"], texts)
    vector = [float(value) for value in llm.embed("the Thames")[0]]
    expect(f"{name}: embedding", got["embedding"], vector)


def check_litellm(python: Path, served: Served) -> str:
    got = script(python, "litellm", served.url)
    check_text("litellm", got, served.llm, [{"role": "user", "content": "Hello"}])
    expect("litellm: log-probabilities", got["completion_logprobs"], 12)
    expect("litellm: rerank", got["rerank"], 1)
    expect("litellm: refusal", got["refusal"], "NotFoundError")
    return "chat, stream, completions, embeddings, rerank, refusal"


def check_langchain(python: Path, served: Served) -> str:
    got = script(python, "langchain", served.url, served.caller_url)
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    check_text("langchain", got, served.llm, talk)
    expect("langchain: stream", got["completion_stream"], got["completion"])
    expect("langchain: embeddings", got["embeddings"], 3)
    for way in ("by_schema", "by_tool"):
        expect(f"langchain: {way}", sorted(got[way]), ["team", "urgent"])
    return "chat, stream, schema, tool, completions, embeddings"


def check_instructor(python: Path, served: Served) -> str:
    got = script(python, "instructor", served.caller_url)  # it has validated every object
    for mode, ticket in got.items():
        expect(f"instructor: {mode}", sorted(ticket), ["language", "team", "urgent"])
    return ", ".join(got)


def check_lm_eval(python: Path, served: Served) -> str:
    """Every log-likelihood and both accuracies against transformers."""
    llm, judged = served.llm, served.judged
    with tempfile.TemporaryDirectory() as folder:
        output_of([
            python, "-m", "lm_eval", "--model", "local-completions", "--tasks", "rivers",
            "--include_path", HERE / "lm_eval", "--output_path", folder, "--log_samples",
            "--batch_size", "4", "--model_args",
            f"model=tiny,base_url={served.url}/v1/completions,tokenizer_backend=remote,max_length=512",
        ])  # fmt: skip
        (samples,) = Path(folder).rglob("samples_rivers_*.jsonl")
        (summary,) = Path(folder).rglob("results_*.json")
        rows = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
        told = json.loads(summary.read_text("utf-8"))["results"]["rivers"]
    right = right_by_length = 0
    worst = 0.0
    for row in rows:
        context = llm.ids(f"Question: {row['doc']['question']}\nAnswer:")
        choices = row["doc"]["choices"]
        sums = []
        for choice, answer in zip(choices, row["filtered_resps"], strict=True):
            ids = llm.tokenizer.encode(" " + choice, add_special=False)
            each = judged.continuation(context, ids)
            sums.append(each.sum())
            off = abs(float(answer[0]) - each.sum())
            worst = max(worst, off / len(ids))
            best = judged.logprobs(context + ids)[len(context) - 1 : -1].argmax(axis=1)
            expect("lm-eval: greedy", str(answer[1]) == "True", best.tolist() == ids)
        by_length = [s / len(choice) for s, choice in zip(sums, choices, strict=True)]
        right += sums.index(max(sums)) == row["doc"]["answer"]
        right_by_length += by_length.index(max(by_length)) == row["doc"]["answer"]
    expect("lm-eval: documents", len(rows), 12)
    if worst > judged.tolerance:
        raise SystemExit(f"lm-eval: a log-probability is off by {worst}")
    expect("lm-eval: accuracy", round(told["acc,none"] * 12), right)
    expect("lm-eval: accuracy by length", round(told["acc_norm,none"] * 12), right_by_length)
    return f"{right} of 12 right, {right_by_length} by length, as transformers; off by {worst:.1e}"


CHECKS: dict[str, Callable[[Path, Served], str]] = {
    "lm_eval": check_lm_eval,
    "litellm": check_litellm,
    "instructor": check_instructor,
    "langchain": check_langchain,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Heavy clients against a served tiny model.")
    parser.add_argument("clients", nargs="*", choices=[*CHECKS, []], help="default: all")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "clients")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        judged = tiny_judged.write(Path(folder))
        engine = {"threads": 1, "kv_dtype": "f32"}
        caller = thinking_model.write(Path(other))
        one = ServerSettings(models=(f"tiny={folder}",), engine=engine)
        two = ServerSettings(models=(f"caller={caller}",), engine=engine)
        with live_server(one) as server, live_server(two) as second, LLM(folder, **engine) as llm:
            served = Served(server.url, second.url, llm, judged)
            for name in given.clients or CHECKS:
                python = python_of(name, given.environments)
                print(f"{name}: {CHECKS[name](python, served)}", flush=True)


if __name__ == "__main__":
    main()
