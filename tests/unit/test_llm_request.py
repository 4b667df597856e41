# SPDX-License-Identifier: Apache-2.0
"""From engine outputs to text: end tokens, stop strings and several tokens in one step."""

from __future__ import annotations

import pytest

from freehold._llm_request import EventStream, Request
from freehold.engine.sequence import StepOutput
from freehold.errors import EngineError
from freehold.types import SamplingParams, TokenLogprob

PIECES = [b"", b"one", b" two", b" three", b" fo", b"ur", b"\xe4\xb8", b"\x96"]
END = 0


class Words:
    """As much of a tokenizer as a detokenizer asks for."""

    vocab_size = len(PIECES)
    strips_leading_space = True

    def piece(self, token_id: int, *, skip_special: bool) -> bytes:
        assert skip_special
        return PIECES[token_id]


def request(*, stop=(), tokenizer=True, continues=True, **settings) -> Request:
    params = SamplingParams(stop=stop, **settings)
    return Request((9, 9), params, Words() if tokenizer else None, continues=continues)


def feed(made: Request, *steps: tuple, finished=None, stop_reason=None) -> list:
    """Give the steps' ids, the last with the ending; takes the events."""
    for number, ids in enumerate(steps):
        last = number == len(steps) - 1
        made.take(
            StepOutput(
                "r",
                ids,
                tuple(TokenLogprob(i, -0.5, 1) for i in ids)
                if made.params.logprobs is not None
                else None,
                finished=finished if last else None,
                stop_reason=stop_reason if last else None,
                prefill_seconds=1.0,
                decode_seconds=2.0,
            )
        )
    return list(made.events)


def test_texts_add_up_and_the_last_event_carries_the_whole():
    made = request()
    events = feed(made, (1,), (2, 3), (2,), finished="length")
    assert [event.text for event in events] == ["one", " two three", " two"]
    whole = made.result()
    assert events[-1].completion is whole
    assert (whole.text, whole.token_ids) == ("one two three two", (1, 2, 3, 2))
    assert (whole.finish_reason, whole.stop_reason) == ("length", None)
    assert (whole.prompt_token_ids, whole.prefill_seconds, whole.decode_seconds) == ((9, 9), 1, 2)
    assert made.done


def test_an_end_token_belongs_to_the_ids_but_not_to_the_text():
    made = request(stop_token_ids=(3,))
    feed(made, (1, 2, 3), finished="stop", stop_reason=3)
    assert made.result().text == "one two"
    assert made.result().token_ids == (1, 2, 3)
    assert made.result().stop_reason == 3


def test_the_same_token_is_text_where_it_does_not_end_the_answer():
    made = request()
    feed(made, (1, 3), finished="length")
    assert made.result().text == "one three"


def test_a_stop_string_inside_a_step_drops_the_tokens_behind_it():
    made = request(stop=("two",), logprobs=0)
    (event,) = feed(made, (1, 2, 3, 3))
    assert (event.text, event.token_ids) == ("one ", (1, 2))
    assert len(event.logprobs) == 2
    whole = made.result()
    assert (whole.finish_reason, whole.stop_reason) == ("stop", "two")
    assert len(whole.logprobs) == 2
    assert made.stopped_by_text  # the engine must be told


def test_a_stop_string_in_the_last_step_needs_no_word_to_the_engine():
    made = request(stop=("two",))
    feed(made, (1, 2), finished="length")
    assert made.result().stop_reason == "two"
    assert made.result().finish_reason == "stop"
    assert not made.stopped_by_text


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_settled():
    made = request(stop=(" four!",))
    events = feed(made, (1,), (4,), (5,), (2,), finished="length")
    assert [event.text for event in events] == ["one", "", "", " four two"]
    made = request(stop=(" four!",))
    events = feed(made, (1,), (4,), (5,), finished="length")
    assert "".join(event.text for event in events) == made.result().text == "one four"


def test_a_character_in_two_tokens_arrives_whole():
    events = feed(request(), (6,), (7,), finished="length")
    assert [event.text for event in events] == ["", "世"]


def test_half_a_character_at_the_end_becomes_a_replacement():
    made = request()
    feed(made, (1,), (6,), finished="length")
    assert made.result().text == "one\ufffd"


def test_ids_beyond_the_vocabulary_have_no_text():
    made = request()
    feed(made, (1, 4000, 2), finished="length")
    assert made.result().text == "one two"
    assert made.result().token_ids == (1, 4000, 2)


def test_a_new_text_loses_its_leading_space_and_a_continued_one_keeps_it():
    for continues, text in ((True, " two"), (False, "two")):
        made = request(continues=continues)
        feed(made, (2,), finished="length")
        assert made.result().text == text


def test_without_a_tokenizer_there_are_ids_and_no_text():
    made = request(tokenizer=False)
    feed(made, (1,), (END,), finished="stop", stop_reason=END)
    assert (made.result().text, made.result().token_ids) == ("", (1, END))


def test_a_failed_request_raises_what_made_it_fail():
    made = request()
    feed(made, (1,))
    made.take(StepOutput("r", finished="abort", error=EngineError("broken")))
    with pytest.raises(EngineError, match="broken"):
        made.result()


def test_nothing_is_taken_after_the_end():
    made = request(stop=("one",))
    feed(made, (1,), (2,), (3,))
    assert len(made.events) == 1
    assert made.result().token_ids == (1,)


# -- the stream ----------------------------------------------------------------------------------


def test_a_stream_steps_only_when_it_has_nothing_to_give():
    made = request()
    outputs = [
        StepOutput("r"),
        StepOutput("r", (1,)),
        StepOutput("r", (2,), finished="length"),
    ]
    dropped: list[str] = []
    stream = EventStream(made, lambda: made.take(outputs.pop(0)), dropped.append)
    assert next(stream).text == "one"
    assert len(outputs) == 1
    assert next(stream).completion is not None
    assert next(stream, None) is None


def test_a_stream_gives_its_events_before_its_error():
    made = request()
    outputs = [
        StepOutput("r", (1,)),
        StepOutput("r", finished="abort", error=EngineError("broken")),
    ]
    stream = EventStream(made, lambda: made.take(outputs.pop(0)), lambda _: None)
    assert next(stream).text == "one"
    with pytest.raises(EngineError, match="broken"):
        next(stream)


def test_closing_a_stream_drops_its_request():
    made = request()
    made.request_id = "r7"
    dropped: list[str] = []
    stream = EventStream(made, lambda: None, dropped.append)
    stream.close()
    assert dropped == ["r7"]
    assert next(stream, None) is None


def test_a_step_that_fails_drops_the_request():
    made = request()
    dropped: list[str] = []

    def fail() -> None:
        raise EngineError("the device is gone")

    stream = EventStream(made, fail, dropped.append)
    with pytest.raises(EngineError, match="device"):
        next(stream)
    assert dropped
