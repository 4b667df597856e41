# SPDX-License-Identifier: Apache-2.0
"""What texts begin with is tokenised once, and never shows."""

from __future__ import annotations

import random
import threading

import pytest

from freehold.chat.beginnings import _KEPT, Beginnings
from freehold.chat.bpe import _WORD_END
from freehold.chat.pretokenizers import PRE_SPLITTERS

PIECES = [
    "a", "B", "zebra", "it's", "I'LL", "é", "e\u0301", "\u0301", "Ω", "東京", "ひらがな", "한국",
    "1", "12345", ",", ", ", "...", "!?", "(", ")", "'", "_", "-", "$", "`", "¡", "।", "\u00ad",
    " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "😀", "\u200d", "ﬁ", "ǅ", "ª", "/",
]  # fmt: skip
SPLITTERS = sorted({s for s in PRE_SPLITTERS.values() if s.byte_level}, key=repr)


def words(seed: int, count: int) -> str:
    rng = random.Random(seed)
    return "".join(
        rng.choice(PIECES) + rng.choice(("", "", " ", "x ", "Q", "y,", "Z.", "u!", "v?"))
        for _ in range(count)
    )


@pytest.mark.parametrize("splitter", SPLITTERS, ids=lambda s: s.passes[-1][:24])
def test_every_splitter_cuts_where_a_word_ends(splitter):
    made = splitter.build()
    places = 0
    for seed in range(200):
        text = words(seed, 24)
        whole = [piece for piece, _ in made.pre_tokenize_str(text)]
        for match in _WORD_END.finditer(text):
            left, right = text[: match.start()], text[match.start() :]
            parts = [*made.pre_tokenize_str(left), *made.pre_tokenize_str(right)]
            assert [piece for piece, _ in parts] == whole, (left, right)
            places += 1
    assert places > 300


def encoded(text: str) -> list[int]:
    """Ids that tell each piece from its neighbours."""
    made = PRE_SPLITTERS["qwen2"].build()
    return [hash(piece) for piece, _ in made.pre_tokenize_str(text)]


def test_ids_are_those_of_the_whole_text():
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return encoded(text)

    made = Beginnings(encode, _WORD_END)
    long = "Classify the document. " + "one of many labels, " * 40
    texts = [long + words(n, 12) for n in range(20)]
    other = "Answer as JSON. " + "field: what goes there, " * 40
    texts += [mixed for n in range(20) for mixed in (other + words(n, 9), long + words(n, 7))]
    texts += [words(n, 300) for n in range(30)] + texts[:5] + ["short", "", long, other]
    for text in texts:
        assert made.encode(text) == encoded(text)
    spent = sum(map(len, asked))
    assert spent < sum(map(len, texts)) / 2
    assert max(len(made._known), len(made._recent)) <= _KEPT


def test_what_few_have_in_common_does_not_stand_in_the_way_of_the_rest():
    """Two texts that begin alike by chance, then others that share the instruction alone."""
    asked: list[int] = []

    def encode(text: str) -> list[int]:
        asked.append(len(text))
        return encoded(text)

    made = Beginnings(encode, _WORD_END)
    long = "one_of_many_labels, " * 60 + "and_the_last.\n\n"  # hardly a space behind a letter
    texts = [long + "where is my card then", long + "where is my card now"]
    texts += [long + f"{n} questions" for n in range(30)]
    for text in texts:
        assert made.encode(text) == encoded(text)
    assert max(asked[20:]) < 100


def test_a_word_that_others_begin_with_is_not_cut():
    made = Beginnings(encoded, _WORD_END)
    long = "one:of:many:labels;" * 30 + "\n\n"
    for text in ("I am here", "I need it", "Is it", "It's", "I", "I,", "If I need", "", "I"):
        assert made.encode(long + text) == encoded(long + text)
    assert made._known


def test_threads_may_share_them():
    made = Beginnings(encoded, _WORD_END)
    wrong: list[str] = []

    def work(number: int) -> None:
        for n in range(200):
            text = f"the long beginning of {n % 7} " * 20 + words(number * 1000 + n, 5)
            if made.encode(text) != encoded(text):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
