# SPDX-License-Identifier: Apache-2.0
"""Text ↔ token ids, whatever file the vocabulary came from.

Knows special tokens, the begin and end tokens, and the bytes each token stands for. How plain
text is split and merged is the encoder's matter (`spm.py`, `bpe.py`, `tokenizer_json.py`); which
files make a tokenizer is decided in `load_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from freehold.chat.bpe import BpeEncoder, bytes_of, parse_merges
from freehold.chat.matcher import LiteralMatcher
from freehold.chat.pretokenizers import TokenizerWarning, pre_splitter
from freehold.chat.spm import SPACE, SpmEncoder, byte_value
from freehold.chat.vocab import (
    SPECIAL_KINDS,
    TokenKind,
    Vocabulary,
    gguf_array,
    gguf_flag,
    vocabulary_from_gguf,
)
from freehold.errors import InvalidParameterError, TokenizerError, UnsupportedModelError

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint

__all__ = ["Tokenizer", "TokenizerWarning", "load_tokenizer"]

# How a token's stored text spells bytes: ▁ for space, or one character per byte.
Spelling = Literal["spm", "bytes"]


class Encoder(Protocol):
    """Plain text → ids. `first`: the stretch starts the input."""

    def encode(self, text: str, *, first: bool = True) -> list[int]: ...


class Tokenizer:
    """Text to ids and back. Immutable; may be shared between threads."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        encoder: Encoder,
        *,
        spelling: Spelling,
        strips_leading_space: bool = False,
        prefix_ids: Sequence[int] | None = None,
        suffix_ids: Sequence[int] | None = None,
    ) -> None:
        self._vocab = vocabulary
        self._encoder = encoder
        self._spelling = spelling
        self.strips_leading_space = strips_leading_space  # decoding undoes the space prefix
        self.vocab_size = len(vocabulary.texts)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id  # the one `add_eos` appends
        self.eos_ids = vocabulary.eos_ids
        self.add_bos = vocabulary.add_bos
        self.add_eos = vocabulary.add_eos
        bos, eos = (self.bos_id, self.add_bos), (vocabulary.eos_id, self.add_eos)
        self._prefix = _wrapping(prefix_ids, *bos)
        self._suffix = _wrapping(suffix_ids, *eos)
        self._special = frozenset(vocabulary.ids_of(*SPECIAL_KINDS))
        texts = vocabulary.texts
        self._special_by_text = {texts[i]: i for i in sorted(self._special) if texts[i]}
        self._special_matcher: LiteralMatcher | None = None
        self._bytes: dict[int, bytes] = {}

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Ids of `text`.

        `add_special` puts the begin and end tokens round it where the model wants them.
        `parse_special` reads the text of control tokens as those tokens; leave it off for
        anything a user wrote. User-defined tokens always match.
        """
        spans = [(0, len(text))] if parse_special else []
        return self.encode_spans(text, spans, add_special=add_special)

    def encode_spans(
        self, text: str, special_spans: Iterable[tuple[int, int]], *, add_special: bool = True
    ) -> list[int]:
        """Ids of `text`, control tokens being read only where they lie inside one of the spans.

        Spans are ascending (start, end) character ranges. Text outside is merged across span
        borders as in plain encoding. The begin token is not added where one is there already.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidParameterError(
                f"the text holds a lone surrogate at character {error.start}, which no encoding has"
            ) from None
        vocab = self._vocab
        ids: list[int] = []
        position = 0
        for start, end in special_spans:
            for left, right in self._matcher().finditer(text, max(start, position), end):
                literal = text[left:right]
                cut = left
                while literal in vocab.lstrip and cut > position and text[cut - 1].isspace():
                    cut -= 1
                if cut > position:
                    ids += self._encoder.encode(text[position:cut], first=position == 0)
                ids.append(self._special_by_text[literal])
                position = right
                while literal in vocab.rstrip and text[position : position + 1].isspace():
                    position += 1
        if position < len(text):
            ids += self._encoder.encode(text[position:], first=position == 0)
        if add_special:
            prefix, suffix = self._prefix, self._suffix
            if prefix and ids[: len(prefix)] != prefix:
                ids = prefix + ids
            if suffix and ids[-len(suffix) :] != suffix:
                ids = ids + suffix
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD.

        `skip_special` leaves control tokens out instead of printing their names.
        """
        pieces = []
        at_start = self.strips_leading_space
        for token_id in ids:
            piece = self.piece(token_id, skip_special=skip_special)
            if at_start and piece:
                piece = piece.removeprefix(b" ")
                at_start = False
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "replace")

    def piece(self, token_id: int, *, skip_special: bool) -> bytes:
        """The bytes shown for a token: its own, or a control token's name."""
        if not skip_special and token_id in self._special:
            return self._vocab.texts[token_id].encode()
        return self.token_bytes(token_id)

    def token_bytes(self, id: int) -> bytes:
        """The exact bytes the token stands for; b"" for control and unused tokens."""
        found = self._bytes.get(id)
        if found is None:
            found = self._bytes[id] = self._spell(self._check(id))
        return found

    def token_text(self, id: int) -> str:
        """The token as the vocabulary writes it."""
        return self._vocab.texts[self._check(id)]

    def token_id(self, text: str) -> int | None:
        """Id of a control token by its text."""
        return self._special_by_text.get(text)

    @property
    def vocabulary(self) -> Vocabulary:
        """Token texts, kinds and ids as stored, for whoever writes them to another file."""
        return self._vocab

    @property
    def byte_level(self) -> bool:
        """Tokens are spelled a character per byte, not with ▁ for space."""
        return self._spelling == "bytes"

    def control_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Where control tokens are written in `text`: (start, end, id), ascending."""
        found = self._matcher().finditer(text, 0, len(text))
        return [(a, b, self._special_by_text[text[a:b]]) for a, b in found]

    def encode_exactly(self, text: str) -> list[int] | None:
        """Ids that spell `text` byte for byte in the middle of an answer; None where the encoder
        cannot help adding a space."""
        ids = self._encoder.encode(text, first=False)
        spelled = b"".join(map(self.token_bytes, ids))
        return ids if spelled == text.encode() else None

    def special_ids(self) -> frozenset[int]:
        """Control and unknown tokens: never matched in user text, hidden by `skip_special`."""
        return self._special

    def _matcher(self) -> LiteralMatcher:
        if self._special_matcher is None:
            self._special_matcher = LiteralMatcher(self._special_by_text)
        return self._special_matcher

    def _check(self, token_id: int) -> int:
        if not 0 <= token_id < self.vocab_size:
            raise InvalidParameterError(
                f"token id {token_id} lies outside the vocabulary of {self.vocab_size}"
            )
        return token_id

    def _spell(self, token_id: int) -> bytes:
        text = self._vocab.texts[token_id]
        kind = self._vocab.kinds[token_id]
        if kind in (TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.UNUSED):
            return b""
        if kind == TokenKind.BYTE:
            value = byte_value(text)
            return b"" if value is None else bytes([value])
        if self._spelling == "spm":
            return text.replace(SPACE, " ").encode()
        if kind == TokenKind.USER_DEFINED:
            return text.encode()
        spelled = bytes_of(text)
        return text.encode() if spelled is None else spelled


# Marks of thoughts and calls in answers of Gemma 4. Its GGUF files call them user-defined, so that
# readers print them; that would also let a user write them.
GEMMA4_MARKS = frozenset(
    ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
     "<tool_response|>", '<|"|>')
)  # fmt: skip


def _wrapping(ids: Sequence[int] | None, token_id: int | None, wanted: bool) -> list[int]:
    """Ids put before or after a text: the given ones, else the single token if wanted."""
    if ids is not None:
        return list(ids)
    return [token_id] if wanted and token_id is not None else []


def load_tokenizer(checkpoint: Checkpoint, *, pre: str | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint.

    GGUF: from its metadata. A directory: `tokenizer.json`, else `tokenizer.model`, else
    `vocab.json` with `merges.txt`, else `tekken.json`. `pre` overrides the named text splitter of
    a BPE vocabulary.

    Raises:
        TokenizerError: no vocabulary, or one that contradicts itself.
        UnsupportedModelError: a tokenizer of a kind freehold does not have.
    """
    if checkpoint.format == "gguf":
        return tokenizer_from_gguf(checkpoint.metadata, pre=pre)
    from freehold.chat.tokenizer_files import tokenizer_from_directory  # it imports this module

    return tokenizer_from_directory(checkpoint.directory, checkpoint.metadata, pre=pre)


