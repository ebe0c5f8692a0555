import asyncio

import numpy as np
import pytest
from fake_components import STT, Turn, be_silent, session, speak

from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.realtime.outputs import (
    ProviderError,
    SpeechStarted,
    SpeechStopped,
    UserTranscript,
    UserTurnEnded,
)
from duologue.testing import virtual_time
from duologue.vad.endpointing import Endpointing
from duologue.vad.energy import EnergyVAD


@virtual_time
async def test_events_of_a_turn_come_in_order():
    async with session(turn=Turn()) as pipeline:
        await be_silent(pipeline, 1.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await speak(pipeline, 1.0)
        ended = loop.time()
        await be_silent(pipeline, 0.5)
        observer = pipeline.observer
        kinds = [type(o).__name__ for _, o in observer.outputs]
        assert kinds[0] == "SpeechStarted"
        assert kinds.index("SpeechStopped") < kinds.index("UserTurnEnded")
        (started,) = observer.of_type(SpeechStarted)
        assert started.at == pytest.approx(began, abs=0.02)
        (stopped,), (turn,) = observer.of_type(SpeechStopped), observer.of_type(UserTurnEnded)
        assert stopped.at == pytest.approx(ended, abs=0.02)
        assert turn.speech_end == pytest.approx(ended, abs=0.02)
        assert (
            {o.item_id for o in observer.of_type(UserTranscript)}
            == {turn.item_id}
            == {started.item_id}
        )


@virtual_time
async def test_partial_transcripts_come_while_the_person_speaks():
    async with session(turn=Turn()) as pipeline:
        await speak(pipeline, 1.5)
        partials = pipeline.observer.of_type(UserTranscript)
        assert 3 <= len(partials) <= 6
        assert not any(p.final for p in partials)
        lengths = [len(p.text) for p in partials]
        assert lengths == sorted(lengths)
        assert pipeline.observer.outputs[1][0] - pipeline.observer.outputs[0][0] < 0.35


@virtual_time
async def test_slow_stt_is_asked_less_often():
    async with session(stt=STT(delay_s=0.4), turn=Turn()) as pipeline:
        await speak(pipeline, 6.0)
        assert pipeline.stt.calls <= 5


@virtual_time
async def test_audio_before_the_first_sign_of_speech_belongs_to_the_turn():
    stt = STT(transcribe=lambda loud: f"heard {round(loud * 1000)}")
    async with session(stt=stt, turn=Turn(), vad=EnergyVAD(level=5000)) as pipeline:
        await speak(pipeline, 1.0, level=1000)  # Too soft to be speech.
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.0)
        final = pipeline.observer.of_type(UserTranscript)[-1]
        assert int(final.text.split()[1]) == pytest.approx(500 + 350 - 48, abs=60)


@virtual_time
async def test_turn_detector_gets_the_end_of_the_turn():
    turn = Turn()
    async with session(turn=turn) as pipeline:
        await speak(pipeline, 10.0)
        await be_silent(pipeline, 0.4)
        seconds, text = turn.heard[0]
        assert seconds == pytest.approx(8.0, abs=0.05)
        assert text.endswith("w100")
        assert len(pipeline.observer.of_type(UserTurnEnded)) == 1


@virtual_time
async def test_timeout_decides_when_the_detector_fails():
    async with session(turn=Turn(*[SessionError("broken")] * 20)) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 1.5)
        messages = {e.message for e in pipeline.observer.of_type(ProviderError)}
        assert messages == {"turn detection: broken"}
        assert pipeline.observer.time_of(UserTurnEnded) - end == pytest.approx(0.7, abs=0.03)


@virtual_time
async def test_silence_ends_a_turn_without_a_detector():
    options = Endpointing(timeout_s=0.4)
    async with session(endpointing=options) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 1.5)
        assert pipeline.observer.time_of(UserTurnEnded) - end == pytest.approx(0.4, abs=0.03)


@virtual_time
async def test_slow_stt_still_ends_the_turn_once():
    async with session(stt=STT(delay_s=1.0), turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 3.0)
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        assert not turn.empty


