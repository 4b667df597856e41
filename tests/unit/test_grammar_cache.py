# SPDX-License-Identifier: Apache-2.0
"""Compiled grammars are shared by who asks for the same, and forgotten before they fill memory."""

from __future__ import annotations

import json
import threading

import pytest

import tiny_chat
from freehold import LLM
from freehold.types import Constraint


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    with LLM(str(tiny_chat.write(tmp_path_factory.mktemp("m") / "t.gguf")), threads=1) as model:
        yield model


def words(count: int, first: str) -> Constraint:
    return Constraint("choice", [f"{first}{i:06}" for i in range(count)])


def test_the_same_form_is_compiled_once(llm):
    one = llm.text_grammar(words(3, "a"))
    assert llm.text_grammar(words(3, "a")) is one
    assert llm.text_grammar(words(3, "b")) is not one


def test_large_grammars_push_each_other_out(llm):
    kept = [llm.text_grammar(words(9000, first)) for first in "abcdefghijklmnop"]
    compiler = llm._conversations.grammars
    assert llm.text_grammar(words(9000, "p")) is kept[-1]
    assert llm.text_grammar(words(9000, "a")) is not kept[0]
    assert compiler._kept == sum(map(len, compiler._known)) < 2**20


def test_many_threads_may_ask(llm):
    schema = {"enum": list(range(50))}
    found = []

    def ask(i: int) -> None:
        form = Constraint("json_schema", json.loads(json.dumps(schema)) if i % 2 else True)
        found.append(llm.text_grammar(form))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(grammar is not None for grammar in found)
    assert len(found) == 8
