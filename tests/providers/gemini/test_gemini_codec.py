"""What Gemini's messages mean: turns, words and sound, interruptions, ends that are not good."""

import numpy as np
import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Line, encoded, pcm_part, turn

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.realtime.codec import Codec as CodecProtocol
from duologue.realtime.commands import CancelReply, RequestReply, Say, SendAudio
from duologue.realtime.outputs import (
    GoAway,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyText,
    Resumable,
    SayMismatch,
    SessionStarted,
    Usage,
    UserTranscript,
)

PREVIEW = "gemini-3.1-flash-live-preview"


def kinds(outputs):
    return [type(output).__name__ for output in outputs]


# A session


def test_the_setup_goes_alone_and_its_answer_begins_the_session():
    line = Line(live=False)
    assert list(line.opening) == ["setup"]
    assert line.pending() == []
    assert line.get(setupComplete={"sessionId": "s"}) == [
        SessionStarted(
            {k: v for k, v in line.opening["setup"].items() if k != "sessionResumption"},
            58 * 60.0,
            restored=False,
        )
    ]
    assert line.get(setupComplete={}) == []
    assert Line(OLD).started[0].expires_in is None


def test_a_whole_turn_in_the_servers_casing():
    line = Line()
    assert line.content(inputTranscription={"text": "How are", "languageCode": "en"}) == [
        UserTranscript("heard_1", "How are", final=False)
    ]
    assert line.content(inputTranscription={"text": " you?", "finished": True}) == [
        UserTranscript("heard_2", " you?", final=False)
    ]
    started, audio = line.began([1, -2, 3])
    assert started.request_id is None
    assert (audio.frame.samples.tolist(), audio.frame.rate) == ([1, -2, 3], 24000)
    assert line.words("Fine.") == [ReplyText(started.reply_id, audio.item_id, "Fine.")]
    (more,) = line.sound([4])
    assert (more.reply_id, more.item_id) == (audio.reply_id, audio.item_id)
    assert line.generated() == [ReplyDone(started.reply_id)]
    usage = {
        "promptTokenCount": 12,
        "responseTokenCount": 9,
        "totalTokenCount": 21,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 12}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}],
    }
    content = {"turnComplete": True, "interactionStatus": "IDLE"}
    assert line.get(serverContent=content, usageMetadata=usage) == [
        Usage({"audio": 12}, {"audio": 9})
    ]
    again, _ = line.began()
    assert again.reply_id != started.reply_id


def test_several_parts_and_several_things_in_one_message():
    line = Line()
    outputs = line.content(
        inputTranscription={"text": "Hi"},
        modelTurn=turn(pcm_part([1]), {"text": "thinking", "thought": True}, pcm_part([2, 3])),
        outputTranscription={"text": "Hello"},
        generationComplete=True,
        turnComplete=True,
    )
    assert kinds(outputs) == [
        "UserTranscript", "ReplyStarted", "ReplyAudio", "ReplyAudio", "ReplyText", "ReplyDone",
    ]  # fmt: skip
    assert [o.frame.samples.tolist() for o in outputs if isinstance(o, ReplyAudio)] == [[1], [2, 3]]
    assert line.completed()  # The next one is of another turn: an empty one.


@pytest.mark.parametrize(
    ("rate", "hz"), [(";rate=24000", 24000), ("", 24000), ("; rate=16000", 16000)]
)
def test_sound_says_its_rate(rate, hz):
    line = Line()
    _, audio = line.sound(rate=rate)
    assert audio.frame.rate == hz


@pytest.mark.parametrize(
    "rate",
    [";rate=0", ";rate=4000", ";rate=99999", ";rate=99999999", ";rate=" + "9" * 5000, ";rate=x"],
)
def test_sound_of_no_rate_is_counted_and_begins_nothing(rate):
    line = Line()
    assert line.sound(rate=rate) == []
    assert line.codec.malformed == 1
    line.began()


def test_half_a_sample_waits_for_its_other_half():
    line = Line()
    pcm = np.array([1, 2, -3, 4], "<i2").tobytes()
    samples = []
    for piece in (pcm[:1], pcm[1:2], pcm[2:5], pcm[5:5], pcm[5:7], pcm[7:]):
        blob = {"mimeType": "audio/pcm;rate=24000", "data": encoded(piece)}
        for output in line.content(modelTurn=turn({"inlineData": blob})):
            if isinstance(output, ReplyAudio):
                samples += output.frame.samples.tolist()
    assert samples == [1, 2, -3, 4]
    assert line.codec.malformed == 0


