import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import given

from duologue.realtime.errors import ReplyRefusedError, SessionError
from duologue.speech import Speech

words = st.text("ab ,.\n", min_size=1, max_size=40)


@st.composite
def speeches(draw):
    speech = Speech(0)
    timed = draw(st.booleans())
    for text in draw(st.lists(words, max_size=6)):
        item = draw(st.sampled_from("xy"))
        speech.add_text(f"{text} ", speech.seconds if timed else None, item)
        speech.seconds += draw(st.floats(0, 3))
    return speech


@given(speeches(), st.floats(0, 20), st.floats(0, 20))
def test_what_was_heard_is_a_prefix_that_only_grows(speech, one, other):
    early, late = sorted((one, other))
    assert speech.text.startswith(speech.words_until(early))
    assert speech.words_until(late).startswith(speech.words_until(early))


@given(speeches(), st.floats(0, 20))
def test_what_was_heard_ends_with_a_whole_word(speech, seconds):
    heard = speech.words_until(seconds)
    assert heard == heard.rstrip()
    after = speech.text[len(heard) : len(heard) + 1]
    assert not after or after.isspace() or not heard


@given(speeches(), st.floats(0, 20))
def test_the_items_share_what_was_heard(speech, seconds):
    both = speech.words_until(seconds, "x") + speech.words_until(seconds, "y")
    assert len("".join(both.split())) == len("".join(speech.words_until(seconds).split()))


def test_words_with_times_are_cut_by_them():
    speech = Speech(0)
    for text in ("one two ", "three four "):
        speech.add_text(text, speech.seconds)
        speech.seconds += 1.0
    assert speech.words_until(0.0) == ""
    assert speech.words_until(1.0) == "one two"
    assert speech.words_until(1.5) == "one two three"
    assert speech.words_until(2.0) == "one two three four"


def test_words_without_times_are_assumed_no_faster_than_people_speak():
    speech = Speech(0)
    speech.add_text("a long sentence that is only beginning to be spoken")
    speech.seconds = 0.5
    assert len(speech.words_until(0.5)) <= 10


async def test_awaiting_ends_when_it_was_heard():
    speech = Speech(0)
    speech.add_text("hello ")
    waiting = asyncio.ensure_future(_wait(speech))
    await asyncio.sleep(0)
    assert not waiting.done()
    speech.finish("heard", 1.2345, "device")
    assert await waiting is speech
    assert (speech.state, speech.played_ms, speech.heard_text) == ("heard", 1234, "hello")
    assert speech.quality == "device"
    assert speech.done
    assert not speech.interrupted


async def _wait(speech):
    return await speech


async def test_awaiting_a_cut_speech_gives_it():
    speech = Speech(3, interruptible=False)
    speech.add_text("hello there", 0.0)
    speech.seconds = 2.0
    speech.finish("cut", 0.0, "estimated")
    assert (await speech).interrupted
    assert speech.heard_text == ""
    assert "cut epoch 3" in repr(speech)


async def test_a_speech_ends_once():
    speech = Speech(0)
    speech.fail(ReplyRefusedError("no"))
    speech.finish("heard", 1.0, "device")
    speech.fail(SessionError("other"))
    assert speech.state == "failed"
    with pytest.raises(ReplyRefusedError, match="no"):
        await speech


async def test_a_speech_that_fails_at_its_end_was_heard_so_far():
    speech = Speech(0)
    speech.add_text("one two ", 0.0)
    speech.seconds = 1.0
    speech.add_text("three four", 1.0)
    speech.fail_at_end(SessionError("gone"))
    assert not speech.done
    speech.finish("heard", 1.0, "device")
    assert (speech.state, speech.heard_text) == ("failed", "one two")
    with pytest.raises(SessionError, match="gone"):
        await speech


async def test_a_cut_comes_before_a_failure():
    speech = Speech(0)
    speech.fail_at_end(SessionError("gone"))
    speech.finish("cut", 0.5, "device")
    assert (await speech).state == "cut"


async def test_cancelling_the_wait_does_not_end_it():
    speech = Speech(0)
    waiting = asyncio.ensure_future(_wait(speech))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not speech.done


def test_an_item_begins_where_the_sound_was():
    speech = Speech(0)
    assert speech.begin_item("a") == 0.0
    speech.seconds = 1.5
    assert speech.begin_item("b") == 1.5
    speech.seconds = 2.0
    assert speech.begin_item("b") == 1.5
