# SPDX-License-Identifier: Apache-2.0
"""A directory's tokenizer as `tokenizer.*` keys of GGUF.

Knows how GGUF spells vocabularies, merges, splitters and special tokens. The result is read back
and compared with the original on awkward text: a tokenizer that GGUF cannot express is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from freehold.chat.bpe import BYTE_CHARACTERS, parse_merges
from freehold.chat.sentencepiece_model import read_sentencepiece_model
from freehold.chat.spm import byte_value
from freehold.chat.tekken import tekken
from freehold.chat.tokenizer import (
    GEMMA4_MARKS,
    Tokenizer,
    load_tokenizer,
    tokenizer_from_gguf,
)
from freehold.chat.tokenizer_files import parse_json, read_json, read_text
from freehold.chat.vocab import END_OF_TURN_TEXTS, TokenKind, Vocabulary
from freehold.convert.splitters import splitter_names
from freehold.errors import TokenizerError, UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint

_PREFIX = "tokenizer.ggml."
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
# What converters give to tokens that text cannot be merged into.
_ADDED_SCORE, _PADDING_SCORE = -1000.0, -10000.0
_MAX_PAIR_WORK = 400_000_000  # characters compared: seconds; the largest real ones need 10 million
_TURN_END = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|eot|>", "<end_of_turn>", "<turn|>"}
)
_MESSAGE_END = frozenset({"<|eom_id|>", "<|eom|>"})
# Contractions, digits, cased and uncased scripts, combining marks, runs of white space, symbols.
_PROBES = (
    "Hello world",
    " Hello, y'all! I'LL we've CAN'T",
    "3.14159 and 1000000 x 12345678 v2",
    "caffe\u0301 ÉCOLE straße Жизнь ΑΒΓδ हिन्दी ภาษาไทย",
    "你好，世界！日本語のテキスト 한국어 텍스트",
    "tabs\t\tand  two   three    spaces \n\n new\r\n\r\n lines \n",
    "def f(x):\n    return x**2  # ok\n",
    "🚀 (normal) 😶‍🌫️ ✅ ...!!! ++==>> /path/to-file_name.txt",
    "   leading",
    "trailing   ",
    "",
)


@dataclass(frozen=True)
class TokenizerKeys:
    """GGUF keys of a tokenizer, and what could not be said with them."""

    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()


def tokenizer_keys(checkpoint: Checkpoint, num_rows: int, architecture: str = "") -> TokenizerKeys:
    """The tokenizer beside `checkpoint`, padded to the `num_rows` of the embedding table.
    `architecture` is GGUF's name for the model.

    Raises TokenizerError for files that contradict themselves or the table, and
    UnsupportedModelError for a tokenizer that GGUF cannot express."""
    directory = checkpoint.directory
    if not any((directory / name).is_file() for name in _FILES):
        return TokenizerKeys(
            {_PREFIX + "model": "no_vocab"}, ("no tokenizer beside the weights: none was written",)
        )
    original = load_tokenizer(checkpoint)
    vocab = _padded(original.vocabulary, num_rows)
    if not original.byte_level:
        vocab = _with_every_byte(vocab)
    special, notes = _special_keys(vocab, directory)
    if original.byte_level:
        candidates = _byte_level_keys(vocab, directory)
    elif architecture == "gemma4" and (directory / "tokenizer.json").is_file():
        candidates = [_gemma4_keys(vocab, directory)]
    else:
        candidates = [_spm_keys(original, vocab, directory)]
    for keys in candidates:
        metadata = special | keys
        if _same(original, tokenizer_from_gguf(metadata)):
            return TokenizerKeys(metadata, notes)
    raise UnsupportedModelError(
        f"{directory}: this tokenizer cannot be expressed in GGUF: read back, it splits text "
        "differently",
        hint="use a GGUF file made by the model's own vendor",
    )


def _same(original: Tokenizer, copy: Tokenizer) -> bool:
    return all(_ids(original, text) == _ids(copy, text) for text in _PROBES)


def _ids(tokenizer: Tokenizer, text: str) -> list[int] | None:
    """Ids, or None where a small vocabulary has no token for some byte."""
    try:
        return tokenizer.encode(text, parse_special=True)
    except TokenizerError:
        return None


def _padded(vocab: Vocabulary, num_rows: int) -> Vocabulary:
    count = len(vocab.texts)
    if count > num_rows:
        raise TokenizerError(
            f"the tokenizer has {count:,} tokens, the embedding table only {num_rows:,} rows"
        )
    texts = list(vocab.texts) + [""] * (num_rows - count)
    kinds = bytearray(vocab.kinds) + bytes(num_rows - count)
    for i, text in enumerate(texts):
        if not text:
            texts[i], kinds[i] = f"[PAD{i}]", TokenKind.UNUSED
    scores = None
    if vocab.scores is not None:
        scores = [*vocab.scores, *[_PADDING_SCORE] * (num_rows - count)]
    return replace(vocab, texts=texts, kinds=bytes(kinds), scores=scores)


def _with_every_byte(vocab: Vocabulary) -> Vocabulary:
    """Gemma's tokenizer.json spells the token of byte 9 as a tabulator; GGUF falls back to bytes
    only where it finds all of them."""
    texts, kinds = list(vocab.texts), bytearray(vocab.kinds)
    known = {byte_value(t) for t, k in zip(texts, kinds, strict=True) if k == TokenKind.BYTE}
    if not known:
        return vocab
    missing = {chr(byte) for byte in range(128) if byte not in known}
    for i, text in enumerate(texts):
        if kinds[i] == TokenKind.NORMAL and text in missing:
            texts[i], kinds[i] = f"<0x{ord(text):02X}>", TokenKind.BYTE
    return replace(vocab, texts=texts, kinds=bytes(kinds))


# -- byte-level BPE ------------------------------------------------------------------------------


def _byte_level_keys(vocab: Vocabulary, directory: Path) -> list[dict[str, Any]]:
    """Keys under each name the splitter may have, the likeliest first."""
    data: Mapping[str, Any] | None = None
    raw: Any
    if (directory / "tokenizer.json").is_file():
        data = _tokenizer_json(directory)
        raw = data["model"].get("merges", [])
    elif not (directory / "vocab.json").is_file():
        data, raw = _of_tekken(directory)
    else:
        lines = read_text(directory / "merges.txt").split("\n")
        raw = [line for line in lines if line.strip() and not line.startswith("#version")]
    merges = _merges(raw)
    names = splitter_names(data)
    if not names:
        raise UnsupportedModelError(
            f"{directory}: tokenizer.json cuts text by a rule that has no name in GGUF",
            hint="use a GGUF file made by the model's own vendor",
        )
    return [
        {_PREFIX + "model": "gpt2", _PREFIX + "pre": name, _PREFIX + "merges": merges}
        for name in names
    ]


def _of_tekken(directory: Path) -> tuple[Mapping[str, Any], list[list[str]]]:
    """Splitter and merges of Mistral's file, as tokenizer.json would write them."""
    _, encoder = tekken(read_json(directory, "tekken.json"))
    split = {"type": "Split", "pattern": {"Regex": encoder.pattern}, "behavior": "Isolated"}
    data = {"pre_tokenizer": split, "model": {"ignore_merges": True}}
    pairs = encoder.merges()
    return data, [["".join(map(BYTE_CHARACTERS.__getitem__, s)) for s in pair] for pair in pairs]


