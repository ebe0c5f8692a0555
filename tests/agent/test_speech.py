import asyncio
import time

import hypothesis.strategies as st
import pytest
import regex
from hypothesis import given

from duologue.agent.speech import Speech
from duologue.errors import ReplyRefusedError, SessionError

words = st.text("ab ,.\n", min_size=1, max_size=40)
scripts = st.text("ab ,.今天ですสวัดีह\u093fं한😀e\u0301", min_size=1, max_size=40)
RATE = 24000


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
def test_heard_text_is_a_prefix_that_only_grows(speech, one, other):
    early, late = sorted((one, other))
    assert speech.text.startswith(speech.text_until(early))
    assert speech.text_until(late).startswith(speech.text_until(early))


@given(speeches(), st.floats(0, 20))
def test_heard_text_ends_with_a_whole_word(speech, seconds):
    heard = speech.text_until(seconds)
    assert heard == heard.rstrip()
    after = speech.text[len(heard) : len(heard) + 1]
    assert not after or after.isspace() or not heard


@given(speeches(), st.floats(0, 20))
def test_items_share_the_heard_text(speech, seconds):
    both = speech.text_until(seconds, "x") + speech.text_until(seconds, "y")
    assert len("".join(both.split())) == len("".join(speech.text_until(seconds).split()))


def test_timed_text_is_cut_at_its_times():
    speech = Speech(0)
    for text in ("one two ", "three four "):
        speech.add_text(text, speech.seconds)
        speech.seconds += 1.0
    assert speech.text_until(0.0) == ""
    assert speech.text_until(1.0) == "one two"
    assert speech.text_until(1.5) == "one two three"
    assert speech.text_until(2.0) == "one two three four"


@st.composite
def timed_words(draw):
    """Return words with the seconds where each begins and ends; a pause may follow each."""
    words, at = [], draw(st.floats(0, 0.3))
    for number in range(draw(st.integers(1, 12))):
        length = draw(st.floats(0.02, 0.8))
        words.append((f"w{number}", at, at + length))
        at += length + draw(st.sampled_from((0.0, 0.0, 0.55)))
    return words, at


@given(timed_words(), st.floats(0, 12), st.booleans(), st.sampled_from((" ", "")))
def test_heard_words_follow_the_times_of_the_voice(timed, seconds, complete, space):
    words, length = timed
    speech = Speech(0)
    speech.seconds = length
    for word, start, end in words:
        speech.add_text(word + (space or "。"), start, end=end)
    speech.complete = complete
    heard = speech.text_until(seconds)
    claimed = heard.count("w")
    begun = sum(start < seconds for _, start, _ in words)
    whole = sum(end <= seconds for _, _, end in words)
    assert whole <= claimed <= begun
    assert begun - claimed <= 1


def test_a_pause_behind_a_word_is_not_claimed():
    speech = Speech(0)
    for word, start, end in (("there, ", 0.5, 0.85), ("how ", 1.4, 1.6)):
        speech.add_text(word, start, end=end)
    speech.seconds = 2.0
    assert [speech.text_until(at) for at in (0.7, 0.86, 1.39, 1.61)] == [
        "",
        "there,",
        "there,",
        "there, how",
    ]


def test_two_words_of_one_time_are_both_kept():
    speech = Speech(0)
    speech.seconds = 1.0
    for word in ("one ", "two "):
        speech.add_text(word, 0.2, end=0.6)
    speech.complete = True
    assert speech.text_until(0.7) == "one two"
    speech.finish("heard", 1.0, "device")
    assert (speech.heard_text, speech.unspoken) == ("one two", [])


def test_untimed_text_is_assumed_no_faster_than_people_speak():
    speech = Speech(0)
    speech.add_text("a long sentence that is only beginning to be spoken")
    speech.seconds = 0.5
    assert len(speech.text_until(0.5)) <= 10


async def test_await_returns_when_the_speech_was_heard():
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


async def test_await_returns_a_cut_speech():
    speech = Speech(3, interruptible=False)
    speech.add_text("hello there", 0.0)
    speech.seconds = 2.0
    speech.finish("cut", 0.0, "estimated")
    assert (await speech).interrupted
    assert speech.heard_text == ""
    assert "cut epoch 3" in repr(speech)


