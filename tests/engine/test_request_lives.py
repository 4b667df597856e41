# SPDX-License-Identifier: Apache-2.0
"""How requests begin, end and fail, on the model whose answers are known by definition."""

from __future__ import annotations

import numpy as np
import pytest
from hash_model import (
    HashModel,
    HashOps,
    alone,
    check_books,
    check_empty,
    finish_all,
    greedy_answer,
    hash_engine,
    logits_of,
    state_of,
    tokens_of,
)

from freehold.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.errors import ContextLengthError, EngineError, InvalidParameterError
from freehold.types import SamplingParams

VOCAB = 6
PROMPT = [3, 1, 4, 1, 5]


def greedy(**options):
    return SamplingParams(temperature=0.0, **options)


def ending(params, prompt=PROMPT, **config):
    outputs = alone(prompt, params, vocab=VOCAB, **config)
    assert all(output.finished is None for output in outputs[:-1])
    return tokens_of(outputs), outputs[-1].finished, outputs[-1].stop_reason


# -- endings ------------------------------------------------------------------------------------
def test_max_tokens_and_the_context_end_with_length():
    full = greedy_answer(PROMPT, 40, VOCAB)
    assert ending(greedy(max_tokens=1)) == (full[:1], "length", None)
    assert ending(greedy(max_tokens=7)) == (full[:7], "length", None)
    assert ending(greedy(), context_length=20) == (full[:15], "length", None)
    assert ending(greedy(max_tokens=99), context_length=20) == (full[:15], "length", None)
    # A pool smaller than the context is the context.
    assert ending(greedy(), context_length=20, num_blocks=2, block_size=6) == (
        full[:7], "length", None,
    )  # fmt: skip
    assert ending(greedy(), context_length=6) == (full[:1], "length", None)


@pytest.mark.parametrize("drafts", [0, 4])
def test_end_tokens_end_with_stop_and_are_reported(drafts):
    full = greedy_answer(PROMPT, 40, VOCAB)
    for end in range(VOCAB):
        if end not in full:
            continue
        upto = full[: full.index(end) + 1]
        config = {"speculative_tokens": drafts}
        assert ending(greedy(), eos_token_ids=[end], **config) == (upto, "stop", end)
        assert ending(greedy(stop_token_ids=(end,)), **config) == (upto, "stop", end)
        kept = ending(greedy(max_tokens=40, ignore_eos=True), eos_token_ids=[end], **config)
        assert kept == (full, "length", None)
        # ignore_eos spares the model's own end tokens, not the caller's.
        params = greedy(ignore_eos=True, stop_token_ids=(end,))
        assert ending(params, eos_token_ids=[end], **config) == (upto, "stop", end)


def test_an_end_token_at_the_last_place_is_a_stop():
    full = greedy_answer(PROMPT, 3, VOCAB)
    if full[2] in full[:2]:
        pytest.fail("choose another prompt")
    assert ending(greedy(max_tokens=3, stop_token_ids=(full[2],))) == (full, "stop", full[2])


def test_min_tokens_holds_end_tokens_back():
    first = greedy_answer(PROMPT, 1, VOCAB)[0]
    tokens, _, _ = ending(greedy(min_tokens=5, max_tokens=12, stop_token_ids=(first,)))
    assert len(tokens) >= 6 or first not in tokens
    assert first not in tokens[:5]


def test_end_tokens_the_model_has_no_row_for_do_no_harm():
    tokens, reason, _ = ending(greedy(min_tokens=3, max_tokens=5), eos_token_ids=[VOCAB, 10**6, -1])
    assert (tokens, reason) == (greedy_answer(PROMPT, 5, VOCAB), "length")


def test_finish_and_abort_say_nothing_more_and_count():
    engine, _ = hash_engine(VOCAB, max_num_seqs=2)
    ids = [engine.add([n, *PROMPT], greedy(max_tokens=9)) for n in range(4)]
    engine.step()
    engine.finish(ids[0])
    engine.abort(ids[1])
    engine.finish(ids[2], "abort")  # still waiting
    for gone in (*ids[:3], "never there"):
        engine.abort(gone)
        engine.finish(gone)
    check_books(engine)
    assert set(finish_all(engine)) == {ids[3]}
    s = engine.stats
    assert (s.requests_added, s.requests_finished, s.requests_aborted) == (4, 2, 2)


