# SPDX-License-Identifier: Apache-2.0
"""Tokenizer files as GGUF keys: splitters by name, merges, scores, special tokens, templates."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

import tiny_gemma
import tiny_models
from freehold import LLM, SamplingParams
from freehold.chat.pretokenizers import PRE_SPLITTERS
from freehold.chat.sentencepiece_model import read_sentencepiece_model
from freehold.chat.tokenizer import load_tokenizer, tokenizer_from_gguf
from freehold.cli.main import run
from freehold.convert.splitters import splitter_names
from freehold.convert.tokenizer import chat_templates, tokenizer_keys
from freehold.errors import TokenizerError, UnsupportedModelError
from freehold.quantize import quantize

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the shared conformance data (../shared/data) is absent"
)
TEXT = [
    "The quick brown fox jumps over 12 lazy dogs, doesn't it? I'LL say so 12345 times.",
    "naïve café Жизнь хороша 你好，世界 日本語 🚀 (parentheses) [brackets] x = y**2\n\n\tend",
] * 4
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # noqa: E501
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"]


def byte_level(splitters, *, ignore_merges=False, nfc=False, bos=True) -> Tokenizer:
    """A small trained vocabulary with the given pre-tokenizers."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre.Sequence(splitters)
    tokenizer.decoder = decoders.ByteLevel()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    trainer = BpeTrainer(
        vocab_size=400, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    if bos:
        bos_id = tokenizer.token_to_id(SPECIALS[0])
        tokenizer.post_processor = TemplateProcessing(
            single=f"{SPECIALS[0]} $A", special_tokens=[(SPECIALS[0], bos_id)]
        )
    return tokenizer


def split(expression: str):
    return pre.Split(Regex(expression), "isolated")


def raw_bytes():
    return pre.ByteLevel(add_prefix_space=False, use_regex=False)


def write(folder: Path, library: Tokenizer | None, /, **side_files) -> SimpleNamespace:
    """A directory with tokenizer files, as the part of a checkpoint that tokenizers need."""
    folder.mkdir(exist_ok=True)
    if library is not None:
        library.save(str(folder / "tokenizer.json"))
    for name, content in side_files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return SimpleNamespace(
        directory=folder, format="safetensors", metadata=side_files.get("config", {})
    )


def same_ids(checkpoint, keys, texts=TEXT) -> None:
    original, copy = load_tokenizer(checkpoint), tokenizer_from_gguf(keys)
    for text in texts:
        assert original.encode(text) == copy.encode(text), text
        ids = original.encode(text)
        assert original.decode(ids) == copy.decode(ids)


SPLITTERS = {
    "llama-bpe": ([split(GPT4 % r"\p{N}{1,3}"), raw_bytes()], {"ignore_merges": True}),
    "dbrx": ([split(GPT4 % r"\p{N}{1,3}"), raw_bytes()], {}),
    "qwen2": ([split(GPT4 % r"\p{N}"), raw_bytes()], {"nfc": True}),
    "deepseek-r1-qwen": ([split(GPT4 % r"\p{N}"), raw_bytes()], {}),
    "gpt-2": ([pre.ByteLevel(add_prefix_space=False)], {}),
    "smollm": ([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)], {}),
    "tekken": ([split(PRE_SPLITTERS["tekken"].passes[0]), raw_bytes()], {"ignore_merges": True}),
    "deepseek-v3": ([*map(split, PRE_SPLITTERS["deepseek-v3"].passes), raw_bytes()], {}),
    "deepseek-coder": (
        [
            *map(split, PRE_SPLITTERS["deepseek-coder"].passes[:-1]),
            pre.Digits(individual_digits=True), raw_bytes(),
        ],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITTERS)
def test_the_splitter_is_recognised_and_the_ids_stay(name, tmp_path):
    steps, options = SPLITTERS[name]
    tokenizer = byte_level(steps, **options)
    checkpoint = write(tmp_path, tokenizer)
    rows = tokenizer.get_vocab_size() + 11
    keys = tokenizer_keys(checkpoint, rows).metadata
    assert keys["tokenizer.ggml.model"] == "gpt2"
    assert keys["tokenizer.ggml.pre"] == name
    assert len(keys["tokenizer.ggml.tokens"]) == len(keys["tokenizer.ggml.token_type"]) == rows
    assert keys["tokenizer.ggml.tokens"][-1] == f"[PAD{rows - 1}]"
    assert keys["tokenizer.ggml.token_type"][-1] == 5
    same_ids(checkpoint, keys)


def test_an_unknown_splitter_is_refused(tmp_path):
    checkpoint = write(tmp_path, byte_level([split(r"\w+|\W+"), raw_bytes()]))
    with pytest.raises(UnsupportedModelError, match="no name in GGUF"):
        tokenizer_keys(checkpoint, 600)


def test_a_normaliser_gguf_cannot_say_is_refused(tmp_path):
    """The splitter fits, but text is lower-cased first: read back, the ids would differ."""
    tokenizer = byte_level(SPLITTERS["llama-bpe"][0], ignore_merges=True)
    tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(UnsupportedModelError, match="cannot be expressed in GGUF"):
        tokenizer_keys(write(tmp_path, tokenizer), 600)


def test_more_tokens_than_rows_is_refused(tmp_path):
    checkpoint = write(tmp_path, byte_level(SPLITTERS["gpt-2"][0]))
    with pytest.raises(TokenizerError, match="300 rows"):
        tokenizer_keys(checkpoint, 300)


@pytest.mark.parametrize(
    "node",
    [None, 7, [], {}, {"type": "Sequence"}, {"type": "Split"}, {"type": "Split", "pattern": 3},
     {"type": "Sequence", "pretokenizers": [{"type": "Sequence"}] * 3}],
)  # fmt: skip
def test_odd_splitters_have_no_name(node):
    assert splitter_names({"pre_tokenizer": node, "model": None, "normalizer": node}) == []


def test_special_tokens_and_every_end_token(tmp_path):
    tokenizer = byte_level(SPLITTERS["llama-bpe"][0], ignore_merges=True)
    ids = {text: tokenizer.token_to_id(text) for text in SPECIALS}
    checkpoint = write(
        tmp_path, tokenizer,
        tokenizer_config={"bos_token": SPECIALS[0], "eos_token": {"content": "<|eot_id|>"},
                          "pad_token": SPECIALS[1]},
        generation_config={"eos_token_id": [ids[text] for text in SPECIALS[1:]]},
    )  # fmt: skip
    made = tokenizer_keys(checkpoint, 600)
    keys = made.metadata
    named = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in keys.items()
        if key.endswith("_token_id")
    }
    assert named == {
        "bos_token_id": ids[SPECIALS[0]], "eos_token_id": ids["<|eot_id|>"],
        "padding_token_id": ids[SPECIALS[1]], "eom_token_id": ids["<|eom_id|>"],
    }  # fmt: skip
    assert made.notes == ()  # readers know <|end_of_text|> by its text
    assert keys["tokenizer.ggml.add_bos_token"] is True
    kinds = keys["tokenizer.ggml.token_type"]
    assert kinds.dtype == np.int32
    assert {kinds[i] for i in ids.values()} == {3}
    assert kinds[tokenizer.token_to_id("<tool_call>")] == 4
    copy = tokenizer_from_gguf(keys)
    assert set(copy.eos_ids) == {ids[text] for text in SPECIALS[1:]}