def tokenizer_from_gguf(metadata: Mapping[str, Any], *, pre: str | None = None) -> Tokenizer:
    """Build from `tokenizer.ggml.*` keys."""
    model = metadata.get("tokenizer.ggml.model")
    if model == "llama":
        return _spm_from_gguf(metadata)
    if model in ("gpt2", "gemma4"):
        return _bpe_from_gguf(metadata, "gemma4" if model == "gemma4" else pre)
    if model is None or model in ("none", "no_vocab"):
        raise TokenizerError(
            "the file has no tokenizer", hint="pass token ids, or use a file with a vocabulary"
        )
    raise UnsupportedModelError(
        f"the tokenizer model {model!r:.60} is not supported; freehold has llama (SentencePiece "
        "BPE), gpt2 (byte-level BPE) and gemma4"
    )


def _spm_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    vocab = vocabulary_from_gguf(metadata, default_bos=1, default_eos=2, add_bos=True)
    if metadata.get("general.architecture") == "phi3":
        # The vendor's tokenizer swallows white space behind these; GGUF has no key to say so.
        keep = {"<unk>", "<s>", "<|endoftext|>"}
        names = {vocab.texts[i] for i in vocab.ids_of(TokenKind.CONTROL)} - keep
        vocab = vocab.with_rstrip(names)
    prefix = gguf_flag(metadata, "tokenizer.ggml.add_space_prefix", True)
    encoder = SpmEncoder(
        vocab,
        add_space_prefix=prefix,
        remove_extra_whitespaces=gguf_flag(
            metadata, "tokenizer.ggml.remove_extra_whitespaces", False
        ),
    )
    return Tokenizer(vocab, encoder, spelling="spm", strips_leading_space=prefix)


def _bpe_from_gguf(metadata: Mapping[str, Any], pre: str | None) -> Tokenizer:
    name = pre if pre is not None else metadata.get("tokenizer.ggml.pre")
    if name is not None and not isinstance(name, str):
        raise TokenizerError(f"tokenizer.ggml.pre must be text, not {name!r:.60}")
    splitter = pre_splitter(name)
    vocab = vocabulary_from_gguf(
        metadata, default_bos=None, default_eos=None, add_bos=splitter.add_bos
    )
    if name == "gemma4":
        vocab = vocab.with_control(GEMMA4_MARKS)
    raw = gguf_array(metadata, "tokenizer.ggml.merges")
    if raw is None:
        raise TokenizerError("the file has a BPE vocabulary without tokenizer.ggml.merges")
    merges = parse_merges(raw, where="tokenizer.ggml.merges")
    return Tokenizer(
        vocab,
        BpeEncoder(vocab, merges, splitter),
        spelling="bytes" if splitter.byte_level else "spm",
    )
