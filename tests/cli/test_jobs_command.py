# SPDX-License-Identifier: Apache-2.0
"""`freehold jobs` as it is typed: files of requests in, answers out, whatever happens between."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tiny_adapters
import tiny_chat
from freehold.cli.main import run
from freehold.documents.jobs import Journal, place

PROGRAM = "import sys; from freehold.cli.main import main; sys.exit(main())"


def line(custom_id: str, url: str = "/v1/completions", **body: Any) -> str:
    if url == "/v1/completions":
        body = {"prompt": "Once upon", "max_tokens": 3, "temperature": 0, **body}
    whole = {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "x", **body}}
    return json.dumps(whole) + "\n"


CHAT = line(
    "chat", "/v1/chat/completions", max_tokens=4, temperature=0,
    messages=[{"role": "user", "content": "Summarise the document in one line.\n\nA note."}],
)  # fmt: skip
EMBED = line("embed", "/v1/embeddings", input="a note")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answers(path: Path) -> dict[str, dict[str, Any]]:
    return {each["custom_id"]: each for each in map(json.loads, path.read_text().splitlines())}


def jobs(*words: str) -> int:
    return run(["jobs", *words])


RUN = ("run", "in.jsonl", "--model", "seedling", "--threads", "1", "--context", "512")


def test_a_file_of_requests(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chat, completion and embedding; what is alike is computed once; order is kept."""
    (home / "in.jsonl").write_text(
        CHAT + line("one") + EMBED + line("twin", model="y") + line("two", prompt="The")
    )
    assert jobs(*RUN) == 0
    shown = capsys.readouterr()
    found = [json.loads(each) for each in shown.out.splitlines()]
    assert [each["custom_id"] for each in found] == ["chat", "one", "embed", "twin", "two"]
    assert all(each["response"]["status_code"] == 200 for each in found)
    body = {each["custom_id"]: each["response"]["body"] for each in found}
    assert body["chat"]["choices"][0]["message"]["role"] == "assistant"
    assert len(body["embed"]["data"][0]["embedding"]) > 10
    assert body["one"] == body["twin"]
    assert body["two"]["usage"]["completion_tokens"] == 3
    assert "5 answered, 1 the same as another" in shown.err


def test_the_same_answers_as_the_server_gives(home: Path) -> None:
    """One request by itself, and among others: greedy answers are the same."""
    prompts = ["The", "Invoice number", "Dear Ms", "Once upon a time there was a"]
    (home / "in.jsonl").write_text("".join(line(str(i), prompt=p) for i, p in enumerate(prompts)))
    assert jobs(*RUN, "--out", "all.jsonl", "--format", "batch") == 0
    together = answers(home / "all.jsonl")
    from freehold import LLM, SamplingParams

    with LLM("seedling", threads=1, context_length=512) as llm:
        for i, prompt in enumerate(prompts):
            alone = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=3))
            assert together[str(i)]["response"]["body"]["choices"][0]["text"] == alone.text


def test_bad_lines_fail_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = line("torn")[:-20]
    (home / "in.jsonl").write_text(
        line("good") + "no json\n\n[1]\n" + line("bad", max_tokens=-1)
        + line("where", "/v1/nowhere") + line("good", prompt="another") + torn
    )  # fmt: skip
    assert jobs(*RUN, "-o", "out.jsonl", "--format", "batch") == 1
    found = answers(home / "out.jsonl")
    assert found["good"]["response"]["status_code"] == 200
    assert found["bad"]["response"]["status_code"] == 400
    told = {name: each["error"]["message"] for name, each in found.items() if each["error"]}
    assert "not JSON" in told["in.jsonl line 2"]
    assert "must be an object" in told["in.jsonl line 4"]
    assert "url must be one of" in told["in.jsonl line 6"]
    assert "already" in told["good (6)"]
    assert "the file ends within it" in told["in.jsonl line 8"]
    assert len(found) == 7
    err = capsys.readouterr().err
    assert "1 answered, 6 failed" in err
    assert "--retry-errors" in err


def test_the_input_may_grow_and_a_job_is_resumed(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "in.jsonl").write_text(line("one"))
    assert jobs(*RUN, "--job", "mine") == 0
    with (home / "in.jsonl").open("a") as file:
        file.write(line("two", prompt="The"))
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    capsys.readouterr()
    assert jobs("resume", "mi") == 0
    shown = capsys.readouterr()
    assert [json.loads(each)["custom_id"] for each in shown.out.splitlines()] == ["one", "two"]
    assert "1 known from before" in shown.err


