# SPDX-License-Identifier: Apache-2.0
"""Prefixes on disk: found again, bit for bit, and never believed when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from freehold import backends
from freehold.engine.kv_snapshot import Block, SnapshotStore
from freehold.engine.sequence import ROOT_HASH, hash_block
from freehold.errors import InvalidParameterError
from freehold.llm import LLM
from freehold.ops import KVLayerSpec
from freehold.types import SamplingParams

PROMPT = [int(t) for t in np.random.default_rng(7).integers(10, 400, 2016)]
GREEDY = SamplingParams(max_tokens=4, temperature=0.0, logprobs=3)
LAYERS = [
    KVLayerSpec(2, 64, 32),
    KVLayerSpec(1, 96, 0),  # latent
    KVLayerSpec(2, 32, 32, window=40),
    KVLayerSpec(1, 32, 32, rows=True),
    KVLayerSpec(1, 64, 0, rows=True, stride=4),
]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_blocks_come_back_as_they_were(backend: str, dtype: str) -> None:
    ops = backends.create(backend)
    one, two = (ops.alloc_kv(LAYERS, (8, 5), 16, dtype) for _ in range(2))  # type: ignore[arg-type]
    random = np.random.default_rng(3)
    for group, count in ((0, 8), (1, 5)):
        blocks = np.arange(count, dtype=np.int32)
        size = ops.read_blocks(one, group, blocks).shape[1]
        data = random.integers(0, 255, (count, size), np.uint8)
        ops.write_blocks(one, group, blocks, data)
        assert np.array_equal(ops.read_blocks(one, group, blocks), data)
        some = np.array([3, 1], np.int32)
        ops.write_blocks(two, group, some, data[some])
        assert np.array_equal(ops.read_blocks(two, group, some), data[some])
        assert not ops.read_blocks(two, group, np.array([0, 2, 4], np.int32)).any()
        # what a block is read as is what `copy_blocks` copies
        ops.copy_blocks(two, group, np.array([3], np.int32), np.array([0], np.int32))
        assert np.array_equal(ops.read_blocks(two, group, np.array([0], np.int32))[0], data[3])
        for bad in (np.array([count], np.int32), np.array([-1], np.int32)):
            with pytest.raises((InvalidParameterError, IndexError)):
                ops.write_blocks(one, group, bad, data[:1])
        with pytest.raises(InvalidParameterError):
            ops.write_blocks(one, group, some, data[:2, :-1])


def open_llm(directory: Path | None, **given: object) -> LLM:
    return LLM(
        "seedling", threads=1, context_length=2048, max_num_seqs=4, snapshot_dir=directory, **given  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_a_prefix_survives_a_restart(tmp_path: Path, dtype: str) -> None:
    with open_llm(tmp_path, kv_dtype=dtype) as llm:
        first = llm.generate(PROMPT, GREEDY)
        computed = llm.engine.stats.prefill_tokens
    with open_llm(tmp_path, kv_dtype=dtype) as llm:
        again = llm.generate(PROMPT, GREEDY)
        assert llm.engine.stats.prefill_tokens <= computed // 10
        llm.engine.pools[0].check()
        assert all(llm.engine.pools[0].references(b) == 0 for b in range(4))
    assert again.cached_tokens >= 2000
    assert (again.token_ids, again.logprobs) == (first.token_ids, first.logprobs)  # bit for bit
    assert {oct(f.stat().st_mode & 0o777) for f in tmp_path.glob("*/*")} == {"0o600"}
    assert {oct(d.stat().st_mode & 0o777) for d in tmp_path.iterdir()} == {"0o700"}
    other = "q8_0" if dtype == "f16" else "bf16"
    with open_llm(tmp_path, kv_dtype=other) as llm:  # what depends on the type is not mixed up
        assert llm.generate(PROMPT[:600], GREEDY).cached_tokens == 0


def _flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize(
    "harm",
    [
        _flip,
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"x" * file.stat().st_size),
    ],
    ids=["flipped", "short", "empty", "gone", "foreign"],
)
def test_a_file_that_is_wrong_costs_time_and_nothing_else(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    prompt = PROMPT[:500]
    with open_llm(tmp_path) as llm:
        first = llm.generate(prompt, GREEDY)
    with open_llm(tmp_path) as llm:
        tenth = llm.engine  # the names of blocks are hashes of their tokens
        assert tenth.pools[0].num_cached == 0
        digest = ROOT_HASH
        for i in range(10):
            part = np.array(prompt[i * 16 : i * 16 + 16], "<i4").tobytes()
            digest = hash_block(digest, part)
        (file,) = tmp_path.glob(f"*/0-{digest.hex()}.kv")
        harm(file)
        again = llm.generate(prompt, GREEDY)
    assert again.cached_tokens == 9 * 16
    assert again.logprobs == first.logprobs


def test_a_short_prompt_is_not_kept(tmp_path: Path) -> None:
    with open_llm(tmp_path) as llm:
        llm.generate(PROMPT[:200], GREEDY)
    assert not list(tmp_path.glob("*/*"))


def test_a_full_cache_restores_what_it_can(tmp_path: Path) -> None:
    with open_llm(tmp_path) as llm:
        first = llm.generate(PROMPT[:1000], GREEDY)
    with open_llm(tmp_path) as llm:
        engine = llm.make_engine(num_blocks=64, max_num_seqs=2)
        wanted = first.token_ids
        for _ in range(2):
            engine.add(PROMPT[:1000], GREEDY, request_id="r")
            got: list[int] = []
            while engine.has_unfinished():
                for out in engine.step():
                    got.extend(out.new_token_ids)
            assert tuple(got) == wanted
            engine.add(PROMPT[1000:1900], GREEDY, request_id="s")
            while engine.has_unfinished():
                engine.step()
            engine.pools[0].check()


def test_the_directory_stays_within_its_limit(tmp_path: Path) -> None:
    def block(i: int) -> Block:
        tokens = np.full(16, i, "<i4").tobytes()
        return Block(0, hash_block(ROOT_HASH, tokens), ROOT_HASH, tokens, bytes(1000))

    store = SnapshotStore(tmp_path, bytes(16), 10_000)
    for i in range(40):
        assert store.save(block(i))
        store.flush()
    store.close()
    files = list(tmp_path.glob("*/*"))
    assert len(files) >= 5
    assert sum(file.stat().st_size for file in files) <= 10_000
    store = SnapshotStore(tmp_path, bytes(16), 10_000)
    newest, oldest = block(39), block(0)
    assert store.load(0, newest.digest, newest.parent, newest.tokens, 1000) == bytes(1000)
    assert not store.has(0, oldest.digest)
    store.close()


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(InvalidParameterError, match="others may write"):
        open_llm(tmp_path)


def test_prefixes_are_shared_among_those_with_the_same_salt_only(tmp_path: Path) -> None:
    def ask(llm: LLM, salt: bytes) -> tuple[int, tuple[int, ...]]:
        name = llm.engine.add(PROMPT[:640], GREEDY, salt=salt)
        cached, ids = 0, list[int]()
        while llm.engine.has_unfinished():
            for output in llm.engine.step():
                assert output.request_id == name
                cached = max(cached, output.cached_tokens)
                ids += output.new_token_ids
        return cached, tuple(ids)

    with open_llm(tmp_path) as llm:
        answers = [ask(llm, salt) for salt in (b"", b"alice", b"bob", b"alice", b"")]
        assert [cached > 600 for cached, _ in answers] == [False, False, False, True, True]
        assert len({ids for _, ids in answers}) == 1
    with open_llm(tmp_path) as llm:
        answers += [ask(llm, salt) for salt in (b"eve", b"alice")]
        assert [cached > 600 for cached, _ in answers[-2:]] == [False, True]
        assert len({ids for _, ids in answers}) == 1
