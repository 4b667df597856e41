# SPDX-License-Identifier: Apache-2.0
"""The training loop: losses fall, runs resume exactly, killed runs leave a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from recipes.seedling.__main__ import make_tokenizer, training_examples  # noqa: E402
from recipes.seedling.batches import (  # noqa: E402
    DRILL,
    LESSONS,
    Phase,
    Position,
    Stream,
    chunk_batches,
    drill,
    phase_at,
    spelling,
    vocabulary_words,
)
from recipes.seedling.settings import BUDGETS, Budget  # noqa: E402
from recipes.seedling.tokenizer import chat_prompt, encode_examples  # noqa: E402
from recipes.seedling.train import (  # noqa: E402
    LAST,
    STABLE,
    Trainer,
    load_checkpoint,
    progress_of,
    rate_at,
    resume_point,
)

ROOT = Path(__file__).parents[2]
TINY = replace(BUDGETS["tiny"], steps=24, tokenizer_examples=200, chunk_examples=64)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"), TINY)


def trainer(tokenizer, out: Path, budget: Budget = TINY) -> Trainer:
    return Trainer(budget, tokenizer, training_examples, out, dtype="float32")


def weights(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: t.detach().numpy().copy() for name, t in trainer.model.state_dict().items()}


def test_loss_falls_on_documents(tokenizer, tmp_path):
    run = trainer(tokenizer, tmp_path, replace(TINY, drill_share=0.0, log_steps=4))
    run.run()
    steps = [
        json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()
        if '"event": "step"' in line
    ]  # fmt: skip
    assert steps[-1]["loss"]["extract"] < 0.8 * steps[0]["loss"]["extract"]
    assert steps[-1]["step"] == 24
    assert steps[-1]["tokens"] > steps[0]["tokens"] > 0


@pytest.mark.parametrize("stop", [1, 11, 20])  # among the drills, short examples, in the fall
def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, tmp_path, stop):
    whole = trainer(tokenizer, tmp_path / "whole")
    whole.run()
    first = trainer(tokenizer, tmp_path / "parts")
    first.run(stop_step=stop)
    second = trainer(tokenizer, tmp_path / "parts")
    second.load(tmp_path / "parts" / LAST)
    assert second.state.step == stop
    second.run()
    assert second.state.tokens == whole.state.tokens
    expected, found = weights(whole), weights(second)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_killed_run_leaves_a_checkpoint_that_loads(tmp_path):
    budget = replace(TINY, steps=100_000, checkpoint_seconds=0.0)
    make_tokenizer(tmp_path, budget)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; import json\n"
        "from recipes.seedling.__main__ import training_examples\n"
        "from recipes.seedling.settings import Budget\n"
        "from recipes.seedling.tokenizer import load_tokenizer\n"
        "from recipes.seedling.train import Trainer\n"
        "out = Path(sys.argv[1]); budget = Budget.from_json(json.loads(sys.argv[2]))\n"
        "Trainer(budget, load_tokenizer(out / 'tokenizer.json'), training_examples, out).run()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(budget.to_json())],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 45
        while not (tmp_path / LAST).exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.3)  # in the middle of some write: it saves after every step
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    content = load_checkpoint(tmp_path / LAST)
    assert Budget.from_json(content["budget"]) == budget
    assert content["state"]["step"] >= 1
    tokenizer = make_tokenizer(tmp_path, budget)
    again = trainer(tokenizer, tmp_path, replace(budget, steps=content["state"]["step"] + 1))
    again.load(tmp_path / LAST)
    again.run()
    assert again.state.step == content["state"]["step"] + 1


def test_a_finished_run_is_prolonged_from_before_the_fall(tokenizer, tmp_path):
    run = trainer(tokenizer, tmp_path)
    run.run()
    longer = replace(TINY, steps=40)
    assert resume_point(tmp_path, longer) == tmp_path / STABLE
    assert resume_point(tmp_path, TINY) == tmp_path / LAST
    state = load_checkpoint(tmp_path / STABLE)["state"]
    assert state["step"] == round(24 * (1 - TINY.cooldown_share)) + 1 or state["step"] == 15


def test_rate_rises_stays_and_falls():
    budget = replace(TINY, warmup_steps=10, cooldown_share=0.25)
    assert rate_at(budget, 0, 0.0) == pytest.approx(0.1)
    assert rate_at(budget, 500, 0.5) == 1.0
    assert rate_at(budget, 500, 0.875) == pytest.approx(0.5)
    assert rate_at(budget, 500, 1.2) == 0.0


def test_minutes_are_counted_over_all_sittings(tokenizer, tmp_path):
    run = trainer(tokenizer, tmp_path, replace(TINY, steps=0, minutes=10.0))
    run.state.seconds = 300.0
    assert progress_of(run.budget, run.state) == 0.5


def test_stream_goes_on_anywhere(tokenizer):
    phase = Phase(TINY.max_tokens, 0.1)
    stream = Stream(training_examples, tokenizer, TINY, Position())
    all_batches = [stream.take(phase) for _ in range(30)]
    assert stream.position.chunk > 0
    again = Stream(training_examples, tokenizer, TINY, all_batches[16].position)
    for expected in all_batches[17:]:
        found = again.take(phase)
        np.testing.assert_array_equal(found.ids, expected.ids)
        assert found.tasks == expected.tasks
        assert found.position == expected.position


def test_batches_hold_like_lengths_and_little_padding(tokenizer):
    stream = Stream(training_examples, tokenizer, TINY, Position())
    batches = [stream.take(Phase(TINY.max_tokens, 0.1)) for _ in range(30)]
    padded = sum(batch.ids.size for batch in batches)
    assert sum(batch.tokens for batch in batches) > 0.8 * padded
    assert all(batch.ids.size <= TINY.micro_tokens or len(batch.ids) == 1 for batch in batches)


def test_phases_begin_with_drills_then_short_examples():
    lessons = [phase_at(TINY, TINY.drill_share * part) for part in (0.0, 0.5, 0.99)]
    assert [phase.lesson for phase in lessons] == [0, 1, 2]
    assert {phase.drill_rate for phase in lessons} == {1.0}
    short = phase_at(TINY, TINY.drill_share + 0.01)
    assert (short.max_tokens, short.drill_rate) == (TINY.short_tokens, TINY.drill_rate)
    assert phase_at(TINY, 0.99).max_tokens == TINY.max_tokens


@pytest.mark.parametrize("lesson", range(len(LESSONS)))
def test_a_drill_asks_for_its_lines_in_another_order(tokenizer, lesson):
    ids, asked, task = drill(np.random.default_rng(3), tokenizer, lesson)
    assert task == DRILL
    lines = tokenizer.encode("\n", add_special_tokens=False).ids
    answer = ids[asked:-1]
    assert answer[-1:] == lines
    assert sorted(answer) == sorted(ids[3 : 3 + len(answer)])


def test_examples_are_encoded_as_the_chat_template_says(tokenizer):
    example = next(training_examples(5, 1))
    [(ids, asked)] = encode_examples(tokenizer, [example])
    prompt = tokenizer.decode(ids[:asked], skip_special_tokens=False)
    answer = tokenizer.decode(ids[asked:], skip_special_tokens=False)
    assert prompt == chat_prompt(example.messages)
    assert answer == example.answer + "<|im_end|>"


def test_spelling_asks_for_words_where_a_quotation_mark_comes_before_them(tokenizer):
    random = np.random.default_rng(3)
    words = vocabulary_words(tokenizer)
    assert len(words) == len(set(words)) > 100
    for _ in range(50):
        made = spelling(random, words)
        question, fields = made.messages[0]["content"], json.loads(made.answer)
        for label, value in fields.items():
            assert label in question.splitlines()[0]
            assert any(label in line and value in line for line in _pairs_of(question)), question


def _pairs_of(question: str) -> list[str]:
    lines = question.splitlines()[2:]
    return lines + [" ".join(pair) for pair in pairwise(lines)]


def test_drills_after_the_beginning_are_mostly_spelling(tokenizer):
    budget = replace(BUDGETS["tiny"], drill_rate=0.5)
    phase = Phase(budget.max_tokens, budget.drill_rate)
    batches = chunk_batches(training_examples, tokenizer, budget, phase, 0)
    asked = [
        tokenizer.decode(ids[:count].tolist(), skip_special_tokens=False)
        for batch in batches
        for ids, count, task in zip(batch.ids, batch.asked, batch.tasks, strict=True)
        if task == DRILL
    ]
    spelled = sum("Extract as JSON" in text for text in asked)
    assert len(asked) == round(budget.chunk_examples * 0.5)
    assert spelled == round(len(asked) * budget.spelling_share)