def test_jobs_are_listed_shown_and_removed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    (home / "in.jsonl").write_text(line("one") + line("bad", max_tokens=-1))
    jobs(*RUN, "--job", "mine")
    capsys.readouterr()
    assert jobs("list") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1].split()[:6] == ["mine", "batch", "done", "2", "0", "1"]
    assert max(map(len, told)) <= 80
    assert jobs("show", "mine") == 0
    told = capsys.readouterr().out
    assert "max_tokens must be at least 1" in told
    assert f"freehold jobs {' '.join(RUN)} --job mine" in told
    assert jobs("show", "mine", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    record = shown["runs"][0]["record"]
    assert record["identity"]["model"] == shown["identity"]["model"]
    assert len(record["model"]["template_sha256"]) == 64
    assert record["engine"]["freehold"]
    assert record["machine"]["memory_bytes"] > 0
    assert record["readers"]["csv"] >= 1
    assert jobs("remove", "mine") == 0
    assert place.names() == []
    assert jobs("show", "mine") == 2


def test_a_broken_journal_does_not_hide_the_others(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "in.jsonl").write_text(line("one"))
    jobs(*RUN, "--job", "mine")
    place.journal_path("broken").write_bytes(b"rubbish" * 1000)
    capsys.readouterr()
    assert jobs("list") == 0
    shown = capsys.readouterr()
    assert "mine" in shown.out
    assert "broken" in shown.err
    assert jobs("show", "broken") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["show"], "takes NAME"),
        (["list", "x"], "takes nothing more"),
        (["run", "in.jsonl"], "which model"),
        (["export", "none"], "no job 'none'"),
        (["cancel", "../x"], "cannot be named"),
        (["run", "missing.jsonl", "--model", "seedling"], "No such file"),
        (["run", "in.jsonl", "--model", "seedling", "--out", "x.docx"], "no format"),
        (["run", "in.jsonl", "--model", "missing.gguf"], "missing.gguf"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_sentences(
    home: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "in.jsonl").write_text(line("one"))
    assert jobs(*words) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.startswith("error: ")


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "jobs", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many answers are in the journal."""
    while process.poll() is None:
        if path.exists():
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                try:
                    found = database.execute("SELECT count(*) FROM result").fetchone()[0]
                except sqlite3.OperationalError:
                    found = 0
            if found >= count:
                return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1])


def test_two_processes_cancel_kill_and_resume(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A long job: another process is refused, cancels it, goes on with it, and is killed."""
    count = 600
    lines = "".join(line(f"r{i}", prompt=f"Number {i} is", max_tokens=24) for i in range(count))
    (home / "in.jsonl").write_text(lines)
    words = (*RUN, "--job", "long", "--out", "out.jsonl")
    first = start(*words)
    path = place.journal_path("long")
    wait_for(path, 5, first)
    assert jobs(*words) == 2
    assert f"is being worked on by process {first.pid}" in capsys.readouterr().err
    assert jobs("export", "long") == 0  # partial results are readable
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == count
    assert "have no answer yet" in shown.err
    assert jobs("cancel", "long") == 0
    assert first.wait(60) == 1
    assert "cancelled" in first.communicate()[1]
    assert not (home / "out.jsonl").exists()
    with Journal.existing(path) as journal:
        done = journal.counts().ok
    assert 5 <= done < count

    second = start("resume", "long")
    wait_for(path, done + 30, second)
    os.kill(second.pid, signal.SIGKILL)
    second.communicate()
    assert jobs("show", "long") == 0
    told = capsys.readouterr().out
    assert "read so far" in told
    assert "run 2     interrupted" in told  # it could not say so itself
    assert "running" not in told
    assert jobs("cancel", "long") == 2  # nobody is there to cancel
    third = start("resume", "long")
    assert third.wait(300) == 0, third.communicate()[1]
    third.communicate()
    written = [json.loads(each) for each in (home / "out.jsonl").read_text().splitlines()]
    assert [each["id"] for each in written] == [f"r{i}" for i in range(count)]
    assert {each["status"] for each in written} == {"ok"}


def test_answers_are_shown_while_others_are_made(home: Path) -> None:
    """stdout has the first answers, in order, long before the last one is there; and what a reader
    that goes away has not seen is kept."""
    lines = "".join(line(f"r{i}", prompt=f"Number {i} is", max_tokens=48) for i in range(600))
    (home / "in.jsonl").write_text(lines)
    process = start(*RUN, "--job", "long", "--format", "batch")
    assert process.stdout is not None
    first = [json.loads(process.stdout.readline())["custom_id"] for _ in range(3)]
    with Journal.existing(place.journal_path("long")) as journal:
        assert journal.counts().pending > 0
    assert first == ["r0", "r1", "r2"]
    process.stdout.close()
    assert process.wait(120) == 141  # what a shell reports for SIGPIPE
    assert process.stderr is not None
    process.stderr.close()
    with Journal.existing(place.journal_path("long")) as journal:
        assert journal.counts().ok > 0


def test_the_bar_leaves_the_answers_alone(home: Path) -> None:
    """stderr is a terminal and stdout a file: one has the bar, the other every answer."""
    (home / "in.jsonl").write_text("".join(line(f"r{i}", prompt=f"No {i}") for i in range(40)))
    ours, theirs = pty.openpty()
    with (home / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "jobs", *RUN], stdout=out, stderr=theirs
        )
    os.close(theirs)
    told = b""
    try:
        while piece := os.read(ours, 65536):
            told += piece
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    assert process.wait() == 0, told
    assert len(answers(home / "out")) == 40
    assert b"custom_id" not in told
    assert b"40/40" in told
    assert b"40 answered" in told


