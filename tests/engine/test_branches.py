# SPDX-License-Identifier: Apache-2.0
"""Branches of a prompt give the numbers of whole requests, to the last bit, wherever blocks end,
however few there are and whoever else is there; and no block stays behind."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

import tiny_adapters
import tiny_gemma
import tiny_models
from devices import open_device
from freehold.config import EngineConfig
from freehold.engine.branches import Branch
from freehold.engine.engine import Engine
from freehold.engine.measuring import Measurement
from freehold.errors import CapacityError, ContextLengthError, EngineError, InvalidParameterError
from freehold.formats.adapter_file import open_adapter
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.adapters import load_adapter
from freehold.models.loader import load_model
from freehold.types import SamplingParams

CASES = ["llama-wide-heads", "gemma2"]
TARGETS, ENDINGS = (3, 8, 5), (1, 2)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    root = tmp_path_factory.mktemp("branches")

    @functools.cache
    def load(case):
        path = root / f"{case}.gguf"
        maker = tiny_gemma if case in tiny_gemma.CASES else tiny_models
        maker.write_gguf(
            maker.build(case if maker is tiny_gemma else maker.CASES[case]), path, "F32"
        )
        ops = open_device(("cpu", {"threads": 1}))
        with open_checkpoint(path) as checkpoint:
            model = load_model(checkpoint, ops)
            adapter = None
            if maker is tiny_models:
                made = tiny_adapters.write_for(path, root / "adapter.gguf")
                with open_adapter(made) as file:
                    adapter = load_adapter(file, "a", checkpoint, model, ops)
        return model, ops, adapter

    return load


@pytest.fixture(params=CASES)
def make(load, request):
    def make(**config):
        model, ops, _ = load(request.param)
        settings = {"context_length": 320, "num_blocks": 60, "kv_dtype": "f16"}
        return Engine(model, ops, EngineConfig(**(settings | config)))

    return make


def roots():
    """Prompts that end before, at and behind the end of a block, with a beginning in common."""
    shared = tiny_models.prompt(seed=1, length=120)
    return [shared[:length] for length in (33, 47, 48, 49, 111)]


def paths():
    return [[7], [7, 9], [4, 6, 2], tiny_models.prompt(seed=6, length=17)]


def whole(engine, prompt, path, known, adapter=None):
    """The same numbers from a request of its own."""
    wanted = Measurement([*prompt, *path], "next", len(prompt) + known, ENDINGS, TARGETS)
    return engine.measure([wanted], adapter=adapter)[0]


def root(prompt):
    return Measurement(prompt, "next", len(prompt), ENDINGS, TARGETS)


def check_books(engine):
    for pool in engine.pools:
        pool.check()
        assert pool.num_held == 0


def explored(engine, prompts, adapter=None):
    """Numbers of all branches of all prompts, in as many goes as it takes."""
    found, goes, todo = {}, 0, list(range(len(prompts)))
    while todo:
        with engine.branches(adapter) as branches:
            trunks = branches.grow([root(prompts[i]) for i in todo], 17)
            made = {i: trunk for i, trunk in zip(todo, trunks, strict=True) if trunk}
            assert made
            goes += 1
            wanted = [
                (i, n, known) for i in made for n, p in enumerate(paths()) for known in {1, len(p)}
            ]
            numbers = branches.measure(
                [Branch(made[i], paths()[n], known, TARGETS, ENDINGS) for i, n, known in wanted]
            )
            found |= dict(zip(wanted, [each.numbers for each in numbers], strict=True))
            found |= {(i, -1, 0): trunk.numbers for i, trunk in made.items()}
        check_books(engine)
        todo = [i for i in todo if i not in made]
    return found, goes


def expected(engine, prompts, adapter=None):
    found = {
        (i, n, known): whole(engine, prompt, path, known, adapter)
        for i, prompt in enumerate(prompts)
        for n, path in enumerate(paths())
        for known in {1, len(path)}
    }
    return found | {(i, -1, 0): whole(engine, p, [], 0, adapter) for i, p in enumerate(prompts)}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, numbers in wanted.items():
        np.testing.assert_array_equal(found[key], numbers)


def test_branches_are_whole_requests(make):
    wanted = expected(make(prefix_caching=False), roots())
    engine = make()
    steps = engine.stats.steps
    found, goes = explored(engine, roots())
    assert_same(found, wanted)
    assert goes == 1
    assert engine.stats.steps - steps < 6  # and not one per branch
    assert engine.stats.requests_added == len(roots())
    again, _ = explored(engine, roots())
    assert_same(again, wanted)
    assert_same(explored(make(prefix_caching=False), roots())[0], wanted)


@pytest.mark.parametrize("blocks", [8, 9, 11, 16])
@pytest.mark.parametrize("caching", [True, False])
def test_few_blocks_make_several_goes_of_the_same_numbers(make, blocks, caching):
    prompts = [tiny_models.prompt(seed=seed, length=96 + seed) for seed in range(4)]
    wanted = expected(make(), prompts)
    engine = make(num_blocks=blocks, max_num_batched_tokens=24, prefix_caching=caching)
    found, goes = explored(engine, prompts)
    assert_same(found, wanted)
    assert goes > 1


def test_a_prompt_that_fills_the_cache_still_has_branches(load):
    model, ops, _ = load("llama-wide-heads")
    prompt = tiny_models.prompt(seed=3, length=45)
    settings = {"context_length": 320, "num_blocks": 3, "kv_dtype": "f16"}
    engine = Engine(model, ops, EngineConfig(**settings))
    roomy = Engine(model, ops, EngineConfig(**settings | {"num_blocks": 9}))
    with engine.branches() as branches:
        (trunk,) = branches.grow([root(prompt)], 3)
        for path in ([4, 6, 2], [7], [4, 6, 2]):  # what one leaves behind does not count
            (got,) = branches.measure([Branch(trunk, path, 1, TARGETS, ENDINGS, keep=True)])
            assert got.trunk is None
            np.testing.assert_array_equal(got.numbers, whole(roomy, prompt, path, 1))
        with pytest.raises(CapacityError):
            branches.measure([Branch(trunk, [1, 2, 3, 4], 1, TARGETS)])
    check_books(engine)


def test_branches_of_branches(make):
    engine, prompts = make(num_blocks=120), roots()
    path = tiny_models.prompt(seed=7, length=40)
    cuts = [0, 1, 2, 14, 15, 16, 17, 33, 40]
    with engine.branches() as branches:
        trunks = branches.grow([root(prompt) for prompt in prompts], 20)
        for begin, end in itertools.pairwise(cuts):
            found = branches.measure(
                [Branch(t, path[begin:end], 1, TARGETS, ENDINGS, keep=True) for t in trunks]
            )
            branches.drop(trunks)  # they need not outlive their branches
            trunks = [each.trunk for each in found]
            (twice, again) = branches.measure(
                [Branch(trunks[0], [7], 1, TARGETS), Branch(trunks[0], [7], 1, TARGETS)]
            )
            np.testing.assert_array_equal(twice.numbers, again.numbers)
            for prompt, each in zip(prompts, found, strict=True):
                want = whole(make(), [*prompt, *path[:begin]], path[begin:end], 1)
                np.testing.assert_array_equal(each.numbers, want)
    check_books(engine)


def test_branches_under_an_adapter(load):
    model, ops, adapter = load("llama-wide-heads")
    engine = Engine(model, ops, EngineConfig(320, num_blocks=60, kv_dtype="f16"))
    plain, _ = explored(engine, roots())
    found, _ = explored(engine, roots(), adapter)
    assert_same(found, expected(engine, roots(), adapter))
    assert all((found[key] != numbers).any() for key, numbers in plain.items())


def test_other_requests_lose_nothing(make):
    params = SamplingParams(temperature=0.0, max_tokens=30)
    prompts = [tiny_models.prompt(seed=seed, length=60) for seed in (11, 12)]

    def answers(engine, meanwhile):
        ids = [engine.add(prompt, params) for prompt in prompts]
        found = {name: [] for name in ids}
        engine.step()
        numbers = meanwhile(engine)
        while engine.has_unfinished():
            for output in engine.step():
                found[output.request_id] += output.new_token_ids
        return [*found.values()], numbers

    def beside(engine):
        with engine.branches() as branches:
            trunks = [t for t in branches.grow([root(p) for p in roots()], 1) if t]
            return branches.measure([Branch(t, [7], 1, TARGETS, ENDINGS) for t in trunks])

    alone, _ = answers(make(), lambda engine: None)
    for blocks in (60, 14):
        engine = make(num_blocks=blocks, max_num_batched_tokens=32)
        found, numbers = answers(engine, beside)
        assert [tokens[-29:] for tokens in found] == [tokens[-29:] for tokens in alone]
        for prompt, got in zip(roots(), numbers, strict=False):
            np.testing.assert_array_equal(got.numbers, whole(make(), prompt, [7], 1))
        check_books(engine)


def test_a_branch_waits_for_blocks_that_others_hold(load):
    model, ops, _ = load("llama-wide-heads")
    engine = Engine(model, ops, EngineConfig(320, num_blocks=9, kv_dtype="f16"))
    other, prompt, path = (tiny_models.prompt(seed=n, length=n) for n in (70, 40, 25))
    with engine.branches() as branches:
        (trunk,) = branches.grow([root(prompt)], 25)
        name = engine.add(other, SamplingParams(temperature=0.0, max_tokens=20))
        engine.step()
        assert engine.pools[0].num_free == 1
        (got,) = branches.measure([Branch(trunk, path, 1, TARGETS, ENDINGS)])
        np.testing.assert_array_equal(got.numbers, whole(make_roomy(load), prompt, path, 1))
    outputs = []
    while engine.has_unfinished():
        outputs += engine.step()
    assert sum(len(output.new_token_ids) for output in outputs if output.request_id == name) == 19
    check_books(engine)


def make_roomy(load):
    model, ops, _ = load("llama-wide-heads")
    return Engine(model, ops, EngineConfig(320, num_blocks=60, kv_dtype="f16"))


def test_nothing_is_left_behind_by_what_fails(make, monkeypatch):
    engine = make()
    with pytest.raises(ContextLengthError), engine.branches() as branches:
        branches.grow([root(roots()[0]), root([1] * 400)], 4)
    check_books(engine)
    with engine.branches() as branches:
        (trunk,) = branches.grow([root(roots()[0])], 4)
        for path, known in (([7], 0), ([7], 2), ([], 1)):
            with pytest.raises(InvalidParameterError):
                branches.measure([Branch(trunk, path, known, TARGETS)])
        with monkeypatch.context() as patch:
            patch.setattr(engine._runner.ops, "copy_blocks", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                branches.measure([Branch(trunk, [7], 1, TARGETS)])
        with monkeypatch.context() as patch:
            nothing = np.full((2, engine._vocab_size), np.nan, np.float32)
            patch.setattr(engine._runner, "logits", lambda hidden: nothing[: len(hidden)])
            with pytest.raises(EngineError, match="not a number"):
                branches.measure([Branch(trunk, [7], 1, TARGETS)])
            with pytest.raises(EngineError, match="not a number"):
                branches.grow([root(roots()[1]), root(roots()[4])], 4)
        branches.drop([trunk])
        with pytest.raises(InvalidParameterError):
            branches.measure([Branch(trunk, [7], 1, TARGETS)])
    check_books(engine)
