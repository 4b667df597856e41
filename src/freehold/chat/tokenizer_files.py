# SPDX-License-Identifier: Apache-2.0
"""The tokenizer files that lie beside safetensors weights.

Knows the file names, and that the begin and end tokens are spread over `tokenizer_config.json`,
`special_tokens_map.json`, `generation_config.json` and `config.json`. The encoders are elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from freehold.chat.bpe import BpeEncoder, parse_merges
from freehold.chat.pretokenizers import pre_splitter
from freehold.chat.sentencepiece_model import read_sentencepiece_model
from freehold.chat.spm import SpmEncoder
from freehold.chat.tekken import tekken
from freehold.chat.tokenizer import Spelling, Tokenizer
from freehold.chat.tokenizer_json import AddedToken, JsonEncoder, parse_added_token
from freehold.chat.vocab import (
    MAX_VOCAB,
    TokenKind,
    Vocabulary,
    check_id,
    check_texts,
    end_ids,
)
from freehold.errors import TokenizerError, UnsupportedModelError

MAX_JSON_BYTES = 512 * 2**20

# Vocabularies in `vocab.json` do not say how text is split; the class or the family does.
_SPLITTER_BY_CLASS = {
    "Qwen2Tokenizer": "qwen2",
    "GPT2Tokenizer": "gpt-2",
    "CodeGenTokenizer": "gpt-2",
}
_SPLITTER_BY_MODEL = {"qwen2": "qwen2", "qwen2_moe": "qwen2", "qwen3": "qwen2",
                      "qwen3_moe": "qwen2", "gpt2": "gpt-2"}  # fmt: skip


def read_text(path: Path) -> str:
    """The file as text, bounded in size; TokenizerError names what is wrong."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise TokenizerError(f"{path.name} is larger than {MAX_JSON_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise TokenizerError(f"{path.name} is not UTF-8 text") from None
    except OSError as error:
        raise TokenizerError(f"{path.name} cannot be read: {error.strerror}") from error


def parse_json(text: str, name: str) -> dict[str, Any]:
    """A JSON object; anything else is a TokenizerError."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{name} is not valid JSON: {str(error)[:120]}") from None
    if not isinstance(data, dict):
        raise TokenizerError(f"{name} holds no JSON object")
    return data


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """The JSON object in a side file; empty where the file is absent."""
    path = directory / name
    return parse_json(read_text(path), name) if path.is_file() else {}


class _Settings:
    """What the side files say about special tokens."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self.tokenizer = read_json(directory, "tokenizer_config.json")
        self._map = read_json(directory, "special_tokens_map.json")
        self._generation = read_json(directory, "generation_config.json")
        self._config = config
        self.added = self._added_tokens(directory)

    def _added_tokens(self, directory: Path) -> list[AddedToken]:
        """Added tokens the side files list, later sources filling in for earlier ones."""
        found: dict[str, AddedToken] = {}
        listed = self.tokenizer.get("added_tokens_decoder") or {}
        if not isinstance(listed, Mapping):
            raise TokenizerError("tokenizer_config.json: added_tokens_decoder is no object")
        for key, entry in listed.items():
            token_id = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else -1
            token = parse_added_token(entry, token_id, where="tokenizer_config.json")
            found[token.text] = token
        special = {self.token_text(name) for name in ("bos_token", "eos_token", "unk_token")}
        for text, token_id in read_json(directory, "added_tokens.json").items():
            if text not in found:
                entry = {"content": text, "special": text in special}
                found[text] = parse_added_token(entry, token_id, where="added_tokens.json")
        return list(found.values())

    def token_text(self, name: str) -> str | None:
        """Text of `bos_token` and the like."""
        for source in (self.tokenizer, self._map):
            value = source.get(name)
            if isinstance(value, Mapping):
                value = value.get("content")
            if isinstance(value, str) and value:
                return value
        return None

    def ids(self, name: str) -> list[Any]:
        """Ids under `bos_token_id` and the like, from the generation and the model config."""
        found: list[Any] = []
        for source in (self._generation, self._config):
            value = source.get(name)
            if value is not None:
                found += value if isinstance(value, list) else [value]
        return list(dict.fromkeys(v for v in found if isinstance(v, int)))

    def model_type(self) -> str:
        return str(self._config.get("model_type"))

    def apply(self, vocab: Vocabulary, *, add_bos: bool, add_eos: bool) -> Vocabulary:
        """Put begin and end tokens in place, the tokenizer's word before the model's."""
        size = len(vocab.texts)

        def resolve(name: str, known: int | None) -> int | None:
            text = self.token_text(name)
            if text is not None:
                if text not in vocab.texts:
                    raise TokenizerError(f"{name} {text!r:.60} is not in the vocabulary")
                return vocab.texts.index(text)
            if known is not None:
                return known
            ids = self.ids(name + "_id")
            return check_id(ids[0], size, name + "_id") if ids else None

        bos = resolve("bos_token", vocab.bos_id)
        eos = resolve("eos_token", vocab.eos_id)
        unk = resolve("unk_token", vocab.unk_id)
        named = [i for i in (eos,) if i is not None]
        named += [check_id(i, size, "eos_token_id") for i in self.ids("eos_token_id")]
        want_bos = self.tokenizer.get("add_bos_token")
        want_eos = self.tokenizer.get("add_eos_token")
        return replace(
            vocab,
            bos_id=bos,
            eos_id=eos,
            unk_id=unk,
            eos_ids=end_ids(vocab.texts, vocab.kinds, named),
            add_bos=(want_bos if isinstance(want_bos, bool) else add_bos) and bos is not None,
            add_eos=(want_eos if isinstance(want_eos, bool) else add_eos) and eos is not None,
        )


def tokenizer_from_directory(
    directory: Path, config: Mapping[str, Any], *, pre: str | None = None
) -> Tokenizer:
    """Build from the files in `directory`; `config` is the content of config.json."""
    settings = _Settings(directory, config)
    if (directory / "tokenizer.json").is_file():
        return _from_tokenizer_json(directory / "tokenizer.json", settings)
    if (directory / "tokenizer.model").is_file():
        return _from_sentencepiece(directory / "tokenizer.model", settings)
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return _from_vocab_and_merges(directory, settings, pre)
    if (directory / "tekken.json").is_file():
        return _from_tekken(directory, settings)
    if (directory / "vocab.txt").is_file():
        raise UnsupportedModelError("vocab.txt holds a WordPiece vocabulary; freehold runs BPE")
    raise TokenizerError(
        "there is no tokenizer beside the weights",
        hint="expected tokenizer.json, tokenizer.model, vocab.json with merges.txt, or tekken.json",
    )


def _from_tokenizer_json(path: Path, settings: _Settings) -> Tokenizer:
    text = read_text(path)
    encoder = JsonEncoder(text, parse_json(text, path.name))
    texts = check_texts(encoder.texts, where=path.name)
    before, after = encoder.surroundings()
    vocab = Vocabulary(
        texts=texts,
        kinds=bytes(encoder.kinds),
        bos_id=before[0] if len(before) == 1 else None,
        unk_id=texts.index(encoder.unk_token) if encoder.unk_token in texts else None,
        lstrip=frozenset(t.text for t in encoder.added if t.lstrip),
        rstrip=frozenset(t.text for t in encoder.added if t.rstrip),
    )
    vocab = settings.apply(vocab, add_bos=bool(before), add_eos=bool(after))
    spelling: Spelling = "bytes" if encoder.spelling == "bytes" else "spm"
    return Tokenizer(
        vocab,
        encoder,
        spelling=spelling,
        strips_leading_space=encoder.strips_leading_space,
        prefix_ids=before
        if before and settings.tokenizer.get("add_bos_token") is not False
        else None,
        suffix_ids=after
        if after and settings.tokenizer.get("add_eos_token") is not False
        else None,
    )


def _from_sentencepiece(path: Path, settings: _Settings) -> Tokenizer:
    model = read_sentencepiece_model(path)
    vocab = _with_added(model.vocabulary, settings.added)
    prefix = model.add_dummy_prefix and settings.tokenizer.get("add_prefix_space") is not False
    encoder = SpmEncoder(
        vocab,
        add_space_prefix=prefix,
        remove_extra_whitespaces=model.remove_extra_whitespaces,
        escape_whitespaces=model.escape_whitespaces,
    )
    vocab = settings.apply(vocab, add_bos=True, add_eos=False)
    return Tokenizer(vocab, encoder, spelling="spm", strips_leading_space=prefix)


def _from_tekken(directory: Path, settings: _Settings) -> Tokenizer:
    vocab, encoder = tekken(read_json(directory, "tekken.json"))
    vocab = settings.apply(vocab, add_bos=True, add_eos=False)
    return Tokenizer(vocab, encoder, spelling="bytes")


def _from_vocab_and_merges(directory: Path, settings: _Settings, pre: str | None) -> Tokenizer:
    raw = read_json(directory, "vocab.json")
    size = 1 + max((v for v in raw.values() if isinstance(v, int)), default=-1)
    if size > MAX_VOCAB:
        raise TokenizerError(f"vocab.json has ids up to {size}, beyond {MAX_VOCAB}")
    texts = [""] * size
    for token, token_id in raw.items():
        check_id(token_id, size, f"vocab.json: the id of {token!r:.40}")
        if texts[token_id]:
            raise TokenizerError(f"vocab.json gives two tokens the id {token_id}")
        texts[token_id] = token
    texts = check_texts(texts, where="vocab.json")
    lines = read_text(directory / "merges.txt").split("\n")
    if lines[0].startswith("#version"):
        lines = lines[1:]
    merges = parse_merges([line.rstrip("\r") for line in lines if line.strip()], where="merges.txt")
    vocab = _with_added(Vocabulary(texts, bytes([TokenKind.NORMAL]) * len(texts)), settings.added)
    splitter = pre_splitter(pre or _splitter_name(settings))
    vocab = settings.apply(vocab, add_bos=False, add_eos=False)
    return Tokenizer(vocab, BpeEncoder(vocab, merges, splitter), spelling="bytes")


def _splitter_name(settings: _Settings) -> str:
    name = str(settings.tokenizer.get("tokenizer_class", "")).removesuffix("Fast")
    found = _SPLITTER_BY_CLASS.get(name) or _SPLITTER_BY_MODEL.get(settings.model_type())
    if found is None:
        raise TokenizerError(
            f"vocab.json does not say how text is split, and the class {name!r:.60} is not known",
            hint="name the splitter with pre= (--pre), or put tokenizer.json beside the weights",
        )
    return found


def _with_added(vocab: Vocabulary, added: list[AddedToken]) -> Vocabulary:
    """The vocabulary with added tokens put at their ids (new, or retyping a stored token)."""
    texts, kinds = list(vocab.texts), bytearray(vocab.kinds)
    scores = None if vocab.scores is None else list(vocab.scores)
    for token in added:
        grow = token.id + 1 - len(texts)
        if grow > 0:
            texts += [""] * grow
            kinds += bytes([TokenKind.UNUSED]) * grow
            if scores is not None:
                scores += [0.0] * grow
        if texts[token.id] not in ("", token.text):
            raise TokenizerError(
                f"the added token {token.text!r:.60} takes the id {token.id}, "
                f"which belongs to {texts[token.id]!r:.60}"
            )
        texts[token.id] = token.text
        if kinds[token.id] != TokenKind.UNKNOWN:
            kinds[token.id] = TokenKind.CONTROL if token.special else TokenKind.USER_DEFINED
    return replace(
        vocab,
        texts=check_texts(texts, where="the vocabulary with its added tokens"),
        kinds=bytes(kinds),
        scores=scores,
        lstrip=frozenset(t.text for t in added if t.lstrip),
        rstrip=frozenset(t.text for t in added if t.rstrip),
    )