def test_an_adapter_is_another_job(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers under an adapter are its own, and so is the job."""
    model = tiny_chat.write(home / "babbler.gguf")
    adapter = tiny_adapters.write_for(model, home / "adapter.gguf", seed=1)
    (home / "in.jsonl").write_text(line("one", prompt="Once upon a time", max_tokens=12))
    words = ("run", "in.jsonl", "--model", str(model), "--threads", "1", "--context", "128")
    assert jobs(*words) == 0
    plain = json.loads(capsys.readouterr().out)["response"]["body"]["choices"][0]["text"]
    assert jobs(*words, "--adapter", str(adapter)) == 0
    adapted = json.loads(capsys.readouterr().out)["response"]["body"]["choices"][0]["text"]
    assert plain != adapted
    assert len(place.names()) == 2


def test_what_failed_can_be_handed_over_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "in.jsonl").write_text(line("bad", max_tokens=-1))
    jobs(*RUN, "--job", "mine")
    capsys.readouterr()
    assert jobs("export", "mine", "--vllm") == 0
    assert capsys.readouterr().out == ""
    assert jobs("export", "mine", "--vllm", "--retry-errors") == 0
    assert json.loads(capsys.readouterr().out)["custom_id"] == "bad"
    body = {"choices": [{"text": "better"}]}
    result = {"custom_id": "bad", "response": {"status_code": 200, "body": body}, "error": None}
    (home / "results.jsonl").write_text(json.dumps(result) + "\n")
    assert jobs("import", "mine", "results.jsonl") == 0
    assert jobs("export", "mine") == 0
    assert json.loads(capsys.readouterr().out)["value"]["body"] == body


def test_requests_are_handed_to_vllm_and_taken_back(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "in.jsonl").write_text(line("one") + line("bad", max_tokens=-1))
    jobs(*RUN, "--job", "mine", "-o", "first.jsonl")
    with (home / "in.jsonl").open("a") as file:
        file.write(CHAT + line("three", prompt="The") + line("twin", prompt="The"))
    capsys.readouterr()
    export = ("export", "mine", "--vllm", "--served-as", "org/model")
    assert jobs(*export, "--out", "todo.jsonl") == 0
    todo = [json.loads(each) for each in (home / "todo.jsonl").read_text().splitlines()]
    assert [each["custom_id"] for each in todo] == ["chat", "three"]
    assert todo[0]["body"] == {**json.loads(CHAT)["body"], "model": "org/model"}
    body = {"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 7}}
    results = [
        {"custom_id": "three", "response": {"status_code": 200, "body": body}, "error": None},
        {"custom_id": "chat", "response": {"status_code": 500, "body": None}, "error": "broke"},
        {"custom_id": "stranger", "response": {"status_code": 200, "body": body}, "error": None},
    ]
    text = "".join(json.dumps(each) + "\n" for each in results) + '{"custom_id": "chat", "resp'
    (home / "results.jsonl").write_text(text)
    capsys.readouterr()
    assert jobs("import", "mine", "results.jsonl") == 1
    told = capsys.readouterr().err
    for words in ("1 replies", "1 errors", "1 of no item", "1 lines that are no results"):
        assert words in told
    assert "3 answered, 1 failed, 1 left" in told
    assert jobs(*export) == 0
    assert [json.loads(each)["custom_id"] for each in capsys.readouterr().out.splitlines()] == [
        "chat"
    ]
    assert jobs("resume", "mine") == 1  # what is left is answered here; "bad" stays bad
    found = answers_of(home / "first.jsonl")
    assert found["three"]["value"]["body"] == body == found["twin"]["value"]["body"]
    assert found["chat"]["status"] == "ok"


def answers_of(path: Path) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in map(json.loads, path.read_text().splitlines())}