async def test_speech_ends_once():
    speech = Speech(0)
    speech.fail(ReplyRefusedError("no"))
    speech.finish("heard", 1.0, "device")
    speech.fail(SessionError("other"))
    assert speech.state == "failed"
    with pytest.raises(ReplyRefusedError, match="no"):
        await speech


async def test_speech_that_fails_at_its_end_was_heard_so_far():
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


async def test_cut_takes_precedence_over_a_failure():
    speech = Speech(0)
    speech.fail_at_end(SessionError("gone"))
    speech.finish("cut", 0.5, "device")
    assert (await speech).state == "cut"


async def test_cancelling_the_wait_does_not_end_the_speech():
    speech = Speech(0)
    waiting = asyncio.ensure_future(_wait(speech))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not speech.done


def test_item_begins_where_its_audio_begins():
    speech = Speech(0)
    assert speech.begin_item("a") == 0.0
    speech.seconds = 1.5
    assert speech.begin_item("b") == 1.5
    speech.seconds = 2.0
    assert speech.begin_item("b") == 1.5


@st.composite
def parts(draw):
    """A speech of timed parts, as a TTS makes it, and how many samples of it were played."""
    speech, samples, ends = Speech(0), 0, []
    for text in draw(st.lists(st.text("ab ", min_size=1, max_size=30), min_size=1, max_size=20)):
        speech.add_text(f"x{text}. ", samples / RATE, "item")
        for size in draw(st.lists(st.integers(100, 9000), min_size=1, max_size=6)):
            speech.seconds += size / RATE
            samples += size
        ends.append(samples)
    return speech, ends


@given(parts())
def test_completely_played_part_is_heard_to_its_last_letter(made):
    speech, ends = made
    text = ""
    for words, end in zip(speech.text.split(". ")[:-1], ends[:-1], strict=False):
        text += f"{words}. "
        assert speech.text_until(end / RATE) == text.rstrip()
        # As the playout counts it: in samples at the edge's rate, and in whole ms.
        assert speech.text_until(int(end / RATE * 1000) / 1000) == text.rstrip()
    speech.complete = True
    assert speech.text_until(ends[-1] / RATE) == speech.text.rstrip()


@given(st.lists(scripts, min_size=1, max_size=6), st.floats(0.1, 20), st.floats(0, 20))
def test_heard_text_in_any_script_is_a_prefix_of_whole_clusters(texts, length, seconds):
    speech = Speech(0)
    for text in texts:
        speech.add_text(text)
    speech.seconds = length
    heard = speech.text_until(seconds)
    assert speech.text.startswith(heard)
    rest = speech.text[len(heard) :]
    assert regex.findall(r"\X", heard) + regex.findall(r"\X", rest) == regex.findall(
        r"\X", speech.text
    )


@given(speeches(), speeches())
def test_text_that_a_lost_connection_never_spoke_was_not_heard(before, after):
    speech = before
    received = speech.spoken_text()
    speech.break_off(continues=True)
    assert speech.text.rstrip() == speech.spoken_text() == received
    seconds = speech.seconds
    speech.add_text("late text without audio")
    assert speech.text.rstrip() == received
    speech.resume()
    speech.add_text(after.text or "x", None, "new")
    speech.seconds += after.seconds
    assert speech.text_until(seconds) == received
    speech.complete = True
    speech.finish("heard", speech.seconds or 1.0, "device")
    assert speech.heard_text.split() == [*received.split(), *(after.text or "x").split()]


def test_space_separates_the_text_of_two_connections_if_the_script_has_spaces():
    for first, second, both in [
        ("one two ", "three", "one two three"),
        ("one two", " three", "one two three"),
        ("one two", "three", "one two three"),
        ("今天", "天气", "今天天气"),
        ("one", "天气", "one天气"),
    ]:
        speech = Speech(0)
        speech.add_text(first, None, "a")
        speech.seconds = 9.0
        speech.break_off()
        speech.resume()
        speech.add_text(second, None, "b")
        assert speech.text == both


def test_text_that_replaces_planned_text_keeps_its_times():
    speech = Speech(0)
    for text in ("one ", "two "):
        speech.plan_text(text, "item")
    speech.add_text("uno ", 0.0, "item")
    speech.add_text("due ", 1.0, "item")
    speech.seconds = 4.0
    assert speech.text_until(0.5) == ""
    assert speech.text_until(1.0) == "uno"