def test_a_piece_that_is_no_sound_does_not_cost_the_reply_or_what_came_with_it():
    line = Line()
    bad = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "a"}}
    outputs = line.content(inputTranscription={"text": "Hi"}, modelTurn=turn(bad, pcm_part([5])))
    assert kinds(outputs) == ["UserTranscript", "ReplyStarted", "ReplyAudio"]
    assert line.codec.malformed == 1
    assert kinds(line.content(modelTurn=turn(bad), generationComplete=True)) == ["ReplyDone"]


# Ends of replies and of turns


def test_words_that_come_after_the_sound_are_still_of_that_reply():
    line = Line()
    started, audio = line.began()
    line.generated()
    assert line.words(" late") == [ReplyText(started.reply_id, audio.item_id, " late")]
    line.completed()
    assert line.words(" later") == [ReplyText(started.reply_id, audio.item_id, " later")]
    assert line.words("\n") == []
    again, audio = line.began()
    assert again.reply_id != started.reply_id
    assert line.words("next") == [ReplyText(again.reply_id, audio.item_id, "next")]


@pytest.mark.parametrize("spoken", [True, False])
def test_words_that_come_before_their_reply_wait_for_it(spoken):
    line = Line()
    assert line.words(" ") == line.words("Fi") == line.words("rst. ") == []  # There is none yet.
    started, told, audio = line.sound()
    assert told == ReplyText(started.reply_id, audio.item_id, "First. ")
    line.completed()
    if spoken:
        line.content(inputTranscription={"text": "How are you?"})
    else:
        line.send(RequestReply("q"))
    assert line.words("Fine.") == []
    started, told, audio = line.sound()
    assert started.request_id == (None if spoken else "q")
    assert told == ReplyText(started.reply_id, audio.item_id, "Fine.")
    assert line.completed() == [ReplyDone(started.reply_id)]


def test_words_after_a_turn_that_the_person_spoke_into_are_of_the_next_reply():
    line = Line()
    line.began()
    line.content(inputTranscription={"text": "Mhm, go on."})
    line.completed()
    assert line.words("Yes?") == []
    started, told, audio = line.sound()
    assert told == ReplyText(started.reply_id, audio.item_id, "Yes?")


@pytest.mark.parametrize(
    ("seconds", "loud", "silent"),
    [(0.1, 9000, 0.5), (0.5, 9000, 0.1), (0.5, 9000, 0.0), (9.0, 20, 0.0)],
)
def test_words_that_come_after_the_person_has_made_some_sound_are_not_late(seconds, loud, silent):
    line = Line()
    before, _ = line.began()
    line.completed()
    for _ in range(round(seconds * 50)):
        line.send(SendAudio(AudioFrame(np.full(320, loud, np.int16), 16000)))
    for _ in range(round(silent * 50)):
        line.hears()
    words = line.words("Yes?")
    if seconds < 0.2 or loud < 600 or not silent:
        assert [told.reply_id for told in words] == [before.reply_id]
    else:
        assert words == []
        started, told, audio = line.sound()
        assert told == ReplyText(started.reply_id, audio.item_id, "Yes?")


def test_a_turn_of_words_alone_is_a_reply_when_it_is_complete():
    line = Line()
    line.send(RequestReply("q"))
    for _ in range(200):
        assert line.words("x" * 100) == []  # What nobody hears is bounded.
    started, told, done = line.completed()
    assert (started.request_id, len(told.text)) == ("q", 4096)
    assert done == ReplyDone(started.reply_id)


def test_a_reply_that_had_no_end_ends_with_its_turn():
    line = Line()
    started, _ = line.began()
    assert line.completed() == [ReplyDone(started.reply_id)]
    assert line.generated() == []


def test_a_model_that_says_nothing_ends_what_was_asked():
    line = Line()
    line.send(RequestReply("q"))
    started, done = line.completed()
    assert started.request_id == "q"
    assert done == ReplyDone(started.reply_id, "completed")
    # And a turn of the person that it leaves unanswered.
    started, done = line.completed(interactionStatus="IDLE")
    assert (started.request_id, done.status) == (None, "completed")