def _tokenizer_json(directory: Path) -> dict[str, Any]:
    path = directory / "tokenizer.json"
    data = parse_json(read_text(path), path.name)
    if not isinstance(data.get("model"), Mapping):
        raise TokenizerError(f"{path.name} holds no model")
    return data


def _merges(raw: Any) -> list[str]:
    return [f"{left} {right}" for left, right in parse_merges(raw, where="the tokenizer's merges")]


def _gemma4_keys(vocab: Vocabulary, directory: Path) -> dict[str, Any]:
    """A merge list over characters. Readers print tokens of the user-defined kind, which the
    marks of thoughts and calls have to be for whoever takes an answer apart; freehold holds them
    to be control tokens all the same."""
    kinds = np.frombuffer(vocab.kinds, dtype=np.uint8).astype(np.int32)
    for i, text in enumerate(vocab.texts):
        if text in GEMMA4_MARKS:
            kinds[i] = TokenKind.USER_DEFINED
    return {
        _PREFIX + "model": "gemma4",
        _PREFIX + "add_space_prefix": False,
        _PREFIX + "token_type": kinds,
        _PREFIX + "merges": _merges(_tokenizer_json(directory)["model"].get("merges", [])),
    }


# -- SentencePiece style ---------------------------------------------------------------------------


def _spm_keys(original: Tokenizer, vocab: Vocabulary, directory: Path) -> dict[str, Any]:
    keys: dict[str, Any] = {
        _PREFIX + "model": "llama",
        _PREFIX + "pre": "default",
        _PREFIX + "add_space_prefix": original.strips_leading_space,
    }
    scores = vocab.scores
    if (directory / "tokenizer.model").is_file():
        model = read_sentencepiece_model(directory / "tokenizer.model")
        if model.remove_extra_whitespaces and not (directory / "tokenizer.json").is_file():
            keys[_PREFIX + "remove_extra_whitespaces"] = True
        scores = scores or _scores_by_text(vocab, model.vocabulary)
    if scores is None:
        scores = _scores_by_rank(vocab, directory)
    keys[_PREFIX + "scores"] = np.array(scores, dtype=np.float32)
    return keys