def test_end_tokens_without_a_place_are_told(tmp_path):
    tokenizer = byte_level(SPLITTERS["gpt-2"][0])
    checkpoint = write(tmp_path, tokenizer, generation_config={"eos_token_id": [5, 6, 7, 8, 9]})
    notes = tokenizer_keys(checkpoint, 600).notes
    assert len(notes) == 2
    assert all("further end token" in note for note in notes)


def test_add_bos_follows_the_files(tmp_path):
    with_bos = byte_level(SPLITTERS["gpt-2"][0])
    without = byte_level(SPLITTERS["gpt-2"][0], bos=False)
    said = {"add_bos_token": False, "bos_token": SPECIALS[0]}
    for i, (tokenizer, config, expected) in enumerate(
        [(with_bos, {}, True), (without, {}, False), (with_bos, said, False)]
    ):
        checkpoint = write(tmp_path / str(i), tokenizer, tokenizer_config=config)
        assert tokenizer_keys(checkpoint, 600).metadata["tokenizer.ggml.add_bos_token"] is expected


@needs_data
def test_qwen2_files_without_tokenizer_json():
    folder = DATA / "tokenizers" / "qwen2"
    checkpoint = SimpleNamespace(
        directory=folder, format="safetensors", metadata={"model_type": "qwen2"}
    )
    keys = tokenizer_keys(checkpoint, 151_936).metadata
    tokens = keys["tokenizer.ggml.tokens"]
    assert keys["tokenizer.ggml.pre"] == "qwen2"
    assert tokens[151_645] == "<|im_end|>"
    assert tokens[151_935] == "[PAD151935]"
    assert keys["tokenizer.ggml.token_type"][151_645] == 3
    assert keys["tokenizer.ggml.token_type"][151_657] == 4  # <tool_call>
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert len(keys["tokenizer.ggml.merges"]) == 151_387
    assert "im_start" in keys["tokenizer.chat_template"]
    cases = (
        (folder / "ggml-vocab-qwen2.gguf.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    )
    expected = (folder / "ggml-vocab-qwen2.gguf.out").read_text("utf-8").splitlines()
    copy = tokenizer_from_gguf(keys)
    for text, ids in zip(cases, expected, strict=False):
        assert copy.encode(text) == [int(i) for i in ids.split()], text


# -- SentencePiece style ---------------------------------------------------------------------------


def spm_as_json(model_file: Path) -> dict:
    """What conversion to a "fast" tokenizer makes of a SentencePiece BPE model."""
    vocab = read_sentencepiece_model(model_file).vocabulary
    ids = {text: i for i, text in enumerate(vocab.texts)}
    merges = []
    for text in sorted(ids, key=lambda t: (-vocab.scores[ids[t]], ids[t])):
        if vocab.kinds[ids[text]] == 1:
            pairs = [(text[:k], text[k:]) for k in range(1, len(text))]
            known = [p for p in pairs if p[0] in ids and p[1] in ids]
            merges += sorted(known, key=lambda p: (ids[p[0]], ids[p[1]]))
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, "special": True, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False}
            for i, text in enumerate(vocab.texts[:3])
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
                  "byte_fallback": True, "vocab": ids, "merges": [list(m) for m in merges]},
    }  # fmt: skip