# -- refusals -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "ids",
    [[], [VOCAB], [-1], [0, 2**31], [2**63], [10**5000], [1.0], [1.5, 2], ["a"], "12", [None],
     [[1, 2]], [[1], [1, 2]], [True], [float("nan")], {}, np.zeros((2, 2), int), [b"x"],
     [1, "2"], [{}]],
    ids=lambda _: "ids",  # one is too large to print
)  # fmt: skip
def test_prompts_that_are_no_prompts(ids):
    engine, _ = hash_engine(VOCAB)
    for call in (lambda: engine.add(ids, greedy()), lambda: engine.logits(ids),
                 lambda: engine.score(ids), lambda: engine.embed(ids)):  # fmt: skip
        with pytest.raises(InvalidParameterError) as caught:
            call()
        assert len(str(caught.value)) < 200
    assert not engine.has_unfinished()
    check_empty(engine)


def test_numpy_ids_of_any_whole_type_are_prompts():
    for kind in (np.int8, np.uint64, np.int32):
        engine, _ = hash_engine(VOCAB)
        request_id = engine.add(np.array(PROMPT, kind), greedy(max_tokens=3))
        assert tokens_of(finish_all(engine)[request_id]) == greedy_answer(PROMPT, 3, VOCAB)


def test_a_prompt_must_leave_room_for_an_answer():
    engine, _ = hash_engine(VOCAB, context_length=8)
    assert engine.add([1] * 7, greedy())
    for length in (8, 9, 10_000):
        with pytest.raises(ContextLengthError, match=f"{length} tokens"):
            engine.add([1] * length, greedy())
    assert engine.logits([1] * 8).shape == (8, VOCAB)
    assert engine.score([1] * 9).shape == (8,)  # the last one is a target only
    for call in (engine.logits, engine.embed):
        with pytest.raises(ContextLengthError):
            call([1] * 9)
    with pytest.raises(ContextLengthError):
        engine.score([1] * 10)


def test_settings_naming_tokens_outside_the_vocabulary():
    engine, _ = hash_engine(VOCAB)
    for params in (greedy(logit_bias={VOCAB: 1.0}), greedy(stop_token_ids=(VOCAB,)),
                   greedy(logit_bias={-1: 1.0})):  # fmt: skip
        with pytest.raises(InvalidParameterError, match="vocabulary"):
            engine.add(PROMPT, params)
    for bad in (0, 5, -1):
        with pytest.raises(InvalidParameterError):
            engine.score(PROMPT, bad)
    with pytest.raises(InvalidParameterError, match="pooling"):
        engine.embed(PROMPT, "max")
    check_empty(engine)


def test_names_are_unique_and_made_up_ones_step_aside():
    engine, _ = hash_engine(VOCAB)
    engine.add(PROMPT, greedy(), request_id="request-1")
    with pytest.raises(InvalidParameterError, match="already in use"):
        engine.add(PROMPT, greedy(), request_id="request-1")
    other = engine.add(PROMPT, greedy())
    assert other != "request-1"
    assert set(finish_all(engine)) == {"request-1", other}
    engine.add(PROMPT, greedy(), request_id="request-1")  # over, hence free again


# -- failures -----------------------------------------------------------------------------------
class Faulty(HashModel):
    """Answers with NaN for some prefixes, and raises when told to."""

    def __init__(self, vocab, broken=()):
        super().__init__(vocab)
        self.broken = {state_of(prefix) for prefix in broken}
        self.raise_in: dict[str, float] = {}  # place -> probability
        self.random = np.random.default_rng(2)

    def _maybe(self, place):
        if self.random.random() < self.raise_in.get(place, 0.0):
            raise MemoryError(place)

    def forward(self, batch, cache, ops):
        self._maybe("before")
        hidden = super().forward(batch, cache, ops)
        self._maybe("after")
        return hidden

    def logits(self, hidden, ops):
        self._maybe("head")
        logits = super().logits(hidden, ops)
        for row, state in enumerate(hidden[:, 0].tolist()):
            if state in self.broken:
                logits[row] = np.nan
        return logits


def faulty_engine(model, **config):
    settings = {"context_length": 64, "num_blocks": 64, "block_size": 4} | config
    return Engine(model, HashOps(), EngineConfig(**settings))