@virtual_time
async def test_person_continues_after_the_timeout_of_a_slow_stt():
    async with session(stt=STT(delay_s=1.0), turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.8)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 3.0)
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        final = pipeline.observer.of_type(UserTranscript)[-1]
        assert final.text.split()[-1] == "w10"
        assert not turn.empty
        assert len(pipeline.llm.requests) == 1


@virtual_time
async def test_close_turns_are_transcribed_together_and_reported_separately():
    async with session(turn=Turn()) as pipeline:
        await speak(pipeline, 0.3)
        await be_silent(pipeline, 0.8)
        await speak(pipeline, 0.4)
        await be_silent(pipeline, 1.0)
        assert len(pipeline.stt.streams) == 1
        finals = [o.text for o in pipeline.observer.of_type(UserTranscript) if o.final]
        assert [text.split()[0] for text in finals] == ["w1", "w4"]
        ids = [turn.item_id for turn in pipeline.observer.of_type(UserTurnEnded)]
        assert len(set(ids)) == 2
        await be_silent(pipeline, 3.0)
        await speak(pipeline, 0.3)
        assert len(pipeline.stt.streams) == 2
        assert pipeline.stt.streams[0].closed


@virtual_time
@pytest.mark.parametrize("size", [160, 320, 1600])
async def test_resumed_speech_is_transcribed_with_the_silence_before_it(size):
    config = Endpointing(preroll_s=0.3)
    async with session(turn=Turn(), endpointing=config) as pipeline:
        audio = np.concatenate(
            [
                np.zeros(16000, np.int16),
                np.full(12800, 9000, np.int16),
                np.zeros(19200, np.int16),
                np.full(12800, 9001, np.int16),
                np.zeros(16000, np.int16),
            ]
        )
        for at in range(0, len(audio), size):
            await asyncio.sleep(size / 16000)
            pipeline.send_audio(AudioFrame(audio[at : at + size], 16000))
        [stream] = pipeline.stt.streams
        received = np.concatenate(stream.audio)
        began = int(np.flatnonzero(received)[0])
        # The requested length, less what the VAD needs to be sure, without a gap.
        assert 3200 <= began <= 4800
        assert np.array_equal(received, audio[16000 - began :][: len(received)])
        assert np.count_nonzero(received == 9001) == 12800


@virtual_time
async def test_second_sentence_is_found_in_a_language_without_spaces():
    first, both = "今天很暖和。", "今天很暖和。明天呢？"
    stt = STT(transcribe=lambda loud: first if loud < 0.4 else both)
    async with session(stt=stt, turn=Turn()) as pipeline:
        await speak(pipeline, 0.3)
        await be_silent(pipeline, 0.8)
        await speak(pipeline, 0.4)
        await be_silent(pipeline, 1.0)
        finals = [o.text for o in pipeline.observer.of_type(UserTranscript) if o.final]
        assert finals == [first, "明天呢？"]


@virtual_time
@pytest.mark.parametrize("word", ["yes", "हाँ", "是", "はい"])
async def test_turn_of_one_short_word_is_answered_in_any_script(word):
    async with session(stt=STT(transcribe=lambda loud: word), turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.0)
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        assert not turn.empty
        assert len(pipeline.llm.requests) == 1


@virtual_time
async def test_second_turn_that_the_stt_leaves_out_is_transcribed_alone():
    class Forgetful(STT):
        """Transcribes repeated words once."""

        def __init__(self):
            super().__init__(transcribe=lambda loud: "Yes." if loud > 0.2 else "")

    async with session(stt=Forgetful(), turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.8)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        finals = [o.text for o in pipeline.observer.of_type(UserTranscript) if o.final]
        assert finals == ["Yes.", "Yes."]
        assert len(pipeline.stt.streams) == 2
        assert pipeline.stt.streams[0].closed


@virtual_time
async def test_click_after_a_turn_is_not_transcribed_alone():
    async with session(stt=STT(transcribe=lambda loud: "Yes."), turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.8)
        await speak(pipeline, 0.1)
        await be_silent(pipeline, 1.0)
        assert [turn.empty for turn in pipeline.observer.of_type(UserTurnEnded)] == [False, True]
        assert len(pipeline.stt.streams) == 1
