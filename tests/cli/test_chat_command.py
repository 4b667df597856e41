# SPDX-License-Identifier: Apache-2.0
"""`freehold chat`: history, commands, interruption, and a context that fills."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from command_line import STORIES, STORIES_HF, model, process

from freehold import LLM, SamplingParams
from freehold.cli import chat, console
from freehold.cli.main import run

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}Once upon a time"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    target = tmp_path_factory.mktemp("chat")
    for file in Path(model(*STORIES_HF)).iterdir():
        shutil.copy(file, target / file.name)
    (target / "chat_template.jinja").write_text(TEMPLATE)
    return str(target)


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(folder, backend="reference", context_length=160) as loaded:
        yield loaded


def session(llm: LLM, max_tokens: int = 6, **settings) -> chat.Session:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    return chat.Session(llm, params, settings.get("system"), settings.get("verbose", False))


def converse(session: chat.Session, monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    session.run()


def test_a_conversation_from_a_pipe(folder):
    result = process(
        "chat", folder, "--backend", "reference", "-t", "0", "-n", "5", stdin="hello\nagain\n"
    )
    assert result.returncode == 0
    assert len(result.out.splitlines()) >= 2
    assert result.err == 2 * "the answer was cut at 5 tokens (--max-tokens)\n"


def test_each_turn_sees_those_before_it(llm, monkeypatch, capsys):
    talk = session(llm, system="Be kind")
    converse(talk, monkeypatch, "first\nsecond\n")
    roles = [message["role"] for message in talk.messages()]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    wanted = llm.chat(talk.messages()[:-1], talk.params)
    assert talk.turns[-1]["content"] == wanted.text
    assert capsys.readouterr().out.count(wanted.text) >= 1


def test_several_lines_are_one_message(llm, monkeypatch):
    talk = session(llm)
    converse(talk, monkeypatch, '"""one\ntwo\n"""\nleft \\\nright\n"""single"""\n')
    said = [turn["content"] for turn in talk.turns if turn["role"] == "user"]
    assert said == ["one\ntwo", "left \nright", "single"]


def test_commands(llm, monkeypatch, capsys, tmp_path):
    talk = session(llm)
    saved = tmp_path / "talk.json"
    converse(
        talk,
        monkeypatch,
        f"/help\n/system Be brief\nhello\n/save {saved}\n/save {saved}\n/save\n/stats\n/clear\n"
        "/nonsense\n/exit\nnot reached\n",
    )
    err = capsys.readouterr().err
    for words in (
        "/clear",
        "system message: Be brief",
        "saved 3 messages",
        "exists already",
        "needs a file name",
        "tokens made",
        "conversation is empty",
        "no command",
    ):
        assert words in err
    roles = [message["role"] for message in json.loads(saved.read_text())]
    assert roles == ["system", "user", "assistant"]
    assert talk.turns == []


def test_a_full_context_is_said_and_nothing_is_dropped(llm, monkeypatch, capsys):
    talk = session(llm, max_tokens=1000)
    talk.params = SamplingParams(temperature=0.0, ignore_eos=True)
    converse(talk, monkeypatch, "hello\nmore\n")
    err = capsys.readouterr().err
    assert "all 160 tokens of the context are used" in err
    assert "not sent" in err
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"]


def test_ctrl_c_stops_the_answer_and_keeps_the_session(llm, monkeypatch, capsys):
    talk = session(llm, max_tokens=60)
    written = console.data
    pieces = []

    def interrupt(text: str, *, end: str = "\n") -> None:
        pieces.append(text)
        if len(pieces) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        written(text, end=end)

    monkeypatch.setattr(console, "data", interrupt)
    talk.answer("hello")
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"]
    assert talk.turns[1]["content"] == "".join(pieces[:3])
    assert "stopped" in capsys.readouterr().err
    assert not llm.engine.has_unfinished()
    monkeypatch.setattr(console, "data", written)
    talk.answer("again")
    assert len(talk.turns) == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failed_turn_leaves_the_history_alone(llm, monkeypatch, capsys):
    talk = session(llm)
    talk.answer("hello")
    before = list(talk.turns)
    converse(talk, monkeypatch, "word " * 400 + "\n")
    assert talk.turns == before
    assert "not sent" in capsys.readouterr().err


def test_a_model_without_a_template_is_refused(capsys):
    assert run(["chat", model(*STORIES), "--backend", "reference"]) == 2
    assert "freehold run" in capsys.readouterr().err