@pytest.mark.parametrize("drafts", [0, 3])
def test_logits_that_are_no_numbers_end_their_own_request(drafts):
    good, bad = [1, 2, 3], [2, 2, 5]
    upto = greedy_answer(bad, 4, VOCAB)
    model = Faulty(VOCAB, broken=[bad + upto])
    engine = faulty_engine(model, speculative_tokens=drafts)
    ids = [engine.add(prompt, greedy(max_tokens=20)) for prompt in (good, bad)]
    outputs = finish_all(engine)
    assert tokens_of(outputs[ids[0]]) == greedy_answer(good, 20, VOCAB)
    assert tokens_of(outputs[ids[1]]) == upto
    last = outputs[ids[1]][-1]
    assert last.finished == "abort"
    assert isinstance(last.error, EngineError)
    assert (engine.stats.requests_finished, engine.stats.requests_aborted) == (1, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_an_embedding_that_is_no_number_is_refused(bad, pooling):
    class Broken(HashModel):
        def forward(self, batch, cache, ops):
            hidden = super().forward(batch, cache, ops)
            return np.where(np.arange(len(hidden)) == len(hidden) - 1, bad, 1.0)[:, None]

    engine = faulty_engine(Broken(VOCAB))
    with pytest.raises(EngineError, match="not a number"):
        engine.embed([1, 2, 3, 4, 5], pooling)
    assert engine.pools[0].num_free == engine.pools[0].num_blocks


def test_what_a_broken_step_wrote_is_not_cached():
    prompt = [1, 2, 3, 4, 5, 0, 1, 2]  # two full blocks
    model = Faulty(VOCAB, broken=[prompt])
    engine = faulty_engine(model)
    engine.add(prompt, greedy())
    finish_all(engine)
    assert engine.pools[0].num_cached == 0
    with pytest.raises(EngineError, match="not a number"):
        engine.score([*prompt, 1])
    model.broken.clear()
    again = engine.add(prompt, greedy(max_tokens=4))
    assert tokens_of(finish_all(engine)[again]) == greedy_answer(prompt, 4, VOCAB)


@pytest.mark.parametrize("place", ["before", "after", "head"])
@pytest.mark.parametrize("drafts", [0, 2])
def test_a_step_that_raises_can_be_repeated(place, drafts):
    """Whatever raises, and however often: no request loses, repeats or changes a token."""
    model = Faulty(VOCAB)
    engine = faulty_engine(
        model, num_blocks=9, max_num_batched_tokens=7, speculative_tokens=drafts, context_length=30
    )
    jobs = []
    for n in range(6):
        prompt = [1, 2, 3, 4, 5, 0, 1, 2, n % VOCAB]
        params = SamplingParams(
            temperature=0.7, seed=n, max_tokens=9, prompt_logprobs=1 if n % 2 else None, logprobs=0
        )
        jobs.append((engine.add(prompt, params), prompt, params))
    model.raise_in = {place: 0.4}
    outputs = {request_id: [] for request_id, _, _ in jobs}
    failures = 0
    for _ in range(2000):
        if not engine.has_unfinished():
            break
        try:
            for output in engine.step():
                outputs[output.request_id].append(output)
        except MemoryError:
            failures += 1
        check_books(engine)
    check_empty(engine)
    assert failures > 10
    for request_id, prompt, params in jobs:
        want = alone(prompt, params, vocab=VOCAB)
        got = outputs[request_id]
        assert tokens_of(got) == tokens_of(want)
        assert [lp for o in got for lp in o.logprobs] == [lp for o in want for lp in o.logprobs]
        assert [o.prompt_logprobs for o in got if o.prompt_logprobs] == [
            o.prompt_logprobs for o in want if o.prompt_logprobs
        ]


def test_measuring_that_fails_leaves_nothing_behind_and_keeps_the_others():
    model = Faulty(VOCAB)
    engine = faulty_engine(model)
    request_id = engine.add(PROMPT, greedy(max_tokens=12))
    outputs = []
    for call in (engine.logits, engine.score, engine.embed):
        model.raise_in = {"after": 1.0}
        with pytest.raises(MemoryError):
            call([1, 2, 3, 4, 5] * 3)
        model.raise_in = {}
        assert engine.num_unfinished == 1
        call([1, 2, 3, 4, 5] * 3)
    while engine.has_unfinished():
        outputs += engine.step()
    assert {output.request_id for output in outputs} == {request_id}
    assert tokens_of(outputs) == greedy_answer(PROMPT, 12, VOCAB)
    check_empty(engine)


@pytest.mark.parametrize("end", ["abort", "finish"])
def test_outputs_held_back_while_measuring_are_dropped_with_their_request(end):
    engine, _ = hash_engine(VOCAB)
    ids = [engine.add([n, 1], greedy(max_tokens=30)) for n in range(3)]
    engine.logits([1, 2, 3])
    getattr(engine, end)(ids[1])
    assert set(finish_all(engine)) == {ids[0], ids[2]}
    engine.abort("other")
    ids = [engine.add([n, 1], greedy(max_tokens=1)) for n in range(3)]
    engine.logits([1, 2, 3])  # all are over by now, and nobody has heard of it
    getattr(engine, end)(ids[1])
    assert set(finish_all(engine)) == {ids[0], ids[2]}


def test_a_failing_processor_ends_its_own_request_and_frees_its_blocks():
    def fails_at(n):
        def processor(ids, logits):
            if len(ids) == n:
                raise RuntimeError("boom")
            return logits

        return processor

    engine, _ = hash_engine(VOCAB, num_blocks=12, context_length=40)
    ids = [
        engine.add([n, *PROMPT], greedy(max_tokens=8), logits_processor=fails_at(n))
        for n in range(6)
    ]
    good = engine.add(PROMPT, greedy(max_tokens=30))
    outputs = finish_all(engine)
    for n, request_id in enumerate(ids):
        assert tokens_of(outputs[request_id]) == greedy_answer([n, *PROMPT], n, VOCAB)
        assert isinstance(outputs[request_id][-1].error, InvalidParameterError)
    assert tokens_of(outputs[good]) == greedy_answer(PROMPT, 30, VOCAB)


# -- settings at work ---------------------------------------------------------------------------
@pytest.mark.parametrize("last_n", [-1, 3])
@pytest.mark.parametrize("drafts", [0, 3])
def test_penalties_count_the_answer_as_it_grows(last_n, drafts):
    text = list(PROMPT)
    for _ in range(25):
        row = logits_of(np.array([state_of(text)], np.uint64), VOCAB)[0].astype(np.float64)
        window = text if last_n < 0 else text[-last_n:]
        row -= 0.9 * np.bincount(window, minlength=VOCAB)
        text.append(int(row.argmax()))
    params = greedy(frequency_penalty=0.9, penalty_last_n=last_n, max_tokens=25)
    assert ending(params, speculative_tokens=drafts)[0] == text[len(PROMPT) :]


def test_dry_reads_the_whole_text_and_its_breakers():
    prompt = [1, 2, 3, 1, 2]
    plain = greedy_answer(prompt, 1, VOCAB)
    # 3 followed 1, 2 before: make it the favourite, then DRY must take it away again.
    settings = {"logit_bias": {3: 50.0}, "dry_multiplier": 100.0, "max_tokens": 1}
    pieces = [b"a", b"b", b"c", b"d", b"e", b"f"]
    config = {"token_bytes": pieces.__getitem__}
    assert ending(greedy(**settings), prompt, **config)[0] == plain != [3]
    broken = greedy(**settings, dry_sequence_breakers=("c",))
    assert ending(broken, prompt, **config)[0] == [3]
    with pytest.raises(InvalidParameterError, match="tokenizer"):
        ending(greedy(**settings), prompt)


# -- what is reported ---------------------------------------------------------------------------
def test_prompt_logprobs_come_once_with_the_first_token():
    engine, _ = hash_engine(VOCAB, max_num_batched_tokens=2)
    engine.add([*PROMPT, 0, 1, 2], greedy(max_tokens=1))
    finish_all(engine)  # a cached prefix must not swallow them
    params = greedy(max_tokens=3, prompt_logprobs=2)
    request_id = engine.add([*PROMPT, 0, 1, 2], params)
    outputs = finish_all(engine)[request_id]
    assert [output.prompt_logprobs is not None for output in outputs] == [True, False, False]
    assert outputs[0].cached_tokens == 0
    first, *rest = outputs[0].prompt_logprobs
    assert first is None
    assert [lp.token_id for lp in rest] == [*PROMPT, 0, 1, 2][1:]
    assert all(len(lp.top) == 2 for lp in rest)
    one = alone([2], greedy(max_tokens=1, prompt_logprobs=0), vocab=VOCAB)
    assert one[0].prompt_logprobs == (None,)


def test_seconds_and_totals_add_up():
    engine, _ = hash_engine(VOCAB)
    request_id = engine.add(PROMPT, greedy(max_tokens=5))
    before = engine.stats.snapshot()
    outputs = finish_all(engine)[request_id]
    assert outputs[0].prefill_seconds > 0
    assert outputs[0].decode_seconds == 0
    decode = [output.decode_seconds for output in outputs]
    assert decode == sorted(decode)
    assert {output.prefill_seconds for output in outputs} == {outputs[0].prefill_seconds}
    s = engine.stats
    assert (s.steps, s.prefill_tokens, s.decode_tokens) == (5, 5, 5)
    assert 0 < s.model_seconds <= s.step_seconds
    assert s.outside_seconds == pytest.approx(s.step_seconds - s.model_seconds)
    assert (before.steps, before.requests_added) == (0, 1)


def test_requests_without_a_seed_differ():
    answers = set()
    for _ in range(4):
        answers.add(tuple(tokens_of(alone(PROMPT, SamplingParams(max_tokens=30), vocab=VOCAB))))
    assert len(answers) == 4
