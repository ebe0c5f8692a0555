"""Each error of a voice or recogniser has a kind, and is told in the vendor's own words."""

import json

import pytest

from duologue.errors import ErrorKind
from duologue.pipeline.stt_codec import RecognitionFailed
from duologue.pipeline.tts_codec import ContextFailed, VoiceFailed
from duologue.providers._speech_service import SpeechOptions, SpeechService
from duologue.providers.cartesia._service import CARTESIA
from duologue.providers.cartesia._stt_codec import CartesiaTurnsCodec
from duologue.providers.cartesia._tts_codec import CartesiaTTSCodec
from duologue.providers.deepgram._aura_tts_codec import AuraCodec
from duologue.providers.deepgram._flux_stt_codec import FluxCodec
from duologue.providers.deepgram._flux_tts_codec import FluxTTSCodec
from duologue.providers.deepgram._nova_stt_codec import NovaCodec
from duologue.providers.deepgram._service import DEEPGRAM
from duologue.providers.elevenlabs._service import ELEVENLABS
from duologue.providers.elevenlabs._stt_codec import ScribeCodec
from duologue.providers.elevenlabs._tts_codec import ElevenLabsTTSCodec
from duologue.providers.openai._stt import OPENAI
from duologue.providers.openai._stt_codec import TranscriptionCodec

BENIGN, RETRY, RECYCLE, FATAL = (
    ErrorKind.BENIGN,
    ErrorKind.RETRY,
    ErrorKind.RECYCLE,
    ErrorKind.FATAL,
)
WORDS = "what the vendor says"


def service(vendor):
    return SpeechService(vendor, SpeechOptions(base_url="http://127.0.0.1:1"))


def cartesia(**fields):
    return {"type": "error", "message": WORDS, "title": "Error", **fields}


def deepgram(code):
    return {"type": "Error", "code": code, "description": WORDS}


def scribe(kind):
    return {"message_type": kind, "error": WORDS}


def openai(code):
    return {"type": "error", "error": {"type": "x", "code": code, "message": WORDS}}


CARTESIA_TTS = service(CARTESIA), lambda make: CartesiaTTSCodec({}, 24000, make)
CARTESIA_STT = service(CARTESIA), CartesiaTurnsCodec
ELEVEN_TTS = service(ELEVENLABS), lambda make: ElevenLabsTTSCodec({}, 24000, make)
SCRIBE = service(ELEVENLABS), lambda make: ScribeCodec(16000, make)
FLUX_STT = service(DEEPGRAM), FluxCodec
NOVA = service(DEEPGRAM), NovaCodec
FLUX_TTS = service(DEEPGRAM), lambda make: FluxTTSCodec(24000, make)
AURA = service(DEEPGRAM), lambda make: AuraCodec(24000, make, lambda: 0.0)
OPENAI_STT = service(OPENAI), lambda make: TranscriptionCodec({}, make)