@needs_data
@pytest.mark.parametrize("beside", [False, True])
def test_sentencepiece_style_tokenizer_json(beside, tmp_path):
    """Scores come from tokenizer.model where it lies beside, else from the order of merges."""
    stored = DATA / "weights" / "stories260K" / "hf" / "tokenizer.model"
    checkpoint = write(
        tmp_path, None, tokenizer=spm_as_json(stored),
        tokenizer_config={"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True},
    )  # fmt: skip
    if beside:
        (tmp_path / "tokenizer.model").write_bytes(stored.read_bytes())
    keys = tokenizer_keys(checkpoint, 512).metadata
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.add_space_prefix"] is True
    scores = read_sentencepiece_model(stored).vocabulary.scores
    if beside:
        assert keys["tokenizer.ggml.scores"].tolist() == np.float32(scores).tolist()
    same_ids(checkpoint, keys, [*TEXT, (DATA / "tokenizers" / "botchan.txt").read_text()[:20_000]])


def gemma_files(
    folder: Path, vocab_size: int = 320, control: tuple[str, ...] = ()
) -> SimpleNamespace:
    """A tokenizer with all the habits of Gemma's: no space in front, runs of spaces as tokens of
    their own, a byte spelled as the character it is, begin token 2."""
    folder.mkdir(exist_ok=True)
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(["the cat  sat on a mat", "an other   hat, then"] * 30))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "tokenizer"), model_type="bpe",
        vocab_size=vocab_size, byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        user_defined_symbols=[*("▁" * n for n in range(2, 9)), "<table>"],
        control_symbols=["<start_of_turn>", "<end_of_turn>", *control],
    )  # fmt: skip
    (folder / "corpus.txt").unlink()
    model = read_sentencepiece_model(folder / "tokenizer.model").vocabulary
    data = spm_as_json(folder / "tokenizer.model")
    vocab = data["model"]["vocab"]
    vocab["\t"] = vocab.pop("<0x09>")
    runs = [["▁" * k, "▁" * (n - k)] for n in range(2, 9) for k in range(1, n)]
    data["model"]["merges"] = runs + data["model"]["merges"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] = [
        {"id": i, "content": text, "special": kind != 4, **plain}
        for i, (text, kind) in enumerate(zip(model.texts, model.kinds, strict=True))
        if kind in (2, 3, 4)
    ]
    data["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    data["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "},
                             "behavior": "MergedWithPrevious", "invert": False}  # fmt: skip
    data["decoder"]["decoders"].pop()
    begin = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    data["post_processor"] = {
        "type": "TemplateProcessing", "pair": [],
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    }  # fmt: skip
    settings = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>",
                "pad_token": "<pad>", "add_bos_token": True}  # fmt: skip
    return write(folder, None, tokenizer=data, tokenizer_config=settings,
                 generation_config={"eos_token_id": [1, 8]})  # fmt: skip


