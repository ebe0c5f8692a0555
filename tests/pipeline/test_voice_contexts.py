import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.pipeline._voice_contexts import MAX_TEXT_CHARS, MAX_TRIES, VoiceContexts
from duologue.pipeline.interfaces import SpokenText, StoppedText
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextClause,
    ContextEnded,
    ContextFailed,
    ContextStopped,
    ContextTokens,
    VoiceFailed,
    VoiceTraits,
)

RATE = 8000
CHAR = 400
"""Samples of a character: 20 characters a second."""
BROKEN = SessionError("gone", kind=ErrorKind.RECYCLE)


class PlainCodec:
    """Messages are tuples, and what is received are the events themselves."""

    def open(self):
        return [("open",)]

    def start(self, context):
        return [("start", context)]

    def text(self, context, text):
        return [("text", context, text)]

    def flush(self, context):
        return [("flush", context)]

    def finish(self, context):
        return [("finish", context)]

    def cancel(self, context, played_s):
        return [("cancel", context, played_s)]

    def keep_alive(self):
        return []

    def decode(self, message):
        return [message]


class Service:
    """Speaks what it is sent, a character a time, when it is told to."""

    def __init__(self, contexts, timing):
        self.contexts = contexts
        self.timing = timing
        self.log = []
        self.connect()

    def connect(self):
        self.texts, self.spoken, self.ended, self.samples = {}, {}, set(), {}
        self.contexts.connected(PlainCodec())
        self.take()

    def take(self):
        for message in self.contexts.messages():
            self.log.append(message)
            match message:
                case ("start", context):
                    assert len(self.texts) < self.contexts.traits.max_contexts
                    self.texts[context], self.spoken[context] = "", 0
                case ("text", context, text):
                    assert context not in self.ended
                    begin = len(self.texts[context])
                    self.texts[context] += text
                    if self.timing == "words":
                        for index, character in enumerate(text, begin):
                            at = index * CHAR / RATE
                            self.say(ContextTokens(context, [(character, at, at + CHAR / RATE)]))
                    elif self.timing == "clauses":
                        self.samples.setdefault(context, []).append((begin, text))
                case ("finish", context):
                    self.ended.add(context)
                case ("cancel", context, played):
                    heard = None if played is None else self.texts[context][: int(played * 20)]
                    self.texts.pop(context)
                    self.say(ContextStopped(context, heard))
                case _:
                    pass

    def say(self, event):
        assert self.contexts.received(event) is None

    def speak(self, characters):
        for _ in range(characters):
            for context in [*self.texts]:
                at = self.spoken[context]
                if at < len(self.texts[context]):
                    for begin, text in self.samples.get(context, ()):
                        if begin == at:
                            self.say(ContextClause(context, text))
                    self.say(ContextAudio(context, AudioFrame(np.full(CHAR, 5, np.int16), RATE)))
                    self.spoken[context] += 1
                elif context in self.ended:
                    del self.texts[context]
                    self.say(ContextEnded(context))
            self.take()


def setup(timing="words", **traits):
    contexts = VoiceContexts(VoiceTraits(timing, **traits), RATE)
    return contexts, Service(contexts, timing)


def texts_of(outputs):
    return "".join(output.text for output in outputs if isinstance(output, SpokenText))


def seconds_of(outputs):
    return sum(output.duration for output in outputs if isinstance(output, AudioFrame))


@pytest.mark.parametrize("timing", ["words", "clauses", "none"])
def test_a_reply_is_one_context_and_comes_back_as_it_was_sent(timing):
    contexts, service = setup(timing, splits=False)
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    for text in ("Hello there, ", "how are you?"):
        contexts.send(reply, text)
    contexts.finish(reply)
    service.take()
    service.speak(40)
    assert reply.over
    assert texts_of(outputs) == "Hello there, how are you?"
    assert seconds_of(outputs) == pytest.approx(25 / 20)
    assert [message[0] for message in service.log] == ["open", "start", "text", "text", "finish"]


def test_words_have_the_times_of_their_characters():
    contexts, service = setup(splits=False)
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    contexts.send(reply, "one two ")
    contexts.finish(reply)
    service.take()
    service.speak(20)
    words = [output for output in outputs if isinstance(output, SpokenText)]
    assert [(word.text, word.start, word.end) for word in words] == [
        ("one ", 0, 3 * CHAR),
        ("two ", 4 * CHAR, 7 * CHAR),
    ]


def test_text_is_split_for_services_that_want_clauses():
    contexts, service = setup("clauses")
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    for piece in ("First one", ", then the", " second. And a"):
        contexts.send(reply, piece)
    contexts.finish(reply)
    service.take()
    service.speak(60)
    sent = [message[2] for message in service.log if message[0] == "text"]
    assert sent == ["First one, ", "then the second. ", "And a"]
    starts = [output.start for output in outputs if isinstance(output, SpokenText)]
    assert starts == [0, 11 * CHAR, 28 * CHAR]


