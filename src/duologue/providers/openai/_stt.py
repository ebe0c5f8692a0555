"""OpenAI's realtime transcription."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Literal

from duologue.errors import ErrorKind
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import STTConnection
from duologue.pipeline.socket_stt import SocketSTT
from duologue.pipeline.stt_codec import RecognizerTraits
from duologue.providers._json_fields import deep_merge
from duologue.providers._options import json_fields, one_of, option, takes, text
from duologue.providers._speech_service import SpeechOptions, SpeechService, Vendor
from duologue.providers.openai._stt_codec import RATE, TranscriptionCodec

TRAITS = RecognizerTraits(turns="local", silence_s=None)

OPENAI = Vendor(
    name="OpenAI",
    url="wss://api.openai.com/v1",
    variables=("OPENAI_API_KEY",),
    auth=lambda key: {"Authorization": f"Bearer {key}"},
    errors={
        "invalid_api_key": ErrorKind.FATAL,
        "invalid_model": ErrorKind.FATAL,
        "model_not_found": ErrorKind.FATAL,
        "insufficient_quota": ErrorKind.FATAL,
        "session_expired": ErrorKind.RECYCLE,
        "input_audio_buffer_commit_empty": ErrorKind.BENIGN,
    },
    extra="openai",
)


@dataclass(frozen=True)
class OpenAISTTOptions(SpeechOptions):
    """Options of OpenAI's realtime transcription."""

    model: str = option(
        "gpt-live-transcribe",
        "name of the model",
        check=text("the name of a model"),
        json="audio.input.transcription.model",
    )
    _: KW_ONLY
    language: str | None = option(
        None,
        "language of the speech, such as `en`",
        check=text("a language such as en"),
        shown="detected",
        json="audio.input.transcription.language",
    )
    prompt: str | None = option(
        None,
        "what the speech is about, for models that take a prompt",
        check=text("a text"),
        json="audio.input.transcription.prompt",
    )
    noise_reduction: str | None = option(
        None,
        "`near_field` or `far_field`",
        check=one_of("near_field", "far_field"),
        json="audio.input.noise_reduction.type",
    )


class STT:
    """OpenAI's realtime transcription as a `StreamingSTT` (extra ``openai``).

    The pipeline's own voice activity and turn detection find the turns. The arguments are the
    fields of `OpenAISTTOptions`, and are described in docs/providers/openai.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    rate = RATE
    turns: Literal["service", "local"] = "local"

    @takes(OpenAISTTOptions)
    def __init__(self, options: OpenAISTTOptions) -> None:
        base_url = options.base_url or os.environ.get("OPENAI_BASE_URL")
        self._service = SpeechService(OPENAI, options, base_url=base_url)
        self._reconnect = options.reconnect
        fixed: JsonObject = {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": RATE},
                    "turn_detection": None,
                }
            },
        }
        session = deep_merge(fixed, json_fields(options))
        self._session = deep_merge(session, options.extra or {})

    def connect(self) -> STTConnection:
        """Return the transcription of a new conversation."""
        query = (("intent", "transcription"),)
        return SocketSTT[bytes](
            TRAITS,
            RATE,
            make_codec=partial(TranscriptionCodec, self._session, self._service.error),
            make_wire=partial(self._service.websocket, "/realtime", query),
            clock=self._service.clock,
            reconnect=self._reconnect,
            origin=self,
        )
