"""Decoding Gemini's messages: turns, text and audio, interruptions, failures."""

import numpy as np
import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Harness, encoded, pcm_part, turn

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


def test_the_setup_is_sent_alone_and_its_reply_starts_the_session():
    harness = Harness(live=False)
    assert list(harness.opening) == ["setup"]
    assert harness.pending() == []
    assert harness.receive(setupComplete={"sessionId": "s"}) == [
        SessionStarted(
            {k: v for k, v in harness.opening["setup"].items() if k != "sessionResumption"},
            58 * 60.0,
            restored=False,
        )
    ]
    assert harness.receive(setupComplete={}) == []
    assert Harness(OLD).started[0].expires_in is None


def test_a_whole_turn_in_the_servers_casing():
    harness = Harness()
    assert harness.content(inputTranscription={"text": "How are", "languageCode": "en"}) == [
        UserTranscript("heard_1", "How are", final=False)
    ]
    assert harness.content(inputTranscription={"text": " you?", "finished": True}) == [
        UserTranscript("heard_2", " you?", final=False)
    ]
    started, audio = harness.begin_reply([1, -2, 3])
    assert started.request_id is None
    assert (audio.frame.samples.tolist(), audio.frame.rate) == ([1, -2, 3], 24000)
    assert harness.text("Fine.") == [ReplyText(started.reply_id, audio.item_id, "Fine.")]
    (more,) = harness.audio([4])
    assert (more.reply_id, more.item_id) == (audio.reply_id, audio.item_id)
    assert harness.generated() == [ReplyDone(started.reply_id)]
    usage = {
        "promptTokenCount": 12,
        "responseTokenCount": 9,
        "totalTokenCount": 21,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 12}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}],
    }
    content = {"turnComplete": True, "interactionStatus": "IDLE"}
    assert harness.receive(serverContent=content, usageMetadata=usage) == [
        Usage({"audio": 12}, {"audio": 9})
    ]
    again, _ = harness.begin_reply()
    assert again.reply_id != started.reply_id


def test_several_parts_and_several_things_in_one_message():
    harness = Harness()
    outputs = harness.content(
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
    assert harness.completed()  # The next completion is of another turn, an empty one.


@pytest.mark.parametrize(
    ("rate", "hz"), [(";rate=24000", 24000), ("", 24000), ("; rate=16000", 16000)]
)
def test_audio_has_the_rate_that_its_type_names(rate, hz):
    harness = Harness()
    _, audio = harness.audio(rate=rate)
    assert audio.frame.rate == hz


@pytest.mark.parametrize(
    "rate",
    [";rate=0", ";rate=4000", ";rate=99999", ";rate=99999999", ";rate=" + "9" * 5000, ";rate=x"],
)
def test_audio_with_an_invalid_rate_is_counted_and_begins_no_reply(rate):
    harness = Harness()
    assert harness.audio(rate=rate) == []
    assert harness.codec.malformed == 1
    harness.begin_reply()


def test_half_a_sample_waits_for_its_other_half():
    harness = Harness()
    pcm = np.array([1, 2, -3, 4], "<i2").tobytes()
    samples = []
    for piece in (pcm[:1], pcm[1:2], pcm[2:5], pcm[5:5], pcm[5:7], pcm[7:]):
        blob = {"mimeType": "audio/pcm;rate=24000", "data": encoded(piece)}
        for output in harness.content(modelTurn=turn({"inlineData": blob})):
            if isinstance(output, ReplyAudio):
                samples += output.frame.samples.tolist()
    assert samples == [1, 2, -3, 4]
    assert harness.codec.malformed == 0


def test_an_invalid_audio_part_costs_neither_the_reply_nor_the_rest_of_its_message():
    harness = Harness()
    bad = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "a"}}
    outputs = harness.content(inputTranscription={"text": "Hi"}, modelTurn=turn(bad, pcm_part([5])))
    assert kinds(outputs) == ["UserTranscript", "ReplyStarted", "ReplyAudio"]
    assert harness.codec.malformed == 1
    assert kinds(harness.content(modelTurn=turn(bad), generationComplete=True)) == ["ReplyDone"]


