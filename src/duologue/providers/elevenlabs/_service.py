"""How ElevenLabs is reached, and the kinds of its errors."""

from __future__ import annotations

from duologue.errors import ErrorKind
from duologue.providers._speech_service import Vendor

ELEVENLABS = Vendor(
    name="ElevenLabs",
    url="wss://api.elevenlabs.io",
    variables=("ELEVENLABS_API_KEY", "ELEVEN_API_KEY"),
    auth=lambda key: {"xi-api-key": key},
    errors={
        "400": ErrorKind.FATAL,
        "401": ErrorKind.FATAL,
        "402": ErrorKind.FATAL,
        "403": ErrorKind.FATAL,
        "404": ErrorKind.FATAL,
        "422": ErrorKind.FATAL,
        "429": ErrorKind.RETRY,
        "1000": ErrorKind.RECYCLE,
        "1008": ErrorKind.RECYCLE,
        "auth_error": ErrorKind.FATAL,
        "unaccepted_terms": ErrorKind.FATAL,
        "quota_exceeded": ErrorKind.FATAL,
        "invalid_request": ErrorKind.FATAL,
        "voice_not_found": ErrorKind.FATAL,
        "invalid_api_key": ErrorKind.FATAL,
        "max_active_conversations": ErrorKind.RECYCLE,
        "rate_limited": ErrorKind.RETRY,
        "error": ErrorKind.RECYCLE,
        "input_error": ErrorKind.RECYCLE,
        "chunk_size_exceeded": ErrorKind.RECYCLE,
        "queue_overflow": ErrorKind.RECYCLE,
        "resource_exhausted": ErrorKind.RECYCLE,
        "session_time_limit_exceeded": ErrorKind.RECYCLE,
        "transcriber_error": ErrorKind.RECYCLE,
        "commit_throttled": ErrorKind.BENIGN,
        "insufficient_audio_activity": ErrorKind.BENIGN,
    },
    extra="elevenlabs",
)