@given(
    st.sampled_from(["words", "clauses", "none"]),
    st.lists(st.sampled_from(["Yes, ", "we have ", "rooms. ", "Good night", "! "]), min_size=1),
    st.lists(st.integers(0, 25), max_size=MAX_TRIES),
    st.booleans(),
)
def test_a_reply_goes_on_over_lost_connections(timing, pieces, drops, early):
    contexts, service = setup(timing, splits=False, max_contexts=2)
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    text = "".join(pieces)
    for index, piece in enumerate(pieces):
        contexts.send(reply, piece)
        service.take()
        if early and index % 2:
            service.speak(3)
    contexts.finish(reply)
    service.take()
    for characters in drops:
        service.speak(characters)
        contexts.disconnected(BROKEN)
        service.connect()
    service.speak(len(text) + 5)
    assert reply.over
    assert reply.error is None
    assert texts_of(outputs) == text
    # Words come whole: only the pauses behind them are lost. Other text is estimated.
    lost_s = len(drops) * (2 * CHAR / RATE if timing == "words" else 0.4)
    assert seconds_of(outputs) >= len(text) / 20 - lost_s
    starts = [o.start for o in outputs if isinstance(o, SpokenText) and o.start is not None]
    assert starts == sorted(starts)


def test_nothing_of_a_cancelled_reply_comes_through():
    contexts, service = setup("none", splits=False)
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    contexts.send(reply, "a long text")
    service.take()
    service.speak(4)
    context = reply.context
    before = len(outputs)
    contexts.cancel(reply, 2 * CHAR)
    contexts.cancel(reply, 2 * CHAR)
    service.say(ContextAudio(context, AudioFrame.silence(0.1, RATE)))
    service.take()
    assert outputs[before:] == [StoppedText("a ")]
    assert [message for message in service.log if message[0] == "cancel"] == [
        ("cancel", context, 0.1)
    ]
    assert not contexts.has_work


def test_a_reply_that_was_never_sent_leaves_no_context_behind():
    contexts, service = setup(splits=True)
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, "half")
    contexts.cancel(reply, None)
    service.take()
    assert service.log == [("open",)]


def test_a_reply_waits_until_the_service_has_room():
    contexts, service = setup("none", splits=False, max_contexts=1)
    first, second = [], []
    one = contexts.start(first.append, hurry=True)
    two = contexts.start(second.append, hurry=True)
    for reply, text in ((one, "first"), (two, "second")):
        contexts.send(reply, text)
        contexts.finish(reply)
    service.take()
    service.speak(30)
    assert (texts_of(first), texts_of(second)) == ("first", "second")
    assert (one.over, two.over) == (True, True)


def test_a_context_that_the_service_ends_is_followed_by_another():
    contexts, service = setup(splits=False)
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    contexts.send(reply, "before the tool ")
    contexts.flush(reply)
    service.take()
    service.speak(20)
    service.texts.clear()
    service.say(ContextEnded(reply.context))
    contexts.send(reply, "and after")
    contexts.finish(reply)
    service.take()
    service.speak(20)
    assert reply.over
    assert texts_of(outputs) == "before the tool and after"
    assert [message[0] for message in service.log].count("start") == 2


def test_a_reply_fails_when_new_connections_do_not_help():
    contexts, service = setup(splits=False)
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, "hello")
    service.take()
    for _ in range(MAX_TRIES):
        contexts.disconnected(BROKEN)
        assert not reply.over
        service.connect()
    contexts.disconnected(BROKEN)
    assert reply.over
    assert reply.error is BROKEN


def test_a_wrong_key_fails_all_replies_at_once():
    contexts, service = setup(splits=False)
    replies = [contexts.start([].append, hurry=True) for _ in range(2)]
    contexts.send(replies[0], "hello")
    service.take()
    wrong = SessionError("wrong key", kind=ErrorKind.FATAL)
    contexts.disconnected(wrong)
    assert replies[0].error is wrong
    assert not replies[1].over  # It has no text: it may be sent on a later connection.


def test_an_error_of_one_context_spares_the_others():
    contexts, service = setup(splits=False, max_contexts=2)
    one, two = (contexts.start([].append, hurry=True) for _ in range(2))
    for reply in (one, two):
        contexts.send(reply, "hello ")
    service.take()
    error = SessionError("no such voice")
    service.say(ContextFailed(one.context, error))
    assert one.error is error
    assert not two.over
    assert contexts.received(VoiceFailed(BROKEN)) is BROKEN


def test_a_context_that_may_succeed_later_is_tried_again_on_the_next_connection():
    contexts, service = setup(splits=False)
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, "hello ")
    contexts.finish(reply)
    service.take()
    busy = SessionError("too many", kind=ErrorKind.RECYCLE)
    for _ in range(MAX_TRIES):
        assert contexts.received(ContextFailed(reply.context, busy)) is busy
        contexts.disconnected(busy)
        assert not reply.over
        service.connect()
    assert contexts.received(ContextFailed(reply.context, busy)) is busy
    contexts.disconnected(busy)
    assert reply.error is busy


