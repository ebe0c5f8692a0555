"""ElevenLabs' recogniser, Scribe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Literal

from duologue.pipeline.interfaces import STTConnection
from duologue.pipeline.socket_stt import SocketSTT
from duologue.pipeline.stt_codec import RecognizerTraits
from duologue.providers._options import option, takes, text
from duologue.providers._speech_service import Query, SpeechOptions, SpeechService
from duologue.providers.elevenlabs._service import ELEVENLABS
from duologue.providers.elevenlabs._stt_codec import ScribeCodec

RATE = 16000
TRAITS = RecognizerTraits(turns="local", silence_s=None, idle_silence_s=2.0)


@dataclass(frozen=True)
class ElevenLabsSTTOptions(SpeechOptions):
    """Options of ElevenLabs' recogniser."""

    model: str = option("scribe_v2_realtime", "name of the model", check=text("a model's name"))
    _: KW_ONLY
    language: str | None = option(
        None,
        "language of the speech, such as `en`",
        check=text("a language such as en"),
        shown="detected",
    )
    keyterms: Sequence[str] = option((), "words that it should expect: up to 50")


class STT:
    """ElevenLabs' recogniser as a `StreamingSTT` (extra ``elevenlabs``).

    The pipeline's own voice activity and turn detection find the turns, because the service's are
    slow. The arguments are the fields of `ElevenLabsSTTOptions`, and are described in
    docs/providers/elevenlabs.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    rate = RATE
    turns: Literal["service", "local"] = "local"

    @takes(ElevenLabsSTTOptions)
    def __init__(self, options: ElevenLabsSTTOptions) -> None:
        self._service = SpeechService(ELEVENLABS, options)
        self._reconnect = options.reconnect
        self._query: Query = (
            ("model_id", options.model),
            ("audio_format", f"pcm_{RATE}"),
            ("commit_strategy", "manual"),
            ("include_timestamps", True),
            ("language_code", options.language),
            *(("keyterms", keyterm) for keyterm in options.keyterms),
        )

    def connect(self) -> STTConnection:
        """Return the transcription of a new conversation."""
        return SocketSTT[bytes](
            TRAITS,
            RATE,
            make_codec=partial(ScribeCodec, RATE, self._service.error),
            make_wire=partial(self._service.websocket, "/v1/speech-to-text/realtime", self._query),
            clock=self._service.clock,
            reconnect=self._reconnect,
            origin=self,
        )
