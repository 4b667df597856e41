# SPDX-License-Identifier: Apache-2.0
"""Vocabularies that contradict themselves, special tokens, and where the begin token goes."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
import unicodedata
from collections.abc import Sequence

import pytest
from chat_data import (
    DATA,
    directory_checkpoint_tokenizer,
    directory_tokenizer,
    gguf_metadata_tokenizer,
    gguf_tokenizer,
    need,
)

from freehold.chat.bpe import BYTE_CHARACTERS
from freehold.chat.matcher import LiteralMatcher
from freehold.chat.pretokenizers import _DEEPSEEK_LETTERS, PRE_SPLITTERS, TokenizerWarning
from freehold.errors import TokenizerError, UnsupportedModelError

P = "tokenizer.ggml."


def spm(extra=(), **changes):
    """A small SentencePiece vocabulary: specials, all bytes, then pieces by falling score."""
    pieces = [("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("</s>", 3, 0.0)]
    pieces += [(f"<0x{b:02X}>", 6, 0.0) for b in range(256)]
    pieces += [
        (p, 1, -float(i)) for i, p in enumerate(["he", "▁he", "ll", "▁", "h", "e", "l", "o"])
    ]
    pieces += list(extra)
    metadata = {
        P + "model": "llama",
        P + "tokens": [p[0] for p in pieces],
        P + "token_type": [p[1] for p in pieces],
        P + "scores": [p[2] for p in pieces],
    }
    metadata.update({P + k: v for k, v in changes.items()})
    return {k: v for k, v in metadata.items() if v is not None}


def bpe(extra=(), merges=("h e", "l l"), **changes):
    """A small byte-level vocabulary with its merges."""
    pieces = [(c, 1) for c in BYTE_CHARACTERS] + [("he", 1), ("ll", 1), ("<|end|>", 3), *extra]
    metadata = {
        P + "model": "gpt2",
        P + "pre": "gpt-2",
        P + "tokens": [p[0] for p in pieces],
        P + "token_type": [p[1] for p in pieces],
        P + "merges": merges and list(merges),
        P + "eos_token_id": 258,
    }
    metadata.update({P + k: v for k, v in changes.items()})
    return {k: v for k, v in metadata.items() if v is not None}


def test_small_vocabularies_work():
    tokenizer = gguf_metadata_tokenizer(spm())
    assert [tokenizer.token_text(i) for i in tokenizer.encode("hello")] == ["<s>", "▁he", "ll", "o"]
    assert tokenizer.decode(tokenizer.encode("é!"), skip_special=True) == "é!"
    tokenizer = gguf_metadata_tokenizer(bpe())
    assert [tokenizer.token_text(i) for i in tokenizer.encode("hello")] == ["he", "ll", "o"]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "no tokenizer"),
        ({P + "model": "llama"}, "no tokenizer.ggml.tokens"),
        (spm(tokens=[]), "is empty"),
        (spm(tokens="abc"), "must be an array"),
        (spm(token_type=[1, 1]), "2 entries"),
        (spm(token_type=[9] * 267), "token type 9"),
        (spm(token_type=[-1] * 267), "no token type"),
        (spm(scores=[0.0]), "1 entries"),
        (spm(scores=None), "needs scores"),
        (spm(scores=[float("nan")] * 267), "not finite"),
        (spm(scores=["x"] * 267), "not a number"),
        (spm([("he", 1, 0.0)]), "twice"),
        (spm([("<0xZZ>", 6, 0.0)]), "not <0xNN>"),
        (spm([(7, 1, 0.0)]), "not text"),
        (spm([("x" * 70_000, 1, 0.0)]), "longer than"),
        (spm(bos_token_id=267), "outside the vocabulary"),
        (spm(eos_token_id=-7), "outside the vocabulary"),
        (spm(eot_token_id="x"), "whole number"),
        (spm(eom_token_id=True), "whole number"),
        (spm(add_bos_token="yes"), "true or false"),
        (bpe(merges=None), "without tokenizer.ggml.merges"),
        (bpe(merges=["h q", "hx e"]), "needs the token"),
        (bpe(merges=["he"]), "no pair"),
        (bpe(merges=["l o"]), "needs the token 'lo'"),
        (bpe(merges=["< |end|>"]), "needs the token"),
        (bpe(merges=[3]), "no pair"),
        (bpe(add_bos_token=True), "names no bos"),
        (bpe(add_eos_token=True, eos_token_id=None), "names no eos"),
        (bpe(pre="never-heard-of"), "never-heard-of"),
        (bpe(pre=7), "must be text"),
    ],
)
def test_contradictions_are_typed_errors(metadata, message):
    with pytest.raises(TokenizerError, match=message):
        gguf_metadata_tokenizer(metadata)


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "plamo2", 7])
def test_other_tokenizers_are_refused_by_name(model):
    with pytest.raises(UnsupportedModelError, match=str(model)):
        gguf_metadata_tokenizer({P + "model": model})


class _Endless:
    """A list that claims to be enormous; reading it would never end."""

    def __len__(self):
        return 2**31

    def __getitem__(self, index):
        return "x"


def test_an_enormous_vocabulary_is_refused_before_it_is_read():
    Sequence.register(_Endless)
    with pytest.raises(TokenizerError, match="more than the limit"):
        gguf_metadata_tokenizer(spm(tokens=_Endless()))


def test_an_absent_id_may_be_written_as_all_ones():
    tokenizer = gguf_metadata_tokenizer(spm(eot_token_id=0xFFFFFFFF, bos_token_id=0xFFFFFFFF))
    assert tokenizer.bos_id is None
    assert not tokenizer.add_bos


def test_a_missing_splitter_warns_and_an_override_silences():
    with pytest.warns(TokenizerWarning, match="splits text"):
        gguf_metadata_tokenizer(bpe(pre=None))
    assert gguf_metadata_tokenizer(bpe(pre=None), pre="llama-bpe").encode("he")
    with pytest.raises(TokenizerError, match="llama-bpe"):  # the hint lists the names
        gguf_metadata_tokenizer(bpe(pre="x"))


def test_a_byte_the_vocabulary_lacks_is_an_error_not_a_gap():
    metadata = bpe()
    index = metadata[P + "tokens"].index("z")
    metadata[P + "tokens"][index] = "zz-unused"
    tokenizer = gguf_metadata_tokenizer(metadata)
    assert tokenizer.encode("he")
    with pytest.raises(TokenizerError, match="0x7a"):
        tokenizer.encode("zoo")


# -- special tokens --------------------------------------------------------------------------


def test_control_tokens_match_only_when_asked():
    for tokenizer, text in (
        (gguf_metadata_tokenizer(spm()), "he</s>he"),
        (gguf_metadata_tokenizer(bpe()), "he<|end|>he"),
    ):
        special = tokenizer.special_ids()
        assert not special.intersection(tokenizer.encode(text, add_special=False))
        parsed = tokenizer.encode(text, add_special=False, parse_special=True)
        assert len(special.intersection(parsed)) == 1
        assert tokenizer.decode(parsed, skip_special=True).replace(" ", "") == "hehe"
        for i in special:
            assert tokenizer.token_bytes(i) == b""


def test_user_defined_tokens_always_match_and_the_longest_wins():
    tokenizer = gguf_metadata_tokenizer(bpe([("<think>", 4), ("<think>\n", 4), (" x ", 4)]))
    texts = [tokenizer.token_text(i) for i in tokenizer.encode("he<think>\n<think>he x he")]
    assert texts == ["he", "<think>\n", "<think>", "he", " x ", "he"]
    assert tokenizer.decode(tokenizer.encode("é <think> é")) == "é <think> é"
    # SentencePiece: matched in the escaped text, and no prefix is put behind.
    tokenizer = gguf_metadata_tokenizer(spm([("▁▁", 4, 0.0), ("<u>", 4, 0.0)]))
    texts = [tokenizer.token_text(i) for i in tokenizer.encode("he  <u>he", add_special=False)]
    assert texts == ["▁he", "▁▁", "<u>", "he"]


def test_ignore_merges_takes_a_whole_piece():
    pieces = [("hello", 1)]
    whole = gguf_metadata_tokenizer(bpe(pieces, pre="llama-bpe"))
    assert [whole.token_text(i) for i in whole.encode("hello", add_special=False)] == ["hello"]
    merged = gguf_metadata_tokenizer(bpe(pieces, pre="qwen2"))
    assert [merged.token_text(i) for i in merged.encode("hello")] == ["he", "ll", "o"]


def test_space_prefix_is_a_setting():
    with_prefix = gguf_metadata_tokenizer(spm())
    without = gguf_metadata_tokenizer(spm(add_space_prefix=False))
    ids = without.encode("he", add_special=False)
    assert [without.token_text(i) for i in ids] == ["he"]
    assert without.decode(without.encode(" he", add_special=False)) == " he"
    assert with_prefix.decode(with_prefix.encode(" he", add_special=False)) == " he"
    assert with_prefix.encode("") == [1]


def test_begin_and_end_tokens_come_once():
    tokenizer = gguf_metadata_tokenizer(spm(add_eos_token=True))
    assert tokenizer.encode("he")[0] == 1
    assert tokenizer.encode("he")[-1] == 2
    ids = tokenizer.encode("<s>he</s>", parse_special=True)
    assert ids.count(1) == ids.count(2) == 1
    assert gguf_metadata_tokenizer(spm(add_bos_token=False)).encode("he")[0] != 1


def test_every_end_token_is_known():
    metadata = bpe([("<|im_end|>", 3), ("<|x|>", 3), ("<|eot_id|>", 3)], eot_token_id=260)
    assert gguf_metadata_tokenizer(metadata).eos_ids == (258, 260, 259, 261)
    # A format whose <|end|> only closes a message goes on after it.
    metadata = bpe([("<|return|>", 3), ("<|call|>", 3)], eos_token_id=259)
    assert gguf_metadata_tokenizer(metadata).eos_ids == (259, 260)


def test_swallowed_white_space_of_the_phi3_family():
    tokenizer = gguf_tokenizer("phi-3")
    texts = [
        tokenizer.token_text(i)
        for i in tokenizer.encode("<|user|>\nHi<|end|>\n<|assistant|>\n", parse_special=True)
    ]
    assert texts == ["<s>", "<|user|>", "▁Hi", "<|end|>", "<|assistant|>"]


# -- directories -----------------------------------------------------------------------------


def test_qwen2_files():
    tokenizer = directory_tokenizer("qwen2")
    text = "<|im_start|>user\nhi<|im_end|>"
    ids = tokenizer.encode(text, parse_special=True)
    assert ids[0] == 151644
    assert ids[-1] == 151645
    assert 151645 in tokenizer.eos_ids
    assert 151643 in tokenizer.eos_ids
    assert tokenizer.decode(ids) == text
    assert 151644 not in tokenizer.encode(text)
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")


def small_directory(tmp_path, **files):
    vocab = {c: i for i, c in enumerate(BYTE_CHARACTERS)} | {"he": 256, "ll": 257}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\nl l\n", encoding="utf-8")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    return tmp_path


def test_end_tokens_come_from_every_file(tmp_path):
    added = {"<a>": 258, "<b>": 259, "<c>": 260}
    tokenizer = directory_checkpoint_tokenizer(
        small_directory(
            tmp_path,
            added_tokens=added,
            tokenizer_config={"eos_token": {"content": "<a>"}, "tokenizer_class": "GPT2Tokenizer"},
            generation_config={"eos_token_id": [259, 258]},
        ),
        {"eos_token_id": 260, "model_type": "gpt2"},
    )
    assert tokenizer.eos_ids == (258, 259, 260)
    assert tokenizer.encode("<a>", parse_special=True) == [258]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": "{"}, "not valid JSON"),
        ({"tokenizer_config": "[1]"}, "no JSON object"),
        ({"tokenizer_config": "[" * 100_000}, "not valid JSON"),
        ({"tokenizer_config": {"eos_token": "<nowhere>"}}, "not in the vocabulary"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "<a>"}}}}, "id -1"),
        ({"tokenizer_config": {"added_tokens_decoder": [1]}}, "no object"),
        ({"tokenizer_config": {"added_tokens_decoder": {"258": {}}}}, "without text"),
        ({"added_tokens": {"<a>": 5}}, "belongs to"),
        ({"added_tokens": {"he": 300}}, "twice"),
        ({"added_tokens": {"<a>": 2**40}}, "id 1099511627776"),
        ({"generation_config": {"eos_token_id": 9999}}, "outside the vocabulary"),
        ({"vocab": {"a": 0, "b": 0}}, "two tokens"),
        ({"vocab": {"a": 2**40}}, "beyond"),
        ({"vocab": {"a": "x"}}, "whole number|empty"),
        ({"vocab": {}}, "is empty"),
    ],
)
def test_broken_side_files(tmp_path, files, message):
    directory = small_directory(tmp_path, **files)
    with pytest.raises(TokenizerError, match=message):
        directory_checkpoint_tokenizer(directory, {"model_type": "qwen2"})


def test_directory_without_a_known_splitter_or_tokenizer(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer beside"):
        directory_checkpoint_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("a")
    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        directory_checkpoint_tokenizer(tmp_path)
    directory = small_directory(tmp_path)
    with pytest.raises(TokenizerError, match="how text is split"):
        directory_checkpoint_tokenizer(directory, {"model_type": "mystery"})
    assert directory_checkpoint_tokenizer(directory, pre="qwen2").encode("he") == [256]


def tokenizer_json(**changes):
    vocab = {c: i for i, c in enumerate(BYTE_CHARACTERS)} | {"he": 256}
    data = {
        "version": "1.0",
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0,
                       "direction": "Right"},
        "padding": None,
        "added_tokens": [
            {"id": 257, "content": "<s>", "special": True, "normalized": False,
             "single_word": False, "lstrip": False, "rstrip": False},
            {"id": 258, "content": "<t>", "special": False, "normalized": False,
             "single_word": False, "lstrip": False, "rstrip": False},
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [257], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": 0.5, "unk_token": None, "fuse_unk": False,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "byte_fallback": False, "vocab": vocab, "merges": ["h e"]},
    }  # fmt: skip
    data.update(changes)
    return data


def write_json(tmp_path, data):
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return tmp_path


def test_tokenizer_json(tmp_path):
    tokenizer = directory_checkpoint_tokenizer(write_json(tmp_path, tokenizer_json()))
    # The stored truncation to two tokens and the training dropout must not take effect.
    ids = tokenizer.encode("hehehe<s><t>")
    assert ids[:4] == [257, 256, 256, 256]
    assert ids[-1] == 258
    assert ids.count(257) == 1
    assert tokenizer.bos_id == 257
    assert tokenizer.add_bos
    assert tokenizer.decode(ids) == "<s>hehehe<s><t>"
    assert tokenizer.encode("<s>he", parse_special=True) == [257, 256]


def test_a_prefix_of_several_tokens(tmp_path):
    data = tokenizer_json()
    data["post_processor"]["single"] = [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
    ]
    tokenizer = directory_checkpoint_tokenizer(write_json(tmp_path, data))
    assert tokenizer.encode("he") == [257, 257, 256, 257]
    assert tokenizer.encode("<s><s>he<s>", parse_special=True) == [257, 257, 256, 257]
    assert tokenizer.encode("he", add_special=False) == [256]


def test_the_config_may_forbid_the_begin_token(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    tokenizer = directory_checkpoint_tokenizer(write_json(tmp_path, tokenizer_json()))
    assert tokenizer.encode("he") == [256]


def test_a_prefix_for_the_first_word_only(tmp_path):
    vocab = {"<s>": 0, "▁he": 1, "he": 2, "▁": 3, "h": 4, "e": 5}
    data = tokenizer_json(
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                       "split": False},
        decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                 "split": False},
        post_processor=None,
        added_tokens=[{"id": 0, "content": "<s>", "special": True, "normalized": False,
                       "single_word": False, "lstrip": False, "rstrip": False}],
        model=tokenizer_json()["model"] | {"vocab": vocab, "merges": ["h e", "▁ he"]},
    )  # fmt: skip
    tokenizer = directory_checkpoint_tokenizer(write_json(tmp_path, data))
    assert tokenizer.encode("he<s>he", parse_special=True) == [1, 0, 2]
    assert tokenizer.encode("<s>he", parse_special=True) == [0, 2]
    assert tokenizer.encode("he") == [1]
    assert tokenizer.decode([1, 1]) == "he he"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (tokenizer_json(model={"type": "WordPiece", "vocab": {"a": 0}}), UnsupportedModelError),
        (tokenizer_json(model={"type": "Unigram", "vocab": [["a", 0]]}), UnsupportedModelError),
        (tokenizer_json(model=None), UnsupportedModelError),
        (tokenizer_json(decoder=None, pre_tokenizer=None), UnsupportedModelError),
        (tokenizer_json(added_tokens=[{"id": 3, "content": "<s>"}]), TokenizerError),
        (tokenizer_json(added_tokens={}), TokenizerError),
        (tokenizer_json(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}),
         TokenizerError),
        (tokenizer_json(pre_tokenizer={"type": "Nonsense"}), TokenizerError),
        (tokenizer_json(model={"type": "BPE", "vocab": {}, "merges": []}, added_tokens=[],
                        post_processor=None), TokenizerError),
    ],
)  # fmt: skip
def test_broken_tokenizer_json(tmp_path, data, kind):
    with pytest.raises(kind):
        directory_checkpoint_tokenizer(write_json(tmp_path, data))


def test_damaged_sentencepiece_models(tmp_path):
    whole = need(DATA / "weights/stories260K/hf/tokenizer.model").read_bytes()
    path = tmp_path / "tokenizer.model"
    for cut in (0, 1, 2, 7, 100, len(whole) // 2 + 1, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises((TokenizerError, UnsupportedModelError)):
            directory_checkpoint_tokenizer(tmp_path)
    for seed in range(300):
        damaged = bytearray(whole)
        damaged[(seed * 7919) % len(whole)] ^= 1 << (seed % 8)
        damaged[(seed * 104729) % len(whole)] = (seed * 31) % 256
        path.write_bytes(damaged)
        with contextlib.suppress(TokenizerError, UnsupportedModelError):  # nothing else
            directory_checkpoint_tokenizer(tmp_path).encode("Once upon a time 🦙")


# -- pieces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PRE_SPLITTERS))
def test_every_splitter_keeps_every_character(name):
    splitter = PRE_SPLITTERS[name]
    text = "Hello, WORLD's  12345 \r\n\n\t漢字かな 한국어 Ünï\u0301 🦙!? (a_b) x=1; ｆｕｌｌ  "
    pieces = splitter.build().pre_tokenize_str(text)
    spelled = "".join(piece for piece, _ in pieces)
    if splitter.byte_level:
        table = {c: b for b, c in enumerate(BYTE_CHARACTERS)}
        spelled = bytes(table[c] for c in spelled).decode()
    assert spelled == text
    assert len(pieces) > 1


@pytest.mark.parametrize("name", sorted(PRE_SPLITTERS))
def test_long_runs_take_linear_time(name):
    splitter = PRE_SPLITTERS[name].build()
    start = time.process_time()
    for run in (" ", "A", "a", "1", "!", "\n", " \n", "\r", "漢", "'s", "\u0301", "Aa", "\u3000"):
        splitter.pre_tokenize_str("x" + run * 20_000 + "x")
    assert time.process_time() - start < 20  # each quadratic run would take that alone


def test_a_splitter_that_backtracks_for_ever_is_a_typed_error(tmp_path):
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated",
             "invert": False}  # fmt: skip
    byte_level = tokenizer_json()["pre_tokenizer"]
    data = tokenizer_json(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, byte_level]})
    tokenizer = directory_checkpoint_tokenizer(write_json(tmp_path, data))
    with pytest.raises(TokenizerError, match="cannot be tokenised"):
        tokenizer.encode("a" * 40 + "b")
    assert tokenizer.encode("he")[-1] == 256  # and the tokenizer still works


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("llama-bpe", "I'LL go 12345!", ["I", "'LL", " go", " ", "123", "45", "!"]),
        ("qwen2", "I'll go 123", ["I", "'ll", " go", " ", "1", "2", "3"]),
        ("gpt-2", "I'LL 12345 a", ["I", "'", "LL", " 12345", " a"]),
        ("smollm", "a 12", ["a", " ", "1", "2"]),
        ("tekken", "helloWorld/x 12", ["hello", "World", "/x", " ", "1", "2"]),
        ("tekken", "x !\n/y", ["x", " !\n/", "y"]),
        ("gpt-4o", "HelloWorld's 1234", ["Hello", "World's", " ", "123", "4"]),
        ("gpt-4o", "x !\n/y", ["x", " !\n/", "y"]),
        ("qwen2", "x !\n/y", ["x", " !\n", "/y"]),
        ("deepseek-v3", "a漢字b 1234#x", ["a", "漢字", "b", " ", "123", "4", "#x"]),
        ("deepseek-v3", "abひらカナ漢c", ["ab", "ひらカナ漢", "c"]),
        ("deepseek-llm", "ab 123\n漢字", ["ab", " ", "123", "\n", "漢字"]),
        # Capitals of Armenian are on the vendor's list, small letters are not; no accents either.
        ("deepseek-llm", "Ժա жЩ ǅλ e\u0301", ["Ժ", "ա", " жЩ", " ǅλ", " e", "\u0301"]),
        ("deepseek-llm", "x  a。b ", ["x", " ", " a", "。", "b", " "]),
        ("deepseek-coder", "ab 12\n漢字", ["ab", " ", "1", "2", "\n", "漢字"]),
        ("qwen35", "e\u0301a 1", ["e\u0301a", " ", "1"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
    ],
)
def test_splitters_cut_where_they_should(name, text, pieces):
    cuts = PRE_SPLITTERS[name].build().pre_tokenize_str(text)
    assert [text[a:b] for _, (a, b) in cuts] == pieces


def test_the_letters_of_deepseek_llm_are_as_many_as_the_vendors():
    letters = re.compile(f"[{_DEEPSEEK_LETTERS}]")
    found = [chr(i) for i in range(sys.maxunicode + 1) if letters.match(chr(i))]
    assert len(found) == 2729  # counted in the list of the vendor's tokenizer.json
    assert {unicodedata.category(c) for c in found} <= {"Lu", "Ll", "Lt"}


def test_gemma4_writes_spaces_as_marks_and_falls_back_to_bytes():
    pieces = [("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 2)]
    pieces += [(f"<0x{b:02X}>", 6) for b in range(256)]
    pieces += [(p, 1) for p in ["h", "e", "▁", "he", "▁he", "\n"]]
    tokenizer = gguf_metadata_tokenizer(
        {
            P + "model": "gemma4",
            P + "tokens": [p[0] for p in pieces],
            P + "token_type": [p[1] for p in pieces],
            P + "merges": ["h e", "▁ he"],
            P + "bos_token_id": 2,
            P + "eos_token_id": 1,
            P + "add_bos_token": True,
        }
    )
    ids = tokenizer.encode("he he\né")
    texts = [tokenizer.token_text(i) for i in ids]
    assert texts == ["<bos>", "he", "▁he", "\n", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids, skip_special=True) == "he he\né"


def test_matcher_is_leftmost_longest():
    matcher = LiteralMatcher(["ab", "abcd", "bc", "d"])
    assert list(matcher.finditer("xabcabcdd")) == [(1, 3), (4, 8), (8, 9)]
    assert list(matcher.finditer("abcd", 0, 3)) == [(0, 2)]
    assert list(LiteralMatcher([]).finditer("abc")) == []


def test_hostile_special_tokens_are_bounded():
    with pytest.raises(TokenizerError, match="special tokens are longer"):
        LiteralMatcher(["a" * 2000])
    start = time.process_time()
    assert list(LiteralMatcher(["a" * 999 + "b"]).finditer("a" * 5000)) == []
    assert time.process_time() - start < 5