@pytest.mark.parametrize("finishes", [True, False])
def test_text_on_its_way_when_the_service_ends_a_context_is_spoken_in_the_next(finishes):
    outputs = []
    contexts, service = setup(splits=False, max_contexts=2)
    reply = contexts.start(outputs.append, hurry=True)
    contexts.send(reply, "one ")
    service.take()
    service.speak(4)
    first = reply.context
    contexts.send(reply, "two three ")
    if finishes:
        contexts.finish(reply)
    service.take()
    service.ended.discard(first)
    del service.texts[first]
    service.say(ContextEnded(first))
    contexts.finish(reply)
    service.take()
    assert service.texts == {reply.context: "two three "}
    service.speak(20)
    assert reply.over
    assert "".join(one.text for one in outputs if isinstance(one, SpokenText)) == "one two three "


def test_text_that_the_service_never_speaks_is_not_sent_without_end():
    contexts, service = setup(splits=False)
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, "hello ")
    contexts.finish(reply)
    service.take()
    for _ in range(MAX_TRIES + 1):
        assert not reply.over
        context = reply.context
        del service.texts[context]
        service.say(ContextEnded(context))
        service.take()
    assert reply.over
    assert reply.error is None


def test_audio_without_times_is_not_made_twice():
    outputs = []
    contexts = VoiceContexts(VoiceTraits("words", splits=False), RATE)
    contexts.connected(PlainCodec())
    reply = contexts.start(outputs.append, hurry=True)
    contexts.send(reply, "one two three four five six seven eight nine ten ")
    contexts.finish(reply)
    for _ in range(2):
        frame = AudioFrame(np.full(RATE, 5, np.int16), RATE)
        contexts.received(ContextAudio(reply.context, frame))
    contexts.messages()
    contexts.disconnected(BROKEN)
    contexts.connected(PlainCodec())
    texts = [one for one in outputs if isinstance(one, SpokenText)]
    assert texts == [SpokenText("one two three four five six", 0, 2 * RATE)]
    assert ("text", reply.context, " seven eight nine ten ") in contexts.messages()


def test_a_reply_without_text_ends_at_once():
    contexts, service = setup()
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, " ")
    contexts.finish(reply)
    service.take()
    assert reply.over
    assert service.log == [("open",)]


def test_it_waits_for_audio_of_a_reply_whose_text_has_ended():
    contexts, service = setup(splits=False)
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, "hello")
    assert not contexts.waits_for_audio
    contexts.finish(reply)
    assert contexts.waits_for_audio
    service.take()
    service.speak(20)
    assert not contexts.waits_for_audio
    stopped = contexts.start([].append, hurry=True)
    contexts.send(stopped, "hello")
    contexts.cancel(stopped, None)
    assert contexts.waits_for_audio


def test_a_flush_speaks_what_is_no_clause_yet():
    contexts, service = setup("none", splits=True)
    reply = contexts.start([].append, hurry=False)
    contexts.send(reply, "One moment")
    contexts.flush(reply)
    service.take()
    assert [message[0] for message in service.log] == ["open", "start", "text", "flush"]
    contexts.disconnected(BROKEN)
    service.connect()
    assert [message[0] for message in service.log][4:] == ["open", "start", "text", "flush"]


def test_what_comes_after_the_end_of_a_reply_does_nothing():
    contexts, service = setup("none", splits=False)
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    contexts.send(reply, "hello")
    contexts.finish(reply)
    contexts.send(reply, "more")
    contexts.flush(reply)
    contexts.finish(reply)
    service.take()
    service.speak(20)
    contexts.cancel(reply, 5)
    assert texts_of(outputs) == "hello"
    assert service.contexts.messages() == []


def test_without_a_connection_text_waits_but_not_without_bounds():
    contexts = VoiceContexts(VoiceTraits("none", splits=False), RATE)
    outputs = []
    reply = contexts.start(outputs.append, hurry=True)
    contexts.send(reply, "hello")
    assert contexts.received(ContextEnded("x")) is None
    assert contexts.messages() == []
    assert contexts.has_work
    contexts.send(reply, "x" * MAX_TEXT_CHARS)
    assert reply.over
    assert "too much text" in str(reply.error)


def test_a_reply_that_was_spoken_when_the_connection_was_lost_is_over():
    contexts, service = setup(splits=False)
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, "hello ")
    contexts.finish(reply)
    service.take()
    service.speak(6)
    contexts.disconnected(BROKEN)
    assert reply.over
    assert reply.error is None


def test_a_service_that_does_not_confirm_a_cancel_is_not_waited_for():
    contexts, _ = setup("none", splits=False, confirms_cancel=False)
    reply = contexts.start([].append, hurry=True)
    contexts.send(reply, "hello")
    context = reply.context
    contexts.cancel(reply, None)
    assert not contexts.waits_for_audio
    assert contexts.received(ContextStopped(context, "hel")) is None