def test_text_that_a_voice_leaves_out_was_not_heard():
    speech = Speech(0)
    speech.add_text("Hello. ", 0.0)
    speech.seconds = 1.0
    speech.add_text("您好。 ", 1.0)
    speech.add_text("Bye. ", 1.0)
    speech.seconds = 2.0
    speech.add_text("再见。", 2.0)
    speech.complete = True
    speech.finish("heard", 2.0, "device")
    assert (speech.state, speech.heard_text) == ("heard", "Hello. Bye.")
    assert speech.unspoken == ["您好。 ", "再见。"]


def test_speech_with_text_and_no_audio_is_silent():
    speech = Speech(0)
    speech.add_text("您好。")
    speech.complete = True
    speech.finish("heard", 0.0, "device")
    assert (speech.state, speech.heard_text) == ("silent", "")


def test_items_have_their_own_text_and_times():
    speech = Speech(0)
    for item, text in (("a", "one two three four five "), ("b", "six")):
        speech.begin_item(item)
        speech.add_text(text, None, item)
        speech.seconds += 2.0
    assert speech.text_until(2.0) == "one two three four five"
    assert speech.text_until(2.0, "b") == ""
    speech.merge_items("both")
    assert speech.text_until(2.0, "both") == "one two three four five"
    assert speech.text_until(4.0, "both") == "one two three four five six"


def test_endless_speech_costs_the_same_for_each_word():
    speech = Speech(0)
    started = time.process_time()
    for number in range(100_000):
        if number % 2:
            speech.plan_text("word ", "item")
        else:
            speech.add_text("词 word ", None, "item")
        speech.seconds += 0.3
    for _ in range(3):
        assert speech.spoken_text()
        assert speech.text_until(15_000.0)
    assert time.process_time() - started < 5


def test_repr_shows_state_and_text():
    speech = Speech(0)
    speech.add_text("A text that is much too long to be shown as a whole.")
    start = f"<Speech {speech.id[:8]} waiting epoch 0 0 ms"
    assert repr(speech) == f"{start} 'A text that is much too long to be shown...'>"
    speech.seconds = 1.0
    speech.finish("heard", 1.0, "device")
    assert "heard epoch 0 1000 ms 'A text" in repr(speech)


def test_planned_text_is_not_confirmed_until_it_is_said():
    speech = Speech(0)
    speech.plan_text("I plan ", "a")
    speech.plan_text("this.", "a")
    assert (speech.has_planned_text, speech.confirmed_text) == (True, "")
    assert speech.text == "I plan this."
    speech.add_text("I said ", item_id="a")
    assert speech.confirmed_text == "I said"
    speech.add_text("so.", item_id="a")
    assert (speech.has_planned_text, speech.text) == (False, "I said so.")


def test_broken_off_speech_takes_no_text_until_it_is_resumed():
    speech = Speech(0)
    assert speech.last_item() is None
    assert speech.passage_spoken_text() is None
    speech.resume()  # it is not broken off
    speech.begin_item("a")
    speech.add_text("one two three", item_id="a")
    speech.seconds = 0.5
    speech.break_off(continues=True)
    speech.break_off()
    kept = speech.text
    speech.add_text(" four", item_id="a")
    speech.plan_text(" five", "a")
    assert speech.text == kept == speech.passage_spoken_text() == "one two"
    speech.resume()
    assert speech.passage_spoken_text() is None
    assert speech.last_item() == "a"


def test_clipped_speech_claims_only_what_is_played():
    speech = Speech(0)
    speech.add_text("one two ", 0.0)
    speech.add_text("three four", 1.0)
    speech.seconds = 2.0
    speech.clip(1.0)
    speech.clip(1.0)
    assert (speech.clipped_at, speech.seconds) == (2.0, 4.0)
    speech.complete = True
    assert speech.spoken_text() == "one two"
    speech.finish("heard", 2.0, "device")
    assert speech.heard_text == "one two"


def test_a_speech_that_is_over_stays_so():
    speech = Speech(0)
    speech.finish("cut", 0.0, "device")
    speech.fail(SessionError("too late"))
    assert speech.state == "cut"


def test_a_whole_number_of_milliseconds_is_not_rounded_down():
    speech = Speech(0)
    speech.finish("cut", 32480 / 8000, "device")
    assert speech.played_ms == 4060
