# SPDX-License-Identifier: Apache-2.0
"""Streaming text: whole characters only, and stop strings across tokens."""

from __future__ import annotations

import pytest
from chat_data import gguf_metadata_tokenizer, gguf_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.chat.detokenizer import Detokenizer, TextStream

P = "tokenizer.ggml."


def byte_tokenizer():
    """One token per byte, `<s>` and `</s>`, and a few pieces with spaces."""
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    pieces += [(f"<0x{b:02X}>", 6) for b in range(256)]
    pieces += [("▁", 1), ("▁a", 1), ("a", 1), ("▁b", 1), ("b", 1)]
    return gguf_metadata_tokenizer(
        {
            P + "model": "llama",
            P + "tokens": [p[0] for p in pieces],
            P + "token_type": [p[1] for p in pieces],
            P + "scores": [0.0] * len(pieces),
        }
    )


TOKENIZER = byte_tokenizer()


def ids_of(data: bytes) -> list[int]:
    return [3 + b for b in data]


def stream(ids, **options):
    detokenizer = Detokenizer(TOKENIZER, **options)
    return [detokenizer.push(i) for i in ids] + [detokenizer.flush()]


def test_a_split_character_waits_until_it_is_whole():
    pieces = stream(ids_of("a🦙é".encode()))
    assert pieces == ["a", "", "", "", "🦙", "", "é", ""]
    family = "👩‍👩‍👧".encode()
    assert "".join(stream(ids_of(family))) == family.decode()


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (b"\xf0\x9fa", ["", "", "\ufffda", ""]),  # cut short by another character
        (b"\xffa", ["\ufffd", "a", ""]),
        (b"\xe6\xbc", ["", "", "\ufffd"]),  # never finished
        (b"\x80", ["\ufffd", ""]),
    ],
)
def test_only_invalid_bytes_are_replaced(data, pieces):
    assert stream(ids_of(data)) == pieces
    assert "".join(pieces) == data.decode("utf-8", "replace")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30), st.booleans())
def test_pieces_add_up_for_any_ids(ids, skip_special):
    whole = TOKENIZER.decode(ids, skip_special=skip_special)
    assert "".join(stream(ids, skip_special=skip_special)) == whole


def test_the_leading_space_goes_at_the_start_only():
    space_a, space_b = TOKENIZER.encode("a b", add_special=False)
    assert stream([space_a, space_b]) == ["a", " b", ""]
    assert stream([1, space_a]) == ["", "a", ""]
    assert stream([space_a], continues=True) == [" a", ""]
    assert TOKENIZER.decode([1, space_a], skip_special=True) == "a"
    # A printed control token is the start, and the space behind it is text.
    assert TOKENIZER.decode([1, space_a]) == "<s> a"


def test_control_tokens_are_hidden_unless_wanted():
    assert stream([2, *ids_of(b"x")]) == ["", "x", ""]
    assert stream([2, *ids_of(b"x")], skip_special=False) == ["</s>", "x", ""]


# -- stop strings ----------------------------------------------------------------------------


def run(text: str, stop, sizes=(1,)):
    """Push the bytes of `text` in groups of the given sizes; (pieces, stop string found)."""
    stream = TextStream(TOKENIZER, stop)
    ids, pieces, k = ids_of(text.encode()), [], 0
    while ids:
        size = sizes[k % len(sizes)]
        pieces.append(stream.push(ids[:size]))
        ids, k = ids[size:], k + 1
    return [*pieces, stream.finish()], stream.stopped


def test_a_stop_string_over_several_tokens():
    pieces, stopped = run("abSTOPcd", ["STOP"])
    assert "".join(pieces) == "ab"
    assert stopped == "STOP"
    assert pieces[:2] == ["a", "b"]  # text that cannot begin it is not held back


def test_held_text_is_released():
    pieces, stopped = run("aSTOxST", ["STOP"])
    assert pieces == ["a", "", "", "", "STOx", "", "", "ST"]
    assert stopped is None


def test_overlapping_beginnings():
    assert run("aababac", ["abac"])[0][-1] == ""
    assert "".join(run("aababac", ["abac"])[0]) == "aab"
    assert "".join(run("\n\nUser:", ["\nUser:", "\n\nX"])[0]) == "\n"
    assert run("x</s>", ["s>", "</s>"])[1] == "</s>"  # they end together: the longer one


def test_after_the_stop_nothing_comes():
    stream = TextStream(TOKENIZER, ["b"])
    assert stream.push(ids_of(b"abc")) == "a"
    assert stream.push(ids_of(b"d")) == stream.finish() == ""
    assert stream.stopped == "b"


def test_without_stop_strings_it_is_a_detokenizer():
    pieces, stopped = run("é🦙", [])
    assert pieces == ["", "é", "", "", "", "🦙", ""]
    assert stopped is None


@settings(max_examples=400, deadline=None)
@given(
    st.text("ab<é🦙", max_size=30),
    st.lists(st.text("ab<é🦙", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
)
def test_any_grouping_gives_the_first_completed_stop(text, stop, sizes):
    ends = [(text.find(s) + len(s), -len(s), s) for s in stop if s in text]
    expected, found = text, None
    if ends:
        end, _, found = min(ends)
        expected = text[: end - len(found)]
    pieces, stopped = run(text, stop, sizes)
    assert "".join(pieces) == expected
    assert stopped == found


def test_real_vocabulary_with_a_stop_string_inside_a_token():
    tokenizer = gguf_tokenizer("gpt-2")
    ids = tokenizer.encode("The answer is forty-two, obviously. END of story")
    stream = TextStream(tokenizer, [". EN"])
    assert "".join(stream.push([i]) for i in ids) == "The answer is forty-two, obviously"
    assert stream.stopped == ". EN"
