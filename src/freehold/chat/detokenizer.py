# SPDX-License-Identifier: Apache-2.0
"""Token ids → text as they come, and stop strings that may span tokens.

Knows that a token may end inside a UTF-8 character and inside a stop string, and holds text back
until both are settled. Knows nothing about sampling or end tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from freehold.chat.tokenizer import Tokenizer


class Detokenizer:
    """Incremental `Tokenizer.decode`: the pieces pushed out add up to the whole text.

    Args:
        skip_special: leave control tokens out.
        visible: control tokens that are printed all the same, because a parser looks for them.
        continues: the text goes on from a prompt, so a leading space belongs to it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special: bool = True,
        visible: frozenset[int] = frozenset(),
        continues: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._visible = visible
        self._at_start = tokenizer.strips_leading_space and not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Text that is certain after this token; may be empty."""
        hidden = self._skip_special and token_id not in self._visible
        piece = self._tokenizer.piece(token_id, skip_special=hidden)
        if self._at_start and piece:
            piece = piece.removeprefix(b" ")
            self._at_start = False
        return self._decoder.decode(piece)

    @property
    def pending(self) -> bytes:
        """Bytes of a character that is not whole yet."""
        return self._decoder.getstate()[0]

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)


class _StopMatcher:
    """How much of one stop string the text ends with (Knuth, Morris & Pratt 1977)."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        self._fallback = [0] * len(stop)
        k = 0
        for i in range(1, len(stop)):
            while k and stop[i] != stop[k]:
                k = self._fallback[k - 1]
            k += stop[i] == stop[k]
            self._fallback[i] = k

    def push(self, char: str) -> bool:
        """Take one character; True when the stop string is complete."""
        k = self.matched
        while k and char != self.stop[k]:
            k = self._fallback[k - 1]
        self.matched = k + (char == self.stop[k])
        return self.matched == len(self.stop)


class TextStream:
    """A detokenizer that ends at the first stop string to be completed.

    Text before the stop string is delivered, the stop string is not. The result does not depend
    on how the ids are grouped into pushes. Where two stop strings end at the same character, the
    longer one counts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        skip_special: bool = True,
        visible: frozenset[int] = frozenset(),
        continues: bool = False,
    ) -> None:
        self._detokenizer = Detokenizer(
            tokenizer, skip_special=skip_special, visible=visible, continues=continues
        )
        self._matchers = [_StopMatcher(s) for s in dict.fromkeys(stop) if s]
        self._matchers.sort(key=lambda m: len(m.stop), reverse=True)
        self._held = ""
        self.stopped: str | None = None  # the stop string found

    def push(self, ids: Iterable[int]) -> str:
        """Text that is certain after these ids; empty once stopped."""
        if self.stopped is not None:
            return ""
        return self._take("".join(map(self._detokenizer.push, ids)))

    def finish(self) -> str:
        """The rest: no more ids will come."""
        if self.stopped is not None:
            return ""
        text = self._take(self._detokenizer.flush())
        rest, self._held = self._held, ""
        return text + rest

    def _take(self, text: str) -> str:
        if not self._matchers:
            return text
        whole = self._held + text
        for position, char in enumerate(text, start=len(self._held) + 1):
            for matcher in [m for m in self._matchers if m.push(char)]:
                self.stopped = matcher.stop
                self._held = ""
                return whole[: position - len(matcher.stop)]
        keep = max(m.matched for m in self._matchers)
        self._held = whole[len(whole) - keep :]
        return whole[: len(whole) - keep]
