"""User turns for a model that does not signal them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.realtime._session.local_turns import LocalTurns
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded
from duologue.vad.energy import EnergyVAD

RATE = 16000
FRAME = RATE // 50


class Person:
    """Speaks in frames of 20 ms, and keeps the signals."""

    def __init__(self):
        self.turns = LocalTurns(EnergyVAD(), RATE)
        self.position = 0
        self.signals = []

    @property
    def now(self):
        return 10.0 + self.position / RATE

    def speak(self, seconds, level=3000):
        for _ in range(round(seconds * 50)):
            self.position += FRAME
            samples = np.full(FRAME, level, np.int16)
            samples[::2] *= -1
            self.signals += self.turns.detect(samples, self.position, self.now)

    def be_silent(self, seconds):
        self.speak(seconds, 0)

    def transcribe(self, text, piece="p", final=False):
        self.signals += self.turns.translate(UserTranscript(piece, text, final), self.now)

    def reply(self, *, requested=False):
        self.signals += self.turns.reply_started(requested=requested)

    def reply_done(self):
        self.signals += self.turns.reply_done()

    def kinds(self):
        signals, self.signals = self.signals, []
        return [type(one).__name__ for one in signals], signals


def test_a_turn_begins_with_speech_and_ends_with_the_reply():
    person = Person()
    person.be_silent(0.5)
    person.speak(1.0)
    person.transcribe("How ")
    person.transcribe("How are you?")
    person.be_silent(0.5)
    person.reply()
    kinds, signals = person.kinds()
    assert kinds == [
        "SpeechStarted",
        "UserTranscript",
        "UserTranscript",
        "SpeechStopped",
        "UserTranscript",
        "UserTurnEnded",
    ]
    assert len({one.item_id for one in signals}) == 1
    started, stopped, ended = signals[0], signals[3], signals[5]
    assert abs(started.position - 0.5 * RATE) <= 0.04 * RATE
    assert abs(stopped.position - 1.5 * RATE) <= 0.04 * RATE
    assert abs(started.at - 10.5) <= 0.04
    assert abs(stopped.at - 11.5) <= 0.04
    assert signals[4] == UserTranscript(started.item_id, "How are you?", final=True)
    assert ended == UserTurnEnded(started.item_id, stopped.at, True, False, stopped.position)


def test_a_cough_without_text_ends_empty_and_gets_no_reply():
    person = Person()
    person.speak(0.1)
    person.be_silent(7.8)
    assert len(person.signals) == 2
    person.be_silent(0.4)
    _, signals = person.kinds()
    ended = signals[-1]
    assert isinstance(ended, UserTurnEnded)
    assert (ended.empty, ended.reply_follows) == (True, False)


def test_a_turn_without_a_reply_ends_after_a_long_silence():
    person = Person()
    person.speak(0.5)
    person.transcribe("Hm.")
    person.be_silent(2.8)
    assert len(person.signals) == 3
    person.be_silent(0.4)
    kinds, signals = person.kinds()
    assert kinds[-2:] == ["UserTranscript", "UserTurnEnded"]
    assert (signals[-2].final, signals[-1].empty, signals[-1].reply_follows) == (True, False, True)


def test_a_transcript_after_the_start_of_the_reply_belongs_to_the_turn_before():
    person = Person()
    person.speak(0.5)
    person.be_silent(0.5)
    person.reply()
    person.transcribe("Late")
    person.transcribe("Late words.")
    person.reply_done()
    kinds, signals = person.kinds()
    assert kinds[-4:] == ["UserTurnEnded", "UserTranscript", "UserTranscript", "UserTranscript"]
    assert len({one.item_id for one in signals}) == 1
    assert signals[-1] == UserTranscript(signals[0].item_id, "Late words.", final=True)
    assert [one.final for one in signals if isinstance(one, UserTranscript)] == [False, False, True]


def test_a_transcript_after_the_end_of_the_reply_is_final_at_once():
    person = Person()
    person.speak(0.5)
    person.be_silent(0.5)
    person.reply()
    person.reply_done()
    person.transcribe("Too late.")
    _, signals = person.kinds()
    assert signals[-1] == UserTranscript(signals[0].item_id, "Too late.", final=True)


def test_a_late_transcript_comes_first_when_the_person_speaks_again():
    person = Person()
    person.speak(0.5)
    person.be_silent(0.5)
    person.reply()
    person.speak(0.4)
    person.transcribe("first", "a")
    person.transcribe(" turn", "b")
    person.speak(0.4)
    person.transcribe("second turn", "c")
    person.be_silent(0.5)
    person.reply()
    _, signals = person.kinds()
    final = [one for one in signals if isinstance(one, UserTranscript) and one.final]
    started = list(dict.fromkeys(one.item_id for one in signals if isinstance(one, SpeechStarted)))
    assert len(started) == 2
    assert {one.item_id: one.text for one in signals if isinstance(one, UserTranscript)} == {
        started[0]: "first turn",
        started[1]: "second turn",
    }
    assert final[-1].item_id == started[1]


def test_a_turn_without_a_transcript_does_not_take_that_of_the_next_turn():
    person = Person()
    person.speak(0.5)
    person.be_silent(0.5)
    person.reply()
    person.reply_done()
    person.be_silent(3.2)
    first = person.signals[0].item_id
    assert person.signals[-1] == UserTranscript(first, "", final=True)
    person.speak(0.4)
    person.transcribe("second turn")
    person.be_silent(0.5)
    person.reply()
    _, signals = person.kinds()
    texts = {one.item_id: one.text for one in signals if isinstance(one, UserTranscript)}
    assert list(texts.values()) == ["", "second turn"]
    assert sum(one == UserTranscript(first, "", final=True) for one in signals) == 1


def test_a_transcript_may_arrive_for_three_seconds_although_another_turn_follows():
    person = Person()
    for _ in range(2):
        person.speak(0.5)
        person.be_silent(0.5)
        person.reply()
        person.reply_done()
    first = person.signals[0].item_id
    none = UserTranscript(first, "", final=True)
    assert none not in person.signals
    person.transcribe("second")
    assert person.signals[-1].item_id != first
    person.be_silent(1.8)
    assert none not in person.signals
    person.be_silent(0.4)
    assert none in person.signals


def test_a_late_transcript_belongs_to_the_turn_before_a_cough():
    person = Person()
    person.speak(1.0)
    person.be_silent(0.5)
    person.reply()
    person.reply_done()
    person.speak(0.2)
    person.be_silent(0.5)
    person.reply()
    first = person.signals[0].item_id
    person.transcribe("hello ", "a")
    person.transcribe("there", "b")
    assert person.signals[-1] == UserTranscript(first, "hello there", final=True)
    person.be_silent(1.0)
    person.transcribe("a cough", "c")
    assert person.signals[-1].item_id != first


def test_a_reported_transcript_stays_when_no_other_connection_repeats_it():
    person = Person()
    person.speak(1.0)
    person.be_silent(0.5)
    person.reply()
    person.transcribe("hello there")
    first = person.signals[0].item_id
    assert person.turns.connection_lost([], [first]) is None
    person.reply()
    assert person.turns.connection_lost([], [first]) is None
    person.reply()
    person.reply_done()
    person.kinds()
    person.be_silent(3.2)
    assert person.signals == [UserTranscript(first, "hello there", final=True)]
    person.transcribe("hello here", "x")
    assert person.signals[-1] == UserTranscript(first, "hello here", final=True)


def test_the_transcript_of_an_open_turn_stays_when_its_audio_is_not_replayed():
    person = Person()
    person.speak(1.0)
    person.transcribe("hello there")
    item_id = person.signals[0].item_id
    assert person.turns.connection_lost([], []) == item_id
    person.kinds()
    person.be_silent(4.0)
    kinds, signals = person.kinds()
    assert kinds == ["SpeechStopped", "UserTranscript", "UserTurnEnded"]
    assert signals[1] == UserTranscript(item_id, "hello there", final=True)
    assert not signals[2].empty


def test_turns_without_text_are_replayed_in_their_order():
    person = Person()
    for _ in range(2):
        person.speak(1.0)
        person.be_silent(0.5)
        person.reply()
    ids = list(dict.fromkeys(one.item_id for one in person.signals))
    person.turns.connection_lost([], ids)
    assert person.turns.replayed_ids == ids
    person.reply()
    person.turns.connection_lost([], ids[:1])
    assert person.turns.replayed_ids == ids
    person.transcribe("first", "a")
    person.reply()
    person.be_silent(1.0)
    person.transcribe("second", "b")
    person.reply()
    texts = {one.item_id: one.text for one in person.signals if isinstance(one, UserTranscript)}
    assert texts == dict(zip(ids, ("first", "second"), strict=True))


def test_a_very_late_transcript_is_accepted_while_nobody_has_spoken_since():
    person = Person()
    person.speak(0.5)
    person.be_silent(0.5)
    person.reply()
    person.reply_done()
    person.be_silent(6.0)
    person.transcribe("At last.")
    assert person.signals[-1] == UserTranscript(person.signals[0].item_id, "At last.", final=True)


def test_a_slow_model_has_eight_seconds_for_the_transcript():
    person = Person()
    person.speak(0.5)
    person.be_silent(6.0)
    person.transcribe("At last.")
    person.reply()
    kinds, signals = person.kinds()
    assert kinds[-2:] == ["UserTranscript", "UserTurnEnded"]
    assert signals[-1].reply_follows
    assert signals[-2].final


def test_whispered_text_without_a_reply_ends_too():
    person = Person()
    person.be_silent(1.0)
    person.transcribe("whispered")
    person.be_silent(3.2)
    kinds, _ = person.kinds()
    assert kinds == ["UserTranscript", "UserTranscript", "UserTurnEnded"]


def test_a_turn_that_the_vad_missed_has_a_transcript_and_an_end():
    person = Person()
    person.be_silent(1.0)
    person.transcribe("whispered")
    person.reply()
    kinds, signals = person.kinds()
    assert kinds == ["UserTranscript", "UserTranscript", "UserTurnEnded"]
    person.reply_done()
    person.reply()
    person.transcribe("while it answers", "q")
    kinds, again = person.kinds()
    assert kinds == ["UserTranscript", "UserTurnEnded"]
    assert again[0].item_id != signals[0].item_id
    assert not again[1].reply_follows


def test_a_requested_reply_or_one_over_the_persons_speech_ends_no_turn():
    person = Person()
    person.speak(0.5)
    person.reply(requested=True)
    person.reply()
    kinds, _ = person.kinds()
    assert kinds == ["SpeechStarted"]


def test_after_a_lost_connection_a_turn_without_a_reply_is_open_again():
    person = Person()
    person.speak(0.5)
    person.be_silent(0.5)
    person.signals += person.turns.end_turn(reply_follows=True)
    item_id = person.signals[0].item_id
    assert person.turns.connection_lost([item_id], []) == item_id
    person.kinds()
    person.transcribe("again", "x")
    person.reply()
    _, signals = person.kinds()
    assert {one.item_id for one in signals} == {item_id}
    assert isinstance(signals[-1], UserTurnEnded)
    assert signals[-1].reply_follows


def test_a_turn_with_a_reply_is_replayed_for_its_text_and_its_second_reply_is_recognised():
    person = Person()
    person.speak(0.5)
    person.be_silent(0.5)
    person.reply()
    item_id = person.signals[0].item_id
    assert person.turns.connection_lost([], [item_id]) is None
    assert person.turns.replayed_ids == [item_id]
    person.kinds()
    person.transcribe("once more", "x")
    person.reply()
    _, signals = person.kinds()
    assert signals[-2] == UserTranscript(item_id, "once more", final=True)
    assert signals[-1] == UserTurnEnded(item_id)
    assert not person.turns.replayed_ids


steps = st.lists(
    st.one_of(
        st.tuples(st.just("speak"), st.floats(0.04, 1.0)),
        st.tuples(st.just("be_silent"), st.floats(0.04, 4.0)),
        st.tuples(st.just("transcribe"), st.text("ab ", min_size=1, max_size=4)),
        st.tuples(st.just("reply"), st.booleans()),
        st.tuples(st.just("reply_done"), st.none()),
    ),
    max_size=20,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_every_turn_ends_at_most_once_and_starts_before_it_stops(script):
    person = Person()
    pieces = 0
    for kind, value in script:
        match kind:
            case "speak":
                person.speak(value)
            case "be_silent":
                person.be_silent(value)
            case "transcribe":
                pieces += 1
                person.transcribe(value, str(pieces))
            case "reply":
                person.reply(requested=value)
            case "reply_done":
                person.reply_done()
    _, signals = person.kinds()
    ended, started = [], set()
    for one in signals:
        match one:
            case SpeechStarted(item_id=item_id):
                assert item_id not in ended
                started.add(item_id)
            case SpeechStopped(item_id=item_id):
                assert item_id in started
                assert item_id not in ended
            case UserTurnEnded(item_id=item_id):
                assert item_id not in ended
                ended.append(item_id)
    texts = {}
    for one in signals:
        if isinstance(one, UserTranscript):
            assert one.text.startswith(texts.get(one.item_id, ""))
            texts[one.item_id] = one.text
    spoken = "".join(value for kind, value in script if kind == "transcribe").replace(" ", "")
    assert sorted("".join(texts.values()).replace(" ", "")) == sorted(spoken)


def test_signals_of_the_model_pass_and_its_end_of_a_turn_ends_the_open_one():
    person = Person()
    started, stopped = SpeechStarted("x"), SpeechStopped("x")
    assert person.turns.translate(started, 0.0) == (started,)
    assert person.turns.translate(stopped, 0.0) == (stopped,)
    assert person.turns.translate(UserTurnEnded("x"), 0.0) == ()
    assert person.turns.turn_start is None
    person.speak(0.5)
    assert person.turns.turn_start is not None
    (ended,) = person.turns.translate(UserTurnEnded("x", reply_follows=False), person.now)
    assert (ended.item_id, ended.reply_follows) == (person.signals[0].item_id, False)


def test_the_program_may_end_a_turn_that_nobody_detected():
    person = Person()
    (ended,) = person.turns.end_turn(reply_follows=True)
    assert isinstance(ended, UserTurnEnded)


def test_many_pieces_of_a_turn_keep_their_text():
    person = Person()
    person.speak(0.5)
    for number in range(200):
        person.transcribe(f"{number} ", piece=f"{number}")
    assert person.signals[-1].text == " ".join(map(str, range(200)))


def test_a_short_turn_is_measured_only_when_both_ends_are_known():
    person = Person()
    person.transcribe("Too soon.")
    person.reply()
    person.reply_done()
    person.speak(0.1)
    person.be_silent(0.5)
    person.transcribe("Hm.", piece="q")
    assert person.signals[-1].text