@pytest.mark.parametrize("only", ["tokenizer.json", "tokenizer.model", "both"])
def test_the_tokenizer_of_gemma(only, tmp_path):
    checkpoint = gemma_files(tmp_path)
    reference = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    for name in ("tokenizer.json", "tokenizer.model"):
        if only not in (name, "both"):
            (tmp_path / name).unlink()
    keys = tokenizer_keys(checkpoint, reference.vocab_size() + 2).metadata
    assert keys["tokenizer.ggml.add_space_prefix"] is False
    assert keys["tokenizer.ggml.add_bos_token"] is True
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"]) == (2, 1)
    copy, original = tokenizer_from_gguf(keys), load_tokenizer(checkpoint)
    texts = ["the cat sat", " a  cat   sat", "tab\tafter\n\nlines", "a<table>  🚀", "", "\t"]
    for text in [*TEXT, *texts]:
        want = [2, *reference.encode(text)]
        assert copy.encode(text) == want, text
        assert original.encode(text) == want, text
        assert copy.decode(want[1:]) == original.decode(want[1:]) == reference.decode(want[1:])
    # Written by a user they are text; written by a template they are tokens.
    turn = "<start_of_turn>user"
    assert reference.piece_to_id("<start_of_turn>") not in copy.encode(turn)
    assert reference.piece_to_id("<start_of_turn>") in copy.encode(turn, parse_special=True)


@pytest.mark.parametrize("kind", ["Gemma", "Gemma2", "Gemma3Text"])
def test_a_quantised_gemma_answers(kind, tmp_path):
    """A directory as the vendor publishes it, to a file, to an answer through its template."""
    folder = tmp_path / "gemma"
    gemma_files(folder)
    options = {"vocab_size": 320, "head_dim": 32, "sliding_window": 8, "bos_token_id": 2,
               "eos_token_id": 1, "tie_word_embeddings": True}  # fmt: skip
    tiny_models.build(tiny_models.Case(kind, options)).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message.role }}\n"
        "{{ message.content }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n"
    )
    quantize(folder, tmp_path / "gemma.gguf", "Q4_K_M")
    params = SamplingParams(temperature=0.0, max_tokens=12)
    with LLM(tmp_path / "gemma.gguf", backend="reference", context_length=128) as llm:
        ids = llm.tokenizer.encode("the cat sat")
        assert ids[0] == 2
        answer = llm.chat([{"role": "user", "content": "the cat sat on a mat"}], params)
        again = llm.chat([{"role": "user", "content": "the cat sat on a mat"}], params)
    assert answer.prompt_token_ids[0] == 2
    assert answer.prompt_token_ids[1] != 2  # the template's begin token is the only one
    assert len(answer.prompt_token_ids) > 8  # beyond the window
    assert answer.token_ids == again.token_ids
    assert 0 < len(answer.token_ids) <= 12


_GEMMA4_CONTROL = (
    "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>",
    "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
)  # fmt: skip


def test_the_tokenizer_of_gemma_4(tmp_path):
    checkpoint = gemma_files(tmp_path, 340, _GEMMA4_CONTROL)
    original = load_tokenizer(checkpoint)
    keys = tokenizer_keys(checkpoint, 345, "gemma4").metadata
    assert keys["tokenizer.ggml.model"] == "gemma4"
    kinds = dict(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True))
    # As llama.cpp's converter writes them: what a parser has to see is printed.
    for mark in _GEMMA4_CONTROL[3:5] + _GEMMA4_CONTROL[7:]:
        assert kinds[mark] == 4, mark
    assert kinds["<|turn>"] == kinds["<|think|>"] == 3
    copy = tokenizer_from_gguf(keys)
    for text in [*TEXT, " a  cat   sat", "tab\tafter\n\nlines", "a<table>  🚀", "", "\t"]:
        assert copy.encode(text) == original.encode(text), text
    # Written by a user they are text all the same; written by a template they are tokens.
    for mark in _GEMMA4_CONTROL:
        token = copy.vocabulary.texts.index(mark)
        assert token not in copy.encode(mark), mark
        assert copy.encode(mark, parse_special=True)[-1] == token, mark