# Ends of replies and of turns


def test_text_after_the_audio_belongs_to_the_same_reply():
    harness = Harness()
    started, audio = harness.begin_reply()
    harness.generated()
    assert harness.text(" late") == [ReplyText(started.reply_id, audio.item_id, " late")]
    harness.completed()
    assert harness.text(" later") == [ReplyText(started.reply_id, audio.item_id, " later")]
    assert harness.text("\n") == []
    again, audio = harness.begin_reply()
    assert again.reply_id != started.reply_id
    assert harness.text("next") == [ReplyText(again.reply_id, audio.item_id, "next")]


@pytest.mark.parametrize("spoken", [True, False])
def test_text_before_its_reply_waits_for_the_audio(spoken):
    harness = Harness()
    assert (
        harness.text(" ") == harness.text("Fi") == harness.text("rst. ") == []
    )  # No reply has begun yet.
    started, told, audio = harness.audio()
    assert told == ReplyText(started.reply_id, audio.item_id, "First. ")
    harness.completed()
    if spoken:
        harness.content(inputTranscription={"text": "How are you?"})
    else:
        harness.send(RequestReply("q"))
    assert harness.text("Fine.") == []
    started, told, audio = harness.audio()
    assert started.request_id == (None if spoken else "q")
    assert told == ReplyText(started.reply_id, audio.item_id, "Fine.")
    assert harness.completed() == [ReplyDone(started.reply_id)]


def test_text_after_a_turn_with_user_speech_belongs_to_the_next_reply():
    harness = Harness()
    harness.begin_reply()
    harness.content(inputTranscription={"text": "Mhm, go on."})
    harness.completed()
    assert harness.text("Yes?") == []
    started, told, audio = harness.audio()
    assert told == ReplyText(started.reply_id, audio.item_id, "Yes?")


@pytest.mark.parametrize(
    ("seconds", "loud", "silent"),
    [(0.1, 9000, 0.5), (0.5, 9000, 0.1), (0.5, 9000, 0.0), (9.0, 20, 0.0)],
)
def test_text_after_enough_user_audio_is_not_late(seconds, loud, silent):
    harness = Harness()
    before, _ = harness.begin_reply()
    harness.completed()
    for _ in range(round(seconds * 50)):
        harness.send(SendAudio(AudioFrame(np.full(320, loud, np.int16), 16000)))
    for _ in range(round(silent * 50)):
        harness.send_audio()
    words = harness.text("Yes?")
    if seconds < 0.2 or loud < 600 or not silent:
        assert [told.reply_id for told in words] == [before.reply_id]
    else:
        assert words == []
        started, told, audio = harness.audio()
        assert told == ReplyText(started.reply_id, audio.item_id, "Yes?")


def test_a_turn_with_text_only_is_a_reply_when_it_is_complete():
    harness = Harness()
    harness.send(RequestReply("q"))
    for _ in range(200):
        assert harness.text("x" * 100) == []  # Text without audio is bounded.
    started, told, done = harness.completed()
    assert (started.request_id, len(told.text)) == ("q", 4096)
    assert done == ReplyDone(started.reply_id)


def test_a_reply_without_an_end_ends_with_its_turn():
    harness = Harness()
    started, _ = harness.begin_reply()
    assert harness.completed() == [ReplyDone(started.reply_id)]
    assert harness.generated() == []


def test_a_model_that_says_nothing_ends_the_request():
    harness = Harness()
    harness.send(RequestReply("q"))
    started, done = harness.completed()
    assert started.request_id == "q"
    assert done == ReplyDone(started.reply_id, "completed")
    # Also for a user turn that it does not reply to.
    started, done = harness.completed(interactionStatus="IDLE")
    assert (started.request_id, done.status) == (None, "completed")


