# SPDX-License-Identifier: Apache-2.0
"""Long texts in pieces, and the tree of their summaries."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted, always

from freehold.documents import summarize
from freehold.documents.chunks import chunk
from freehold.errors import AnswerError, ContextLengthError, InvalidParameterError


def letters(text: str) -> int:
    return len(text)


PIECES = st.sampled_from(
    ["# Title\n", "Word. ", "a|b|c\n", "\n\n", "long" * 20, "東京。", "```\ncode\n```\n", " ", "\t",
     "1.2 Part\n", "Sum\n===\n", "e\u0301", "x\ty\tz\n", "?! "]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join), st.integers(1, 90), st.integers(0, 3))
def test_pieces_fit_and_join_to_the_text(text, limit, overlap):
    pieces = chunk(text, limit, letters, overlap=overlap)
    assert "".join(p.text[p.repeated :] for p in pieces) == text
    for piece in pieces:
        assert piece.text == text[piece.start : piece.end]
        assert letters(piece.text) <= limit
    if overlap == 0:
        assert not any(piece.repeated for piece in pieces)


def test_what_surely_fits_is_not_counted():
    """Counting may be a request to another machine."""
    asked = []

    def counted(text: str) -> int:
        asked.append(text)
        return len(text)

    assert [p.text for p in chunk("A short note.", 14, counted)] == ["A short note."]
    assert asked == []
    for text, limit in (("A short note.", 13), ("Kürzer", 14)):
        chunk(text, limit, counted)
        assert text in asked


def test_cuts_are_where_people_would_cut():
    text = "# One\n\nFirst part. It is short.\n\n# Two\n\nSecond part, rather long. Also short.\n"
    assert [p.text for p in chunk(text, 60, letters)] == [text[:33], text[33:]]
    sentences = "One is here. Two is there. Three is not."
    assert [p.text for p in chunk(sentences, 28, letters)] == [sentences[:27], sentences[27:]]
    words = "alpha beta gamma delta"
    assert all(p.text.endswith((" ", "delta")) for p in chunk(words, 12, letters))


def test_a_table_stays_whole_where_it_fits():
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"
    text = "Some words before it. " * 3 + "\n\n" + table + "\nAnd some words after it."
    assert any(table.strip() in p.text for p in chunk(text, 80, letters))


def test_a_heading_goes_with_what_it_is_above():
    text = "Intro words here.\n\nHeading\n=======\n\nBody of the part that follows it.\n"
    for piece in chunk(text, 55, letters):
        assert not piece.text.rstrip().endswith(("Heading", "======="))


def test_sentences_are_repeated_as_far_as_they_fit():
    text = "".join(f"Sentence number {n} is this one. " for n in range(30))
    pieces = chunk(text, 200, letters, overlap=1)
    assert len(pieces) > 3
    for piece in pieces[1:]:
        assert piece.text[: piece.repeated].startswith("Sentence")
        assert 0 < piece.repeated <= 50


@pytest.mark.parametrize(
    "text",
    ["x" * 150_000, "x " * 75_000, "\n" * 150_000, "|" * 150_000, "a.\n" * 50_000,
     "```\n" * 40_000, "# h\n" * 40_000],
    ids=["letters", "words", "lines", "bars", "sentences", "fences", "headings"],
)  # fmt: skip
def test_long_texts_take_time_in_proportion(text):
    calls = 0

    def count(piece: str) -> int:
        nonlocal calls
        calls += len(piece)
        return len(piece) // 4 + 1

    pieces = chunk(text, 1000, count, overlap=1)
    assert "".join(p.text[p.repeated :] for p in pieces) == text
    assert calls < 60 * len(text)


# -- summaries ------------------------------------------------------------------------------------


def test_a_long_document_is_read_whole():
    text = "".join(f"Fact {n} is told here in a sentence. " for n in range(100))
    asker = Scripted(lambda prompt: prompt.partition("\n\n")[2][:30], context=700)
    (answer,) = summarize(asker, [text])
    assert answer.value["read"] == 1.0
    assert answer.value["skipped"] == []
    assert answer.value["pieces"] > 3
    assert answer.value["rounds"] >= 2
    assert answer.value["summary"].startswith("Fact 0 is told")
    for number in range(100):
        assert any(f"Fact {number} is told" in prompt for prompt in asker.prompts)
    assert answer.usage.prompt_tokens == sum(map(len, asker.prompts))


def test_a_piece_that_fails_fails_the_document_or_is_told():
    text = "".join(f"Fact {n} is told here in a sentence. " for n in range(60))
    asker = Scripted(lambda prompt: "" if "Fact 30" in prompt else "short", context=700)
    (answer,) = summarize(asker, [text])
    assert isinstance(answer.error, AnswerError)
    assert "characters" in answer.error.message
    (answer,) = summarize(asker, [text], allow_partial=True)
    ((start, end),) = answer.value["skipped"]
    assert "Fact 30" in text[start:end]
    assert answer.value["read"] == pytest.approx(1 - (end - start) / len(text))


def test_the_length_is_asked_for_and_given_room():
    asker = always("Some prose.")
    (answer,) = summarize(asker, ["text"], words=50)
    assert answer.value["summary"] == "Some prose."
    assert "at most 50 words" in asker.prompts[0]
    (answer,) = summarize(always("x" * 180), ["text"], words=60)
    assert answer.value is not None
    (answer,) = summarize(always("x" * 900, context=4000), ["text"], words=60)
    assert "did not end" in answer.error.message
    for words in (0, 10**6):
        with pytest.raises(InvalidParameterError):
            summarize(asker, ["text"], words=words)


def test_summaries_that_do_not_get_shorter_end():
    asker = Scripted(lambda prompt: prompt.partition("\n\n")[2][:120], context=500)
    (answer,) = summarize(asker, ["word " * 2000])
    assert answer.error is None or isinstance(answer.error, AnswerError)
    endless = Scripted(lambda prompt: "x" * 100, context=250)
    (answer,) = summarize(endless, ["word. " * 100])
    assert isinstance(answer.error, AnswerError)


def test_no_room_is_an_error_of_the_document():
    (answer,) = summarize(always("x", context=60), ["text"])
    assert isinstance(answer.error, ContextLengthError)
