# SPDX-License-Identifier: Apache-2.0
"""Read `tokenizer.model`: a SentencePiece ModelProto, straight from its protobuf bytes.

Knows the few fields that decide how text becomes pieces. Parsed here rather than by the
SentencePiece library because the file is untrusted and the library is native code.

Field numbers: sentencepiece_model.proto of https://github.com/google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freehold.chat.vocab import (
    Vocabulary,
    check_id,
    check_kinds,
    check_scores,
    check_texts,
    end_ids,
)
from freehold.errors import TokenizerError, UnsupportedModelError

MAX_FILE_BYTES = 512 * 2**20
_MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary and how its text is prepared."""

    vocabulary: Vocabulary
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    normalizer: str


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise TokenizerError("tokenizer.model is cut short or damaged")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one message; fixed-width values come as their bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise TokenizerError("tokenizer.model is no SentencePiece file")
        if length > len(data) - position:
            raise TokenizerError("tokenizer.model is cut short or damaged")
        yield key >> 3, data[position : position + length]
        position += length


def _signed(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise TokenizerError("tokenizer.model holds bytes where a number belongs")
    return value - 2**64 if value >= 2**63 else value


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise TokenizerError("tokenizer.model holds a number where text belongs")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise TokenizerError("tokenizer.model holds a piece that is not UTF-8") from None


def _piece(data: int | memoryview) -> tuple[str, float, int]:
    if isinstance(data, int):
        raise TokenizerError("tokenizer.model holds a number where a piece belongs")
    text, score, kind = "", 0.0, 1
    for number, value in _fields(data):
        if number == 1:
            text = _text(value)
        elif number == 2 and isinstance(value, memoryview) and len(value) == 4:
            score = struct.unpack("<f", value)[0]
        elif number == 3:
            kind = _signed(value)
    return text, score, kind


def _numbers(data: int | memoryview) -> dict[int, int]:
    """The varint fields of a sub-message."""
    if isinstance(data, int):
        raise TokenizerError("tokenizer.model holds a number where a message belongs")
    return {number: _signed(v) for number, v in _fields(data) if isinstance(v, int)}


def read_sentencepiece_model(path: Path) -> SentencePieceModel:
    """Parse the file. UnsupportedModelError for Unigram models and Unicode normalisers."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TokenizerError(f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB")
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int] = {}
    normalizer: dict[int, int] = {}
    normalizer_name, charsmap = "identity", False
    for number, value in _fields(memoryview(path.read_bytes())):
        if number == 1:
            pieces.append(_piece(value))
        elif number == 2:
            trainer |= _numbers(value)
        elif number == 3 and isinstance(value, memoryview):
            normalizer |= _numbers(value)
            for inner, content in _fields(value):
                if inner == 1:
                    normalizer_name = _text(content)
                elif inner == 2 and isinstance(content, memoryview):
                    charsmap = len(content) > 0
    model_type = trainer.get(3, 1)
    if model_type != 2:
        name = _MODEL_TYPES.get(model_type, str(model_type))
        raise UnsupportedModelError(
            f"{path.name} is a SentencePiece {name} model; freehold reads BPE models",
            hint="use a tokenizer.json or a GGUF file",
        )
    if charsmap:
        raise UnsupportedModelError(
            f"{path.name} normalises text by {normalizer_name!r:.40}; only identity is supported",
            hint="use a tokenizer.json",
        )
    if trainer.get(24, 0):
        raise UnsupportedModelError(f"{path.name} writes spaces behind words (suffix mode)")
    texts = check_texts([p[0] for p in pieces], where=path.name)
    kinds = check_kinds([p[2] for p in pieces], len(texts), where=path.name)

    def special(field: int, default: int) -> int | None:
        token_id = trainer.get(field, default)
        return None if token_id < 0 else check_id(token_id, len(texts), f"{path.name} special id")

    eos = special(42, 2)
    vocabulary = Vocabulary(
        texts=texts,
        kinds=kinds,
        scores=check_scores([p[1] for p in pieces], len(texts), where=path.name),
        bos_id=special(41, 1),
        eos_id=eos,
        unk_id=special(40, 0),
        eos_ids=end_ids(texts, kinds, [] if eos is None else [eos]),
        add_bos=special(41, 1) is not None,
    )
    return SentencePieceModel(
        vocabulary,
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        normalizer=normalizer_name,
    )