def test_a_turn_followed_by_another_is_not_an_empty_reply():
    harness = Harness()
    harness.send(RequestReply("q"))
    assert harness.completed(interactionStatus="IN_PROGRESS") == []
    started, _ = harness.begin_reply()
    assert started.request_id == "q"
    # Only gemini-3.8 reports that; other models' values mean nothing.
    other = Harness(PREVIEW)
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
def test_a_failed_turn_fails_the_request(reason):
    harness = Harness()
    harness.send(RequestReply("q"))
    started, done = harness.completed(turnCompleteReason=reason)
    message = "the model did not reply: " + reason.lower().replace("_", " ")
    assert (started.request_id, done) == ("q", ReplyDone(started.reply_id, "failed", message))
    # In the middle of a reply.
    started, _ = harness.begin_reply()
    assert harness.completed(turnCompleteReason=reason) == [
        ReplyDone(started.reply_id, "failed", message)
    ]
    # After its end.
    harness.begin_reply()
    harness.generated()
    assert harness.completed(turnCompleteReason=reason) == [
        ProviderError(ErrorKind.RETRY, reason, message)
    ]


@pytest.mark.parametrize("reason", ["NEED_MORE_INPUT", "TURN_COMPLETE_REASON_UNSPECIFIED", "", 3])
def test_reasons_that_are_not_failures(reason):
    harness = Harness()
    started, _ = harness.begin_reply()
    assert harness.completed(turnCompleteReason=reason) == [ReplyDone(started.reply_id)]


# Interruptions


def test_an_interruption_ends_the_reply_and_is_reported_once():
    harness = Harness()
    started, audio = harness.begin_reply()
    assert harness.interrupted() == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]
    assert harness.interrupted() == []
    # Late text does not begin a reply.
    assert harness.text(" more") == [ReplyText(started.reply_id, audio.item_id, " more")]
    assert harness.completed() == []
    assert kinds(harness.audio()) == ["ReplyStarted", "ReplyAudio"]


def test_an_interruption_while_playing_names_the_reply():
    harness = Harness()
    started, _ = harness.begin_reply()
    harness.generated()
    assert harness.interrupted() == [ReplyInterrupted(started.reply_id)]
    assert harness.completed() == []


def test_an_interruption_of_nothing_is_reported_and_ends_nothing():
    harness = Harness()
    assert harness.interrupted() == [ReplyInterrupted(None)]
    # The next interruption is reported, whether this turn is completed or not.
    started, _ = harness.begin_reply()
    assert harness.interrupted()[0] == ReplyInterrupted(started.reply_id)
    harness = Harness()
    harness.interrupted()
    assert harness.completed() == []
    started, _ = harness.begin_reply()
    assert harness.interrupted()[0] == ReplyInterrupted(started.reply_id)


def test_a_person_who_speaks_first_ends_a_request_without_a_reply():
    harness = Harness()
    harness.send(RequestReply("q"))
    told, started, done = harness.interrupted()
    assert told == ReplyInterrupted(None)
    assert (started.request_id, done.status) == ("q", "cancelled")
    assert harness.completed() == []


@pytest.mark.parametrize("complete", [True, False])
def test_an_interruption_by_our_own_message_is_no_barge_in(complete):
    harness = Harness()
    started, _ = harness.begin_reply()
    if complete:
        harness.generated()
    harness.send(RequestReply("q"))
    ended = [] if complete else [ReplyDone(started.reply_id, "cancelled")]
    assert harness.interrupted() == ended
    assert harness.completed() == []
    begun, _ = harness.begin_reply()
    assert begun.request_id == "q"
    # The next interruption is the person's again.
    assert isinstance(harness.interrupted()[0], ReplyInterrupted)


def test_a_turn_that_ends_before_our_request_arrives_does_not_answer_it():
    harness = Harness()
    harness.begin_reply()
    harness.generated()
    harness.send(RequestReply("q"))
    assert harness.completed() == []  # The server had sent it before it read the request.
    begun, _ = harness.begin_reply()
    assert begun.request_id == "q"


def test_a_cancelled_reply_only_reports_its_end():
    harness = Harness()
    started, _ = harness.begin_reply()
    harness.send(CancelReply(started.reply_id))
    assert harness.audio() == harness.text("x") == []
    assert harness.generated() == [ReplyDone(started.reply_id, "cancelled")]
    harness.completed()
    started, _ = harness.begin_reply()
    harness.send(CancelReply("another"))
    assert kinds(harness.audio()) == ["ReplyAudio"]
    harness.send(CancelReply(started.reply_id))
    assert harness.completed() == [ReplyDone(started.reply_id, "cancelled")]