def test_a_turn_that_goes_on_is_not_an_empty_one():
    line = Line()
    line.send(RequestReply("q"))
    assert line.completed(interactionStatus="IN_PROGRESS") == []
    started, _ = line.began()
    assert started.request_id == "q"
    # Only gemini-3.8 tells that; with others it is of no meaning.
    other = Line(PREVIEW)
    other.send(RequestReply("q"))
    assert kinds(other.completed(interactionStatus="IN_PROGRESS")) == ["ReplyStarted", "ReplyDone"]


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL", "RESPONSE_REJECTED", "PROHIBITED_INPUT_CONTENT", "INPUT_OTHER",
        "BLOCKLIST", "UNSAFE_PROMPT_FOR_IMAGE_GENERATION", "GENERATED_AUDIO_SAFETY",
        "OUTPUT_IMAGE_IP_PROHIBITED", "GENERATED_OTHER", "MAX_REGENERATION_REACHED", "BRAND_NEW",
    ],
)  # fmt: skip
def test_a_turn_that_went_wrong_fails_what_was_asked(reason):
    line = Line()
    line.send(RequestReply("q"))
    started, done = line.completed(turnCompleteReason=reason)
    message = "the model did not reply: " + reason.lower().replace("_", " ")
    assert (started.request_id, done) == ("q", ReplyDone(started.reply_id, "failed", message))
    # In the middle of a reply.
    started, _ = line.began()
    assert line.completed(turnCompleteReason=reason) == [
        ReplyDone(started.reply_id, "failed", message)
    ]
    # After all of it was said.
    line.began()
    line.generated()
    assert line.completed(turnCompleteReason=reason) == [
        ProviderError(ErrorKind.RETRY, reason, message)
    ]


@pytest.mark.parametrize("reason", ["NEED_MORE_INPUT", "TURN_COMPLETE_REASON_UNSPECIFIED", "", 3])
def test_reasons_that_are_no_failures(reason):
    line = Line()
    started, _ = line.began()
    assert line.completed(turnCompleteReason=reason) == [ReplyDone(started.reply_id)]


# Interruptions


def test_an_interruption_cuts_the_reply_and_is_told_once():
    line = Line()
    started, audio = line.began()
    assert line.interrupted() == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]
    assert line.interrupted() == []
    # Words that were on their way do not begin a reply.
    assert line.words(" more") == [ReplyText(started.reply_id, audio.item_id, " more")]
    assert line.completed() == []
    assert kinds(line.sound()) == ["ReplyStarted", "ReplyAudio"]


def test_an_interruption_of_what_is_only_playing_names_the_reply():
    line = Line()
    started, _ = line.began()
    line.generated()
    assert line.interrupted() == [ReplyInterrupted(started.reply_id)]
    assert line.completed() == []


def test_an_interruption_of_nothing_is_told_and_ends_nothing():
    line = Line()
    assert line.interrupted() == [ReplyInterrupted(None)]
    # Whether its turn is completed or not, the next interruption is one.
    started, _ = line.began()
    assert line.interrupted()[0] == ReplyInterrupted(started.reply_id)
    line = Line()
    line.interrupted()
    assert line.completed() == []
    started, _ = line.began()
    assert line.interrupted()[0] == ReplyInterrupted(started.reply_id)


def test_a_person_who_speaks_first_ends_what_was_asked_and_had_not_begun():
    line = Line()
    line.send(RequestReply("q"))
    told, started, done = line.interrupted()
    assert told == ReplyInterrupted(None)
    assert (started.request_id, done.status) == ("q", "cancelled")
    assert line.completed() == []


@pytest.mark.parametrize("complete", [True, False])
def test_what_we_send_interrupts_and_is_nobodys_barge_in(complete):
    line = Line()
    started, _ = line.began()
    if complete:
        line.generated()
    line.send(RequestReply("q"))
    ended = [] if complete else [ReplyDone(started.reply_id, "cancelled")]
    assert line.interrupted() == ended
    assert line.completed() == []
    begun, _ = line.began()
    assert begun.request_id == "q"
    # The next one is the person's again.
    assert isinstance(line.interrupted()[0], ReplyInterrupted)


def test_a_turn_that_ended_before_our_words_came_is_not_the_answer_to_them():
    line = Line()
    line.began()
    line.generated()
    line.send(RequestReply("q"))
    assert line.completed() == []  # It was on its way.
    begun, _ = line.began()
    assert begun.request_id == "q"


def test_nothing_more_comes_of_a_cancelled_reply_but_its_end():
    line = Line()
    started, _ = line.began()
    line.send(CancelReply(started.reply_id))
    assert line.sound() == line.words("x") == []
    assert line.generated() == [ReplyDone(started.reply_id, "cancelled")]
    line.completed()
    started, _ = line.began()
    line.send(CancelReply("another"))
    assert kinds(line.sound()) == ["ReplyAudio"]
    line.send(CancelReply(started.reply_id))
    assert line.completed() == [ReplyDone(started.reply_id, "cancelled")]


# Scripted text


