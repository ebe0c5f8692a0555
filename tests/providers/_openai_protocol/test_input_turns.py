"""User turns as an OpenAI server detects them."""

import pytest

from duologue.errors import ErrorKind
from duologue.providers._openai_protocol.input_turns import InputTurns
from duologue.realtime.outputs import ProviderError, SpeechStopped, UserTranscript

VAD = {"type": "server_vad", "silence_duration_ms": 500}


def turns(detection=VAD, *, has_positions=True):
    found = InputTurns(24000, has_positions=has_positions)
    found.configure({"turn_detection": detection})
    return found


@pytest.mark.parametrize(
    ("detection", "replies", "interrupts"),
    [
        (VAD, True, True),
        ({**VAD, "create_response": False}, False, True),
        ({**VAD, "interrupt_response": False}, True, False),
        (None, False, False),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_turn_detection_says_what_the_server_does_by_itself(
    detection, replies, interrupts, nested
):
    found = InputTurns(24000, has_positions=True)
    session = {"turn_detection": detection}
    found.configure({"audio": {"input": session}} if nested else session)
    found.configure({"voice": "marin"})  # Nothing is said about it.
    assert found.auto_replies is replies
    assert found.auto_interrupts is interrupts


def test_times_are_positions_in_the_audio_without_inserted_silence():
    found = turns()
    found.count_audio(24000)
    found.insert_silence(12000)
    found.count_audio(24000)
    (early,) = found.speech_started({"item_id": "a", "audio_start_ms": 500})
    assert early.position == 12000
    (within,) = found.speech_started({"item_id": "b", "audio_start_ms": 1200})
    assert within.position == 24000
    (late,) = found.speech_stopped({"item_id": "b", "audio_end_ms": 2000})
    assert late == SpeechStopped("b", None, 48000 - 12000)
    (ended,) = found.turn_committed({"item_id": "b"})
    assert (ended.position, ended.silence_s) == (36000, 0.5)


def test_inserted_silence_is_bounded_and_none_is_forgotten():
    found = turns()
    for _ in range(200):
        found.insert_silence(240)
    assert len(found._inserted_silence) == 64
    (started,) = found.speech_started({"item_id": "a", "audio_start_ms": 2000})
    assert started.position == 0


def test_over_webrtc_there_are_no_positions():
    found = turns(has_positions=False)
    (started,) = found.speech_started({"item_id": "a", "audio_start_ms": 500})
    assert started.position is None
    assert found.speech_stopped({"item_id": "a", "audio_end_ms": 900}) == [SpeechStopped("a")]
    (ended,) = found.turn_committed({"item_id": "a"})
    assert ended.position is None
    assert found.speech_stopped({"item_id": "b"}) == [SpeechStopped("b")]


def test_a_silent_item_ends_empty():
    found = turns()
    assert found.idle_timed_out({"item_id": "a"}) == []
    (ended,) = found.turn_committed({"item_id": "a"})
    assert ended.empty
    (ended,) = found.turn_committed({"item_id": "a"})
    assert not ended.empty


def test_audio_of_a_turn_is_noted_until_it_is_committed():
    found = turns()
    found.count_audio(480)
    found.turn_committed({"item_id": "a"})
    assert not found.has_audio
    manual = turns(None)
    manual.count_audio(480)
    (ended,) = manual.turn_committed({"item_id": "a"})
    assert manual.has_audio
    assert (ended.reply_follows, ended.silence_s) == (False, None)


def test_transcripts_grow_and_become_final():
    found = turns()
    assert found.transcript_delta({"item_id": "a", "delta": "How"}) == [
        UserTranscript("a", "How", final=False)
    ]
    assert found.transcript_delta({"item_id": "a", "delta": " late"}) == [
        UserTranscript("a", "How late", final=False)
    ]
    # Qwen sends all words so far, and those that may still change.
    assert found.transcript_delta({"item_id": "b", "text": "How", "stash": " lake"}) == [
        UserTranscript("b", "How lake", final=False)
    ]
    assert found.transcript_completed({"item_id": "a", "transcript": " How late? "}) == [
        UserTranscript("a", "How late?", final=True)
    ]
    assert found.transcript_delta({"item_id": "a", "delta": "New"})[0].text == "New"


@pytest.mark.parametrize(
    ("error", "code"),
    [({"code": "c", "type": "t"}, "c"), ({"type": "t"}, "t"), ({}, "transcription_failed")],
)
def test_a_transcription_that_failed_is_final_and_an_error(error, code):
    found = turns()
    found.transcript_delta({"item_id": "a", "delta": "How"})
    transcript, reported = found.transcription_failed({"item_id": "a", "error": error})
    assert transcript == UserTranscript("a", "", final=True)
    assert isinstance(reported, ProviderError)
    assert (reported.kind, reported.code) == (ErrorKind.RETRY, code)
