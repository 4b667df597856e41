# SPDX-License-Identifier: Apache-2.0
"""Labels without decoding: the trie against scoring one by one, probabilities, abstaining,
calibration, long documents."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scripted import Scripted

import tiny_chat
from freehold import LLM
from freehold._llm_label_rule import Precision, StopRule
from freehold._llm_label_trie import LabelTrie, _instruction
from freehold._llm_labels import label_measurements
from freehold.documents import Classify, Document, LLMAsker, classify, prompts
from freehold.documents.calibration import Calibration, calibration_error, fit, probabilities
from freehold.documents.tasks import from_spec, texts
from freehold.engine.measuring import Measurement
from freehold.errors import ContextLengthError, InvalidParameterError
from shared_data import shared_path


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = tiny_chat.write(tmp_path_factory.mktemp("chat") / "m.gguf", context=4096)
    with LLM(path) as llm:
        yield llm


def brute(llm: LLM, prompt: list[int], labels: list[str]) -> list[float]:
    """Each label scored by itself, as answer and end."""
    wanted = label_measurements(llm.tokenizer, prompt, labels, llm.endings())
    return [float(row.sum(dtype=np.float64)) for row in llm.engine.measure(wanted)]


LABELS = ["good", "good enough", "goods", "bad", "b", "東京", "so-so", "very good indeed"]


def test_a_trie_gives_what_scoring_one_by_one_gives(llm):
    conversations = [prompts.classify(text, LABELS) for text in ("first", "a second", "x" * 90)]
    starts = [llm.answer_start(messages) for messages in conversations]
    found = LabelTrie.of(llm, LABELS).score(llm.engine, starts, margin=math.inf)
    for start, scores in zip(starts, found, strict=True):
        assert list(scores.logprobs) == brute(llm, start, LABELS)


def test_what_a_margin_leaves_out_is_bounded(llm):
    start = llm.answer_start(prompts.classify("some text", LABELS))
    exact = brute(llm, start, LABELS)
    trie = LabelTrie.of(llm, LABELS)
    (whole,) = trie.score(llm.engine, [start], margin=math.inf)
    for margin in (0.0, 2.0, 10.0):
        (found,) = trie.score(llm.engine, [start], margin=margin)
        assert max(found.logprobs) == max(exact)
        assert found.requests <= whole.requests
        for got, true in zip(found.logprobs, exact, strict=True):
            assert got == true or (true < got < max(exact) - margin)
    assert trie.score(llm.engine, [start], margin=0.0)[0].requests < whole.requests


def test_banking77_is_scored_without_decoding_and_as_by_brute_force(llm):
    folder = shared_path("datasets", "banking77")
    labels = json.loads((folder / "categories.json").read_text("utf-8"))
    with (folder / "test.csv").open(encoding="utf-8") as file:
        rows = [row["text"] for row in csv.DictReader(file)][::770]
    assert len(labels) == 77
    before = llm.engine.stats.decode_tokens
    answers = classify(llm, rows, labels, tolerance=0.0)
    assert llm.engine.stats.decode_tokens == before
    for text, answer in zip(rows, answers, strict=True):
        assert answer.usage.answer_tokens == 0
        start = llm.answer_start(prompts.classify(text, labels))
        chances, _ = probabilities(brute(llm, start, labels))
        assert answer.value["label"] == labels[int(np.argmax(chances))]
        found = [answer.value["probabilities"][label] for label in labels]
        assert found == pytest.approx(chances, abs=1e-9)


def test_few_blocks_do_not_compute_labels_again_and_again(llm):
    """Where what all prompts have begun cannot be kept, fewer of them are looked at together."""
    labels = [f"{a} and in the middle {b}{b}" for a in "abcdefgh" for b in "wxyz"]
    documents = texts([f"text number {n}" for n in range(24)])
    start = len(llm.answer_start(prompts.classify(documents[0].text, labels)))
    block = llm.engine.kv_bytes // llm.engine.pools[0].num_blocks
    size = llm.engine.pools[0].block_size

    def scored(blocks: int) -> tuple[int, list[object]]:
        with LLM(llm.path, context_length=start + 99, kv_memory_bytes=blocks * block) as other:
            assert other.engine.pools[0].num_blocks < 1.1 * blocks
            found = Classify(tuple(labels), tolerance=0.0).answer(LLMAsker(other), documents)
            return other.engine.stats.prefill_tokens, [answer.value for answer in found]

    roomy, want = scored(8 * start)
    narrow, found = scored(start // size + 2 * len(documents) + 60)
    assert found == want
    assert narrow < 1.2 * roomy


def test_what_is_a_branch_of_one_instruction():
    """Only short prompts that have little but the instruction in common."""
    begin = list(range(100))
    different = [[*begin, n, *range(500, 530)] for n in range(300, 308)]
    assert _instruction(different, 40) == 100
    assert _instruction(different, 30) == 0  # too long for a pass
    assert _instruction(different[:1], 40) == 0
    assert _instruction([begin, [*begin, 1]], 40) == 99  # something is left of each
    alike = [[*begin, *range(200, 260), n] for n in range(300, 308)]  # one document, many labels
    assert _instruction([*alike, different[0]], 99) == 0


def some_task(tolerance: float, calibration: Calibration | None = None) -> Classify:
    return Classify(tuple(LABELS), tolerance=tolerance, calibration=calibration)


@pytest.mark.parametrize(
    "calibration",
    [None, Calibration(2.5, ()), Calibration(0.6, (0.5, 0.0, 1.0, -1.0, 0.0, 2.0, -0.5, 0.0))],
)
@pytest.mark.parametrize("tolerance", [0.001, 0.05, 0.3])
def test_probabilities_are_within_the_tolerance(llm, tolerance, calibration):
    documents = texts(["first", "a second", "x" * 90])
    exact = some_task(0.0, calibration).answer(LLMAsker(llm), documents)
    computed = llm.engine.stats.prefill_tokens
    found = some_task(tolerance, calibration).answer(LLMAsker(llm), documents)
    assert llm.engine.stats.prefill_tokens > computed
    for got, want in zip(found, exact, strict=True):
        assert got.value["label"] == want.value["label"]
        for label, chance in want.value["probabilities"].items():
            assert abs(got.value["probabilities"][label] - chance) <= tolerance + 1e-12


def test_biases_belong_to_their_labels(llm):
    """Any label may be made the likeliest, and none is made so by the bias of another."""
    documents = texts(["first", "a second"])
    for favoured in range(len(LABELS)):
        biases = tuple(12.0 * (number == favoured) for number in range(len(LABELS)))
        for calibration in (Calibration(1.0, biases), Calibration(3.0, biases)):
            exact = some_task(0.0, calibration).answer(LLMAsker(llm), documents)
            found = some_task(0.05, calibration).answer(LLMAsker(llm), documents)
            for got, want in zip(found, exact, strict=True):
                assert got.value["label"] == want.value["label"]
                for label, chance in want.value["probabilities"].items():
                    assert got.value["probabilities"][label] == pytest.approx(chance, abs=0.05)


@pytest.mark.parametrize("tolerance", [0.01, 0.3, 0.9])
def test_whether_a_label_is_likely_enough_is_known_whatever_the_tolerance(llm, tolerance):
    documents = texts([f"text number {n}" for n in range(12)])
    exact = some_task(0.0).answer(LLMAsker(llm), documents)
    chances = sorted(answer.value["probability"] for answer in exact)
    for abstain_below in (chances[0] + 1e-9, chances[5], chances[5] + 1e-9, chances[-1] - 1e-9):
        task = replace(some_task(tolerance), abstain_below=abstain_below)
        found = task.answer(LLMAsker(llm), documents)
        unsure = [answer.value["label"] is None for answer in found]
        assert unsure == [a.value["probability"] < abstain_below for a in exact]
        assert any(unsure)


def test_a_tolerance_computes_less(llm):
    trie = LabelTrie.of(llm, LABELS)
    start = llm.answer_start(prompts.classify("some text", LABELS))
    (whole,) = trie.score(llm.engine, [start], margin=math.inf)
    (found,) = trie.score(llm.engine, [start], precision=Precision(0.3))
    assert found.requests < whole.requests


def test_labels_are_scored_in_little_room(llm):
    conversations = [prompts.classify(text, LABELS) for text in ("first", "second " * 30, "third")]
    starts = [llm.answer_start(messages) for messages in conversations]
    trie = LabelTrie.of(llm, LABELS)
    least = -(-(max(map(len, starts)) + trie.depth) // 16)
    numbers = []
    for blocks in (400, least):
        engine = llm.make_engine(num_blocks=blocks)
        found = trie.score(engine, starts, margin=math.inf)
        numbers.append([scores.logprobs for scores in found])
        for pool in engine.pools:
            pool.check()
            assert pool.num_held == 0
    assert numbers[0] == numbers[1]


# -- when it is enough -----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("tolerance", [0.001, 0.05, 0.4])
def test_what_is_left_out_makes_no_more_difference_than_it_may(temperature, biased, tolerance):
    rng = np.random.default_rng(5)
    saved = 0
    for _ in range(200):
        begins = rng.dirichlet(np.full(9, 0.2))[:8] + 1e-12  # some chance goes elsewhere
        below = [[3 * group + n for n in range(3)] for group in range(8)]
        shares = [rng.dirichlet(np.full(4, 0.3))[:3] + 1e-12 for _ in below]
        logs = np.log(np.concatenate([p * s / 1.1 for p, s in zip(begins, shares, strict=True)]))
        biases = tuple(rng.normal(size=24).tolist()) if biased else ()
        rule = StopRule(Precision(tolerance, temperature, biases), below)
        bounds, known = np.log(begins)[None], np.full((1, 24), -np.inf)
        while (due := rule.due(bounds, known)[0]).any():
            for group in np.flatnonzero(due):
                bounds[0, group] = -np.inf
                known[0, below[group]] = logs[below[group]]
        given = logs.copy()
        left = np.flatnonzero(bounds[0] > -np.inf)
        for group in left:
            given[below[group]] = bounds[0, group] - math.log(3)
        saved += len(left)
        calibration = Calibration(temperature, biases)
        exact, got = (np.array(probabilities(row, calibration)[0]) for row in (logs, given))
        assert np.abs(exact - got).max() <= tolerance + 1e-12
        assert known[0, exact.argmax()] > -np.inf
        assert exact.argmax() == got.argmax()
    assert saved > 20


def test_a_tolerance_is_a_probability():
    for tolerance in (-0.1, 1.0, math.nan):
        with pytest.raises(InvalidParameterError):
            Precision(tolerance)
        with pytest.raises(InvalidParameterError):
            Classify(("a", "b"), tolerance=tolerance)


def test_numbers_of_the_next_token(llm):
    ids = llm.tokenizer.encode("The quick brown fox")
    logits = llm.logits(ids).astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    first = len(ids) - 3
    wanted = Measurement(ids, "next", first=first, targets=(5, 9), endings=(1, 2))
    (numbers,) = llm.engine.measure([wanted])
    expected = [logs[at - 1, ids[at]] for at in range(first, len(ids))]
    expected += [logs[-1, 5], logs[-1, 9], np.log(np.exp(logs[-1, [1, 2]]).sum())]
    np.testing.assert_allclose(numbers, expected, atol=2e-5)
    for bad in (
        Measurement(ids, "next", first=0, targets=(5,)),
        Measurement(ids, "next", first=len(ids)),
        Measurement(ids, "next", first=len(ids), targets=(10**6,)),
    ):
        with pytest.raises(InvalidParameterError):
            llm.engine.measure([bad])


# -- values ----------------------------------------------------------------------------------------


def scored(**logs: float) -> Scripted:
    return Scripted(score=lambda prompt, label: logs[label])


def test_probabilities_and_coverage():
    (answer,) = classify(scored(a=math.log(0.6), b=math.log(0.2)), ["x"], ["a", "b"])
    assert answer.value["label"] == "a"
    assert answer.value["probabilities"] == pytest.approx({"a": 0.75, "b": 0.25})
    assert answer.value["probability"] == pytest.approx(0.75)
    assert answer.value["coverage"] == pytest.approx(0.8)
    assert answer.usage.answer_tokens == 0


def test_an_unsure_answer_is_no_label():
    asker = scored(a=math.log(0.6), b=math.log(0.2))
    for least, label in ((0.74, "a"), (0.76, None)):
        (answer,) = classify(asker, ["x"], ["a", "b"], abstain_below=least)
        assert answer.value["label"] == label
        assert answer.value["probability"] == pytest.approx(0.75)


def test_several_labels_are_a_question_each():
    yes = {"red": 0.9, "round": 0.6, "loud": 0.1}

    def score(prompt: str, word: str) -> float:
        (label,) = [label for label in yes if f"'{label}'" in prompt]
        chance = yes[label]
        return math.log(chance if word == "yes" else 1 - chance)

    asker = Scripted(score=score)
    (answer,) = classify(asker, ["an apple"], list(yes), multi_label=True)
    assert answer.value["labels"] == ["red", "round"]
    assert answer.value["probabilities"] == pytest.approx(yes)
    common = {prompt.rpartition("Question:")[0] for prompt in asker.prompts}
    assert len(common) == 1  # the document is computed once
    (answer,) = classify(asker, ["an apple"], list(yes), multi_label=True, threshold=0.7)
    assert answer.value["labels"] == ["red"]


def test_a_long_document_is_read_in_pieces_that_count_by_their_length():
    text = "all is well. " * 60 + "ALARM. " * 12
    asker = Scripted(
        context=600,
        score=lambda prompt, label: -0.01 if (label == "bad") == ("ALARM" in prompt) else -5.0,
    )
    (answer,) = classify(asker, [text], ["good", "bad"])
    assert answer.value["pieces"] > 1
    assert answer.value["label"] == "good"
    assert sum(answer.value["probabilities"].values()) == pytest.approx(1.0)
    assert all(len(prompt) < 600 for prompt in asker.prompts)


def test_labels_that_leave_no_room_are_an_error_of_the_document():
    (answer,) = classify(Scripted(context=60), ["text"], ["label one", "label two"])
    assert isinstance(answer.error, ContextLengthError)


@pytest.mark.parametrize("labels", [[], ["one"], ["a", "A"], ["a", ""], ["a\nb", "c"]])
def test_labels_that_cannot_be_told_apart(labels):
    with pytest.raises(InvalidParameterError):
        classify(Scripted(), ["text"], labels)


# -- calibration -----------------------------------------------------------------------------------


def noisy(
    count: int, temperature: float, biases: list[float]
) -> tuple[list[list[float]], list[int]]:
    """Scores of a model that is too sure by `temperature` and prefers some labels."""
    rng = np.random.default_rng(3)
    true = rng.standard_normal((count, len(biases))) * 2
    chances = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    truths = [int(rng.choice(len(biases), p=row)) for row in chances]
    said = temperature * (true - np.asarray(biases))
    logs = said - np.log(np.exp(said).sum(1, keepdims=True))
    return logs.tolist(), truths


def test_a_fit_finds_the_temperature_and_the_biases():
    rows, truths = noisy(4000, 3.0, [0.0, 1.0, -1.0])
    found = fit(rows, truths)
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    gaps = np.asarray(found.biases) - found.biases[0]
    assert gaps == pytest.approx([0.0, 1.0, -1.0], abs=0.25)
    assert found.error < 0.03 < found.error_before
    assert found.accuracy > found.accuracy_before
    rates = np.array([probabilities(row, found)[0] for row in rows])
    assert calibration_error(rates, np.asarray(truths)) < 0.03


def test_few_examples_fit_a_temperature_alone():
    rows, truths = noisy(11, 3.0, [0.0, 0.0, 0.0])
    assert fit(rows, truths).biases == ()
    with pytest.raises(InvalidParameterError, match="too few"):
        fit(rows[:9], truths[:9])


def test_a_fit_survives_what_never_happens_and_what_is_always_right():
    rows = [[-1e6, 0.0]] * 10 + [[0.0, -1e6]] * 10
    found = fit(rows, [1] * 10 + [0] * 10)
    assert math.isfinite(found.temperature)
    assert found.accuracy == 1.0
    json.dumps(found.as_json(), allow_nan=False)


def test_a_calibrated_task_keeps_what_was_fitted():
    rows, truths = noisy(400, 3.0, [0.0, 1.0])
    task = Classify(("a", "b")).calibrated(fit(rows, truths))
    spec = json.loads(json.dumps(task.spec(), allow_nan=False))
    again = from_spec("classify", spec)
    assert again == task
    older = {name: value for name, value in spec.items() if name != "tolerance"}
    assert from_spec("classify", older).tolerance == 0.0
    asker = scored(a=-0.1, b=-2.4)
    (before,) = Classify(("a", "b")).answer(asker, texts(["x"]))
    (after,) = again.answer(asker, texts(["x"]))
    assert before.value["probability"] > after.value["probability"]
    with pytest.raises(InvalidParameterError, match="biases"):
        Classify(("a", "b", "c")).calibrated(task.calibration)


def test_documents_and_texts_are_the_same_to_a_task(llm):
    document = Document("some text", "a.txt", "txt", 1)
    by_text, by_document = classify(LLMAsker(llm), ["some text", document], ["one", "two"])
    assert by_text.value == by_document.value


def test_calibrations_that_are_none():
    for temperature in (0.0, -1.0, math.inf):
        with pytest.raises(InvalidParameterError):
            Calibration(temperature, ())