def test_scripted_text_has_ended_when_all_of_it_was_told():
    line = Line()
    line.send(Say("q", "Good morning."))
    started, audio = line.began()
    assert started.request_id == "q"
    line.words("Good")
    assert line.generated() == []
    assert line.words(" morning") == [
        ReplyText(started.reply_id, audio.item_id, " morning"),
        ReplyDone(started.reply_id),
    ]
    assert line.completed() == []


def test_other_words_than_the_scripted_ones_are_told():
    line = Line()
    line.send(Say("q", "Good morning."))
    started, _ = line.began()
    line.words("Hello. ")
    assert line.generated() == []
    assert line.completed() == [
        SayMismatch(started.reply_id, "Good morning.", "Hello."),
        ReplyDone(started.reply_id),
    ]


def test_scripted_text_that_is_cut_is_no_mismatch():
    line = Line()
    line.send(Say("q", "Good morning."))
    started, _ = line.began()
    line.words("Good")
    line.send(CancelReply(started.reply_id))
    assert line.generated() == [ReplyDone(started.reply_id, "cancelled")]
    line.completed()
    line.send(Say("q", "Good morning."))
    started, _ = line.began()
    line.words("Good")
    assert line.interrupted()[-1] == ReplyDone(started.reply_id, "cancelled")


def test_without_transcripts_scripted_text_is_taken_to_be_said():
    line = Line(output_transcription=None)
    line.send(Say("q", "Good morning."))
    started, told, audio = line.sound()
    assert told == ReplyText(started.reply_id, audio.item_id, "Good morning.")
    assert line.generated() == [ReplyDone(started.reply_id)]
    line.completed()
    line.send(RequestReply("r"))
    assert kinds(line.sound()) == ["ReplyStarted", "ReplyAudio"]


# The rest of the protocol


@pytest.mark.parametrize(
    ("left", "seconds"),
    [("10s", 10.0), ("9.5s", 9.5), ("0.000000001s", 1e-9), ("0s", 0.0), (None, 0.0), ("-1s", 0.0),
     ("soon", 0.0), (10, 0.0), ("9" * 400 + "s", 0.0)],
)  # fmt: skip
def test_go_away_says_how_long(left, seconds):
    assert Line().get(goAway={"timeLeft": left}) == [GoAway(seconds)]


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (
            {
                "promptTokensDetails": [
                    {"modality": "AUDIO", "tokenCount": 3},
                    {"modality": "TEXT", "tokenCount": 4},
                    {"modality": "AUDIO", "tokenCount": "5"},
                    {"tokenCount": 1},
                ],
                "toolUsePromptTokenCount": 2,
                "cachedContentTokenCount": 6,
                "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}],
                "thoughtsTokenCount": 8,
            },
            Usage(
                {"audio": 8, "text": 4, "other": 1, "tool_use": 2, "cached": 6},
                {"audio": 7, "thoughts": 8},
            ),
        ),
        ({"promptTokenCount": 3, "responseTokenCount": 4}, Usage({"tokens": 3}, {"tokens": 4})),
        ({"promptTokenCount": 3}, Usage({"tokens": 3}, {})),
        ({"totalTokenCount": 3}, None),
        ({"promptTokenCount": 1e300, "responseTokenCount": -1, "thoughtsTokenCount": True}, None),
    ],
)
def test_usage_by_modality(usage, told):
    assert Line().get(usageMetadata=usage) == ([] if told is None else [told])


def test_what_is_not_of_the_protocol_is_counted_and_passed_over():
    line = Line()
    line.began()
    assert line.get(brandNew={"a": 1}, voiceActivity={"voiceActivityType": "ACTIVITY_START"}) == []
    for index in range(400):
        line.get(**{f"x{index}": {}})
    assert line.codec.unknown["brandNew"] == 1
    assert "voiceActivity" not in line.codec.unknown
    assert len(line.codec.unknown) == 257
    assert sum(line.codec.unknown.values()) == 401
    assert kinds(line.sound()) == ["ReplyAudio"]


@pytest.mark.parametrize(
    "message", [b"", b"\xff", b"[]", b"3", b'{"serverContent": 3}', b"{" * 100, b'{"goAway": "x"}']
)
def test_what_is_not_built_as_the_protocol_says_is_counted(message):
    line = Line()
    assert not line.codec.decode(message)
    assert line.codec.malformed == 1


def test_it_is_a_codec():
    codec: CodecProtocol[bytes] = Line().codec
    assert codec.pending() == []
    assert Line(MODEL).get(sessionResumptionUpdate={}) == [Resumable(False)]
    assert Line(TEXT_ONLY).get(sessionResumptionUpdate={"newHandle": "h"}) == [Resumable(False)]