def _scores_by_text(vocab: Vocabulary, stored: Vocabulary) -> list[float]:
    assert stored.scores is not None
    known = dict(zip(stored.texts, stored.scores, strict=True))
    return [known.get(text, _ADDED_SCORE) for text in vocab.texts]


def _scores_by_rank(vocab: Vocabulary, directory: Path) -> list[float]:
    """Scores that make SentencePiece merge in the order of a BPE merge list.

    SentencePiece joins any two pieces whose union is a token; a merge list may leave pairs out,
    and then no scores say the same."""
    raw = _tokenizer_json(directory)["model"].get("merges", [])
    merges = parse_merges(raw, where="the tokenizer's merges")
    rank: dict[str, int] = {}
    for index, (left, right) in enumerate(merges):
        rank.setdefault(left + right, index)
    listed = set(merges)
    known = {t for t, k in zip(vocab.texts, vocab.kinds, strict=True) if k == TokenKind.NORMAL}
    if sum(len(text) ** 2 for text in known) > _MAX_PAIR_WORK:
        raise UnsupportedModelError(
            f"{directory}: the tokens of tokenizer.json are too long to check its merges",
            hint="put the model's tokenizer.model beside the weights",
        )
    for text in known:
        for cut in range(1, len(text)):
            pair = (text[:cut], text[cut:])
            if pair[0] in known and pair[1] in known and pair not in listed:
                raise UnsupportedModelError(
                    f"{directory}: the merges of tokenizer.json leave out {pair!r:.80}, "
                    "which GGUF's SentencePiece tokenizer would join",
                    hint="put the model's tokenizer.model beside the weights",
                )
    return [-float(rank[text]) if text in rank else _ADDED_SCORE for text in vocab.texts]


# -- special tokens and templates ------------------------------------------------------------------


def _special_keys(vocab: Vocabulary, directory: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    keys: dict[str, Any] = {
        _PREFIX + "tokens": vocab.texts,
        _PREFIX + "token_type": np.frombuffer(vocab.kinds, dtype=np.uint8).astype(np.int32),
    }
    ids = {
        "bos": vocab.bos_id,
        "eos": vocab.eos_id,
        "unknown": vocab.unk_id,
        "padding": _padding_id(vocab, directory),
    }
    notes = _end_slots(vocab, ids)
    keys |= {f"{_PREFIX}{name}_token_id": i for name, i in ids.items() if i is not None}
    keys[_PREFIX + "add_bos_token"] = vocab.add_bos
    keys[_PREFIX + "add_eos_token"] = vocab.add_eos
    return keys | chat_templates(directory), notes


def _end_slots(vocab: Vocabulary, ids: dict[str, int | None]) -> tuple[str, ...]:
    """Put further end tokens into GGUF's two slots for them, in place in `ids`.

    Readers know the usual ones by their text, so others come first."""
    extra = [i for i in vocab.eos_ids if i != vocab.eos_id]
    unusual = [i for i in extra if vocab.texts[i] not in END_OF_TURN_TEXTS]
    for slot, texts in (("eot", _TURN_END), ("eom", _MESSAGE_END)):
        usual = next((i for i in extra if vocab.texts[i] in texts), None)
        ids[slot] = unusual.pop(0) if unusual else usual
    return tuple(
        f"GGUF has no place for the further end token {vocab.texts[i]!r:.60}" for i in unusual
    )


def _padding_id(vocab: Vocabulary, directory: Path) -> int | None:
    value = read_json(directory, "tokenizer_config.json").get("pad_token")
    if isinstance(value, Mapping):
        value = value.get("content")
    return vocab.texts.index(value) if isinstance(value, str) and value in vocab.texts else None


def chat_templates(directory: Path) -> dict[str, Any]:
    """Templates of a directory as GGUF keys; the file of its own counts before the settings."""
    stored = read_json(directory, "tokenizer_config.json").get("chat_template")
    if isinstance(other := read_json(directory, "chat_template.json").get("chat_template"), str):
        stored = other
    named: dict[str, str] = {}
    if isinstance(stored, str):
        named["default"] = stored
    elif isinstance(stored, Sequence):
        for entry in stored:
            if isinstance(entry, Mapping):
                name, text = entry.get("name"), entry.get("template")
                if isinstance(name, str) and isinstance(text, str):
                    named[name] = text
    if (directory / "chat_template.jinja").is_file():
        named["default"] = read_text(directory / "chat_template.jinja")
    for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        named[path.stem] = read_text(path)
    keys: dict[str, Any] = {}
    others = []
    for name, text in named.items():
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
        if name == "default":
            keys["tokenizer.chat_template"] = text
        elif plain:
            others.append(plain)
            keys[f"tokenizer.chat_template.{plain}"] = text
    if others:
        keys["tokenizer.chat_templates"] = others
    return keys
