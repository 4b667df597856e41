# SPDX-License-Identifier: Apache-2.0
"""Which tokens may come next where an answer must have a given form.

Grammars arrive as text, tokens as bytes: the engine knows no tokenizer and no schema. A grammar is
compiled once; every sequence takes a `TokenConstraint` of its own through it. Masks are computed
on a thread beside the forward pass (`MaskWorker`), which llguidance does without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import llguidance
import numpy as np
import numpy.typing as npt

from freehold.errors import ConstraintError

BoolArray = npt.NDArray[np.bool_]
# A token costs a millisecond or more, a grammar comes from a stranger: what takes longer than some
# tens of milliseconds, or more than some tens of MiB, is too complex. Fuel is counted in steps.
_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=5000,
    initial_lexer_fuel=2_000_000,
    step_lexer_fuel=200_000,
    step_max_items=30_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
_PARALLEL = 4  # threads for the masks of one batch


class TokenVocabulary:
    """The tokens as grammars see them. Making one takes time in proportion to the vocabulary.

    Args:
        pieces: the bytes of each row of the model's vocabulary, [vocab]; of a special token its
            name, by which grammars may call it; b"" for rows that stand for nothing.
        special_ids: tokens that no text is made of.
        eos_ids: tokens that end an answer.
        encode: the tokens a text is usually made of; they must spell it exactly.
    """

    def __init__(
        self,
        pieces: Sequence[bytes],
        special_ids: Collection[int],
        eos_ids: Sequence[int],
        encode: Callable[[bytes], Sequence[int]],
    ) -> None:
        if not eos_ids:
            raise ConstraintError("the model has no token that ends an answer")
        self.size = len(pieces)
        self.eos_ids = np.array(sorted(eos_ids), np.int64)
        source = _Tokens(pieces, special_ids, eos_ids, encode)
        self.tokens = llguidance.LLTokenizer(
            source,  # type: ignore[arg-type]
            n_vocab=len(pieces), eos_token=list(eos_ids),
        )  # fmt: skip

    def compile(self, grammar: str) -> Grammar:
        """A grammar out of llguidance's text for it.

        Raises ConstraintError for one that is malformed, matches nothing, or is too complex.
        """
        matcher = llguidance.LLMatcher(self.tokens, grammar, limits=_LIMITS, log_level=0)
        _check(matcher)
        compiled = Grammar(self, matcher)
        if not compiled.start().mask().any():  # the first step shows what is too hard as well
            raise ConstraintError("no answer of this form can be made: nothing matches it")
        return compiled


class _Tokens:
    """What `LLTokenizer` asks for."""

    is_tokenizer_wrapper = True
    bos_token_id: int | None = None

    def __init__(
        self, pieces: Sequence[bytes], special_ids: Collection[int], eos_ids: Sequence[int],
        encode: Callable[[bytes], Sequence[int]],
    ) -> None:  # fmt: skip
        self.tokens = list(pieces)
        self.special_token_ids = sorted(special_ids)
        self.eos_token_id = eos_ids[0]
        self._encode = encode

    def __call__(self, text: bytes | str) -> list[int]:
        return list(self._encode(text.encode() if isinstance(text, str) else text))


class Grammar:
    """A compiled grammar, for any number of sequences."""

    def __init__(self, vocabulary: TokenVocabulary, matcher: llguidance.LLMatcher) -> None:
        self.vocabulary = vocabulary
        self._matcher = matcher

    def start(self) -> TokenConstraint:
        """One sequence's way through the grammar, at its beginning."""
        return TokenConstraint(self.vocabulary, self._matcher.deep_copy())

    def accepts(self, token_ids: Sequence[int]) -> bool:
        """Whether these tokens are a whole answer."""
        matcher = self._matcher.deep_copy()
        taken = matcher.try_consume_tokens(list(token_ids))
        return bool(taken == len(token_ids) and matcher.is_accepting() and not matcher.is_error())


class TokenConstraint:
    """Where one sequence stands in its grammar.

    `prepare` may run on another thread; nothing else may be called meanwhile.
    """

    def __init__(self, vocabulary: TokenVocabulary, matcher: llguidance.LLMatcher) -> None:
        self.vocabulary = vocabulary
        self.matcher = matcher
        self._mask: BoolArray | None = None

    def copy(self) -> TokenConstraint:
        """Another sequence's way that begins where this one stands."""
        return TokenConstraint(self.vocabulary, self.matcher.deep_copy())

    @property
    def done(self) -> bool:
        """Whether the answer is whole and nothing can be added to it."""
        return bool(self.matcher.is_stopped() and not self.matcher.is_error())

    def prepare(self) -> None:
        """Compute the mask of the next token. Errors wait for `mask`."""
        bits = np.zeros(-(-self.vocabulary.size // 32), np.uint32)
        if not self.matcher.is_error():
            self.matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        self.take_bits(bits)

    def take_bits(self, bits: npt.NDArray[np.uint32]) -> None:
        """The mask as llguidance writes it: a bit a token, [ceil(vocab / 32)]."""
        flat = np.unpackbits(bits.view(np.uint8), count=self.vocabulary.size, bitorder="little")
        self._mask = flat.view(np.bool_)

    def mask(self) -> BoolArray:
        """Which tokens may come next, [vocab]; end tokens only where the answer is whole.

        Raises ConstraintError when that takes too long to find out.
        """
        if self._mask is None:
            self.prepare()
        _check(self.matcher)
        assert self._mask is not None
        return self._mask

    def accept(self, token: int) -> None:
        """The token was taken. Raises ConstraintError for one that may not come here."""
        self._mask = None
        if not self.matcher.consume_token(token):
            _check(self.matcher)

    def forced(self) -> list[int]:
        """The tokens that must come next, as a tokenizer would write their text; often none."""
        if self.done:
            return []
        tokens = self.matcher.compute_ff_tokens()
        _check(self.matcher)
        return list(tokens)


def _check(matcher: llguidance.LLMatcher) -> None:
    if matcher.is_error():
        raise ConstraintError(_reason(matcher.get_error()))


def _reason(text: str) -> str:
    """llguidance's message as one sentence of bounded length."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("<", "|", "^")) and line != ">"]
    words = "; ".join(lines[:3]) or "no reason was given"
    words = words if len(words) <= 300 else words[:299] + "…"
    return f"no answer of this form can be made: {words}"


class MaskWorker:
    """Computes the masks of a step while the model runs."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._executor: llguidance.LLExecutor | None = None
        self._running: Future[None] | None = None

    def begin(self, constraints: Sequence[TokenConstraint]) -> None:
        """Start on all of them; `join` before they are touched again."""
        if not constraints:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="freehold-masks")
        self._running = self._thread.submit(self._compute, list(constraints))

    def join(self) -> None:
        """Wait for what was begun."""
        if self._running is not None:
            running, self._running = self._running, None
            running.result()

    def _compute(self, constraints: list[TokenConstraint]) -> None:
        # One in an error would fail the call for all of them; its own sequence will tell of it.
        sound = [c for c in constraints if not c.matcher.is_error()]
        if len(sound) < 2:
            for constraint in sound:
                constraint.prepare()
            return
        if self._executor is None:
            self._executor = llguidance.LLExecutor(_PARALLEL)
        words = -(-sound[0].vocabulary.size // 32)
        bits = np.zeros((len(sound), words), np.uint32)
        pairs = [(constraint.matcher, row) for row, constraint in enumerate(sound)]
        self._executor.unsafe_compute_mask_ptr(pairs, bits.ctypes.data, 4 * words, len(sound))
        for row, constraint in enumerate(sound):
            constraint.take_bits(bits[row])