# Scripted text


def test_scripted_text_ends_with_its_last_word():
    harness = Harness()
    harness.send(Say("q", "Good morning."))
    started, audio = harness.begin_reply()
    assert started.request_id == "q"
    harness.text("Good")
    assert harness.generated() == []
    assert harness.text(" morning") == [
        ReplyText(started.reply_id, audio.item_id, " morning"),
        ReplyDone(started.reply_id),
    ]
    assert harness.completed() == []


def test_words_other_than_the_scripted_ones_are_reported():
    harness = Harness()
    harness.send(Say("q", "Good morning."))
    started, _ = harness.begin_reply()
    harness.text("Hello. ")
    assert harness.generated() == []
    assert harness.completed() == [
        SayMismatch(started.reply_id, "Good morning.", "Hello."),
        ReplyDone(started.reply_id),
    ]


def test_scripted_text_that_is_cancelled_is_no_mismatch():
    harness = Harness()
    harness.send(Say("q", "Good morning."))
    started, _ = harness.begin_reply()
    harness.text("Good")
    harness.send(CancelReply(started.reply_id))
    assert harness.generated() == [ReplyDone(started.reply_id, "cancelled")]
    harness.completed()
    harness.send(Say("q", "Good morning."))
    started, _ = harness.begin_reply()
    harness.text("Good")
    assert harness.interrupted()[-1] == ReplyDone(started.reply_id, "cancelled")


def test_without_transcripts_scripted_text_is_assumed_to_be_said():
    harness = Harness(output_transcription=None)
    harness.send(Say("q", "Good morning."))
    started, told, audio = harness.audio()
    assert told == ReplyText(started.reply_id, audio.item_id, "Good morning.")
    assert harness.generated() == [ReplyDone(started.reply_id)]
    harness.completed()
    harness.send(RequestReply("r"))
    assert kinds(harness.audio()) == ["ReplyStarted", "ReplyAudio"]


# The rest of the protocol


@pytest.mark.parametrize(
    ("left", "seconds"),
    [("10s", 10.0), ("9.5s", 9.5), ("0.000000001s", 1e-9), ("0s", 0.0), (None, 0.0), ("-1s", 0.0),
     ("soon", 0.0), (10, 0.0), ("9" * 400 + "s", 0.0)],
)  # fmt: skip
def test_go_away_reports_the_time_left(left, seconds):
    assert Harness().receive(goAway={"timeLeft": left}) == [GoAway(seconds)]


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
    assert Harness().receive(usageMetadata=usage) == ([] if told is None else [told])


def test_messages_outside_the_protocol_are_counted_and_ignored():
    harness = Harness()
    harness.begin_reply()
    assert (
        harness.receive(brandNew={"a": 1}, voiceActivity={"voiceActivityType": "ACTIVITY_START"})
        == []
    )
    for index in range(400):
        harness.receive(**{f"x{index}": {}})
    assert harness.codec.unknown["brandNew"] == 1
    assert "voiceActivity" not in harness.codec.unknown
    assert len(harness.codec.unknown) == 257
    assert sum(harness.codec.unknown.values()) == 401
    assert kinds(harness.audio()) == ["ReplyAudio"]


@pytest.mark.parametrize(
    "message", [b"", b"\xff", b"[]", b"3", b'{"serverContent": 3}', b"{" * 100, b'{"goAway": "x"}']
)
def test_malformed_messages_are_counted(message):
    harness = Harness()
    assert not harness.codec.decode(message)
    assert harness.codec.malformed == 1


def test_it_fits_the_codec_protocol():
    codec: CodecProtocol[bytes] = Harness().codec
    assert codec.pending() == []
    assert Harness(MODEL).receive(sessionResumptionUpdate={}) == [Resumable(False)]
    assert Harness(TEXT_ONLY).receive(sessionResumptionUpdate={"newHandle": "h"}) == [
        Resumable(False)
    ]