@needs_data
def test_a_quantised_gemma_4_answers(tmp_path):
    """Through the vendor's template, with tools; its end of turn stops, its marks are seen."""
    folder = tmp_path / "gemma"
    gemma_files(folder, 340, _GEMMA4_CONTROL)
    tiny_gemma.build("gemma4-small", vocab_size=340, vocab_size_per_layer_input=340,
                     max_position_embeddings=1024,
                     bos_token_id=2, eos_token_id=1).save_pretrained(folder)  # fmt: skip
    template = DATA / "templates" / "jinja" / "google-gemma-4-31B-it-interleaved.jinja"
    (folder / "chat_template.jinja").write_text(template.read_text())
    quantize(folder, tmp_path / "gemma.gguf", "Q4_K_M")
    tool = {"type": "function", "function": {
        "name": "weather", "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}  # fmt: skip
    params = SamplingParams(temperature=0.0, max_tokens=12)
    messages = [{"role": "user", "content": "the cat <|tool_call> sat on a mat<turn|>"}]
    with LLM(tmp_path / "gemma.gguf", backend="reference", context_length=1024) as llm:
        texts = llm.tokenizer.vocabulary.texts
        assert {texts[i] for i in llm.tokenizer.vocabulary.eos_ids} >= {"<eos>", "<turn|>"}
        plain = llm.chat(messages, params)
        answer = llm.chat(messages, params, tools=[tool])
    said = [texts[i] for i in plain.prompt_token_ids]
    # One for the question, one for the answer; what the user wrote is text.
    assert said.count("<|turn>") == 2 + said.count("system")
    assert said.count("<bos>") == 1
    assert "<|tool_call>" not in said
    assert "<|tool>" in [texts[i] for i in answer.prompt_token_ids]
    assert 0 < len(answer.token_ids) <= 12


@pytest.mark.parametrize("case", ["gemma4-experts", "gemma3n"])
def test_a_quantised_file_of_late_gemmas_runs(case, tmp_path, capsys):
    """From a directory as the vendor publishes it, by the commands alone."""
    folder = tmp_path / "gemma"
    gemma_files(folder, 340, _GEMMA4_CONTROL)
    tiny_gemma.build(case, vocab_size=340, bos_token_id=2, eos_token_id=1).save_pretrained(folder)
    out = str(tmp_path / "gemma.gguf")
    assert run(["quantize", str(folder), out, "--type", "Q4_K_M"]) == 0
    assert run(["show", out]) == 0
    assert f"architecture  {case.partition('-')[0]}" in capsys.readouterr().out
    ask = ["run", out, "the cat sat", "--backend", "reference", "--temperature", "0"]
    assert run([*ask, "--max-tokens", "5"]) == 0
    first = capsys.readouterr().out
    assert run([*ask, "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out == first


@needs_data
def test_merges_that_leave_pairs_out_are_refused(tmp_path):
    data = spm_as_json(DATA / "weights" / "stories260K" / "hf" / "tokenizer.model")
    del data["model"]["merges"][5]
    with pytest.raises(UnsupportedModelError, match="leave out"):
        tokenizer_keys(write(tmp_path, None, tokenizer=data), 512)


# -- templates -------------------------------------------------------------------------------------


def test_templates_from_every_place(tmp_path):
    assert chat_templates(tmp_path) == {}
    config = {
        "chat_template": [
            {"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"},
            {"name": "odd name!", "template": "C"}, {"name": 5}, "x",
        ]
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat_templates(tmp_path) == {
        "tokenizer.chat_template": "A",
        "tokenizer.chat_template.tool_use": "B",
        "tokenizer.chat_template.odd_name_": "C",
        "tokenizer.chat_templates": ["tool_use", "odd_name_"],
    }
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "D"}))
    assert chat_templates(tmp_path) == {"tokenizer.chat_template": "D"}
    (tmp_path / "chat_template.jinja").write_text("E")
    assert chat_templates(tmp_path) == {"tokenizer.chat_template": "E"}
