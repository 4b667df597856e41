# SPDX-License-Identifier: Apache-2.0
"""`tekken.json` against a plain statement of its rule, and files that break it."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import random
import time

import pytest
from chat_data import directory_checkpoint_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from freehold.chat.pretokenizers import PRE_SPLITTERS
from freehold.chat.tekken import RankEncoder
from freehold.errors import TokenizerError

PATTERN = PRE_SPLITTERS["tekken"].passes[0]
SPECIALS = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]"]


def _ranks():
    """Bytes, then strings joined out of earlier ones: many ways to one string, many ties."""
    chance = random.Random(3)
    ranks = [bytes([b]) for b in range(256)]
    alphabet = [b"a", b"b", b" ", b"\xc3", b"\xa9", b"1", b"\xf0\x9f", b"\xa6\x99"]
    ranks.append(b"\xf0\x9f")
    ranks.append(b"\xa6\x99")
    while len(ranks) < 330:
        new = chance.choice(alphabet + ranks[256:]) + chance.choice(alphabet + ranks[256:])
        if new not in ranks and len(new) <= 6:
            ranks.append(new)
    return ranks


RANKS = _ranks()
FILE = {
    "config": {
        "pattern": PATTERN,
        "default_vocab_size": len(RANKS) + 20,
        "default_num_special_tokens": 20,
        "version": "v13",
    },
    "vocab": [
        {"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None}
        for i, t in enumerate([*RANKS, b"unused", b"more"])
    ],
    "special_tokens": [
        {"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(SPECIALS)
    ],
}


def _tokenizer(tmp_path, data=FILE, **files):
    (tmp_path / "tekken.json").write_text(json.dumps(data), encoding="utf-8")
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory_checkpoint_tokenizer(tmp_path)


def _by_the_rule(text):
    """Join the neighbours of lowest joint rank, the leftmost first, until none has one."""
    ids = []
    for piece, _ in pre_tokenizers.Split(Regex(PATTERN), "isolated").pre_tokenize_str(text):
        parts = [bytes([b]) for b in piece.encode()]
        while True:
            joint = [
                (RANKS.index(a + b), i)
                for i, (a, b) in enumerate(itertools.pairwise(parts))
                if a + b in RANKS
            ]
            if not joint or piece.encode() in RANKS:
                break
            _, i = min(joint)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if piece.encode() in RANKS:
            parts = [piece.encode()]
        ids += [20 + RANKS.index(p) for p in parts]
    return ids


def test_the_rule(tmp_path):
    tokenizer = _tokenizer(tmp_path)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.sampled_from([*"abab 1é🦙\n", "aab", "[INST]"])).map("".join))
    def check(text):
        ids = tokenizer.encode(text, add_special=False)
        assert ids == _by_the_rule(text)
        assert tokenizer.decode(ids) == text
        assert not tokenizer.special_ids().intersection(ids)

    check()


def test_special_tokens_and_ends(tmp_path):
    tokenizer = _tokenizer(tmp_path, generation_config={"eos_token_id": [2, 7]})
    ids = tokenizer.encode("[INST]a[/INST]", parse_special=True)
    assert ids == [1, 3, 20 + ord("a"), 4]
    assert tokenizer.eos_ids == (2, 7)
    assert tokenizer.token_text(7) == "<SPECIAL_7>"
    assert tokenizer.vocab_size == len(RANKS) + 20


def test_an_old_file_does_not_list_its_special_tokens(tmp_path):
    data = {k: v for k, v in FILE.items() if k != "special_tokens"}
    tokenizer = _tokenizer(tmp_path, data)
    assert [tokenizer.token_text(i) for i in (1, 9, 19)] == [
        "<s>",
        "[TOOL_CALLS]",
        "[TOOL_CONTENT]",
    ]


def _broken(change):
    data = copy.deepcopy(FILE)
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("config"), "no config"),
        (lambda d: d["config"].update(pattern="("), "pattern"),
        (lambda d: d["config"].update(pattern=5), "pattern"),
        (lambda d: d["config"].update(default_vocab_size=2**40), "default_vocab_size"),
        (lambda d: d["config"].update(default_num_special_tokens=10**6), "special tokens"),
        (lambda d: d["vocab"].pop(0), "entry 0"),
        (lambda d: d["vocab"][5].update(token_bytes="?"), "token 5"),
        (lambda d: d["vocab"][5].update(token_bytes=d["vocab"][4]["token_bytes"]), "token 5"),
        (lambda d: d["config"].update(default_vocab_size=120), "byte 0x"),
        (lambda d: d.update(vocab=None), "vocab"),
        (lambda d: d["special_tokens"][0].update(rank=20), "rank 20"),
        (lambda d: d["special_tokens"][0].update(token_str="</s>"), "twice"),
    ],
)
def test_broken_files(tmp_path, change, message):
    with pytest.raises(TokenizerError, match=message):
        _tokenizer(tmp_path, _broken(change))


def test_a_long_piece_takes_n_log_n():
    encoder = RankEncoder({t: i for i, t in enumerate(RANKS)}, PATTERN, 0)
    start = time.process_time()
    assert len(encoder.encode("ab" * 20_000)) > 1000
    assert time.process_time() - start < 5  # a quadratic loop would take minutes