EVENTS = [
    *((CARTESIA_TTS, cartesia(status_code=code), FATAL) for code in (400, 401, 402, 403, 404)),
    (CARTESIA_TTS, cartesia(status_code=429), RECYCLE),
    (CARTESIA_TTS, cartesia(status_code=429, context_id="c"), RECYCLE),
    (CARTESIA_TTS, cartesia(status_code=500), RETRY),
    (CARTESIA_TTS, cartesia(error_code="quota_exceeded", status_code=402), FATAL),
    (CARTESIA_TTS, cartesia(error_code="voice_not_found", status_code=404), FATAL),
    (CARTESIA_TTS, cartesia(error_code="model_not_found", status_code=404), FATAL),
    (CARTESIA_TTS, cartesia(error_code="concurrency_limited"), RECYCLE),
    (CARTESIA_TTS, cartesia(error_code="invalid_request", context_id="c"), FATAL),
    (CARTESIA_STT, cartesia(status_code=401), FATAL),
    (CARTESIA_STT, cartesia(status_code=429), RETRY),
    (
        ELEVEN_TTS,
        {"message": WORDS, "error": "max_active_conversations", "code": 1008},
        RECYCLE,
    ),
    (ELEVEN_TTS, {"message": WORDS, "error": "voice_not_found", "code": 1008}, FATAL),
    (ELEVEN_TTS, {"message": WORDS, "error": "quota_exceeded", "code": 1008}, FATAL),
    (ELEVEN_TTS, {"message": WORDS, "code": 1008}, RECYCLE),
    *((SCRIBE, scribe(kind), FATAL) for kind in ("auth_error", "quota_exceeded")),
    *((SCRIBE, scribe(kind), FATAL) for kind in ("unaccepted_terms", "invalid_request")),
    (SCRIBE, scribe("rate_limited"), RETRY),
    *(
        (SCRIBE, scribe(kind), RECYCLE)
        for kind in (
            "error",
            "queue_overflow",
            "resource_exhausted",
            "session_time_limit_exceeded",
            "input_error",
            "chunk_size_exceeded",
            "transcriber_error",
        )
    ),
    (SCRIBE, scribe("commit_throttled"), BENIGN),
    (SCRIBE, scribe("insufficient_audio_activity"), BENIGN),
    *(
        (codec, deepgram(code), RECYCLE)
        for codec in (FLUX_STT, FLUX_TTS, AURA)
        for code in (
            *(f"NET-000{number}" for number in range(5)),
            "DATA-0000",
            "DATA-0002",
            "BIG-0000",
        )
    ),
    (FLUX_TTS, deepgram("MESSAGE-0000"), FATAL),
    (NOVA, {"type": "Error", "variant": "DATA-0000", "description": WORDS}, RECYCLE),
    (OPENAI_STT, openai("invalid_model"), FATAL),
    (OPENAI_STT, openai("invalid_api_key"), FATAL),
    (OPENAI_STT, openai("model_not_found"), FATAL),
    (OPENAI_STT, openai("insufficient_quota"), FATAL),
    (OPENAI_STT, openai("session_expired"), RECYCLE),
    (OPENAI_STT, openai("input_audio_buffer_commit_empty"), BENIGN),
    (OPENAI_STT, openai("server_error"), RETRY),
]


@pytest.mark.parametrize(
    ("codec", "event", "kind"),
    EVENTS,
    ids=[f"{codec[0].name} {list(event.values())}" for codec, event, _ in EVENTS],
)
def test_an_error_event(codec, event, kind):
    part, make_codec = codec
    events = make_codec(part.error).decode(json.dumps(event).encode())
    failed = events[-1]
    assert isinstance(failed, RecognitionFailed | ContextFailed | VoiceFailed)
    assert failed.error.kind is kind
    assert WORDS in str(failed.error)
    assert str(failed.error).startswith(part.name)
    if isinstance(failed, RecognitionFailed):
        assert failed.benign is (kind is BENIGN)


@pytest.mark.parametrize("vendor", [CARTESIA, DEEPGRAM, ELEVENLABS, OPENAI], ids=lambda v: v.name)
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, FATAL), (401, FATAL), (402, FATAL), (403, FATAL), (404, FATAL), (429, RETRY)],
)
@pytest.mark.parametrize(
    "body",
    [
        {"message": WORDS},
        {"err_code": "X", "err_msg": WORDS},
        {"detail": {"status": "x", "message": WORDS}},
        {"error": {"message": WORDS}},
        {"title": WORDS},
    ],
    ids=lambda body: next(iter(body)),
)
def test_a_refused_handshake(vendor, status, kind, body):
    error = service(vendor)._http_error(status, json.dumps(body).encode())
    assert error.kind is kind
    assert error.code == str(status)
    assert WORDS in str(error)


@pytest.mark.parametrize(
    ("vendor", "code", "reason"),
    [
        (CARTESIA, 1000, "connection idle timeout"),
        (ELEVENLABS, 1000, ""),
        (ELEVENLABS, 1008, "max_active_conversations"),
        (DEEPGRAM, 1000, ""),
        (DEEPGRAM, 1008, "DATA-0000"),
        (DEEPGRAM, 1011, "NET-0001: no audio was received in 10 seconds"),
        (OPENAI, 1001, "Your session hit the maximum duration of 60 minutes."),
    ],
)
def test_a_closed_connection_is_replaced(vendor, code, reason):
    error = service(vendor)._close_error(code, reason)
    assert error.kind is RECYCLE
    assert reason in str(error)
