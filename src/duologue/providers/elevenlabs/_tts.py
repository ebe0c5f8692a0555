"""ElevenLabs' voices."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial
from urllib.parse import quote

from duologue.pipeline.interfaces import TTSConnection
from duologue.pipeline.socket_tts import SocketTTS
from duologue.pipeline.tts_codec import VoiceTraits
from duologue.providers._json_fields import deep_merge
from duologue.providers._options import between, json_fields, one_of, option, takes, text
from duologue.providers._speech_service import Query, SpeechOptions, SpeechService
from duologue.providers.elevenlabs._service import ELEVENLABS
from duologue.providers.elevenlabs._tts_codec import ElevenLabsTTSCodec

RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
MAX_CONTEXTS = 5
"""Contexts on a connection; the service closes it at the sixth."""
CONTEXT_IDLE_S = 180
"""Seconds for which the service keeps a context without text: its maximum."""

TRAITS = VoiceTraits("words", max_contexts=MAX_CONTEXTS)


@dataclass(frozen=True)
class ElevenLabsTTSOptions(SpeechOptions):
    """Options of an ElevenLabs voice."""

    voice: str = option("", "id of the voice", check=text("the id of a voice"))
    _: KW_ONLY
    model: str = option("eleven_flash_v2_5", "name of the model", check=text("the name of a model"))
    language: str | None = option(
        None,
        "language of the text, such as `en`, for models that take one",
        check=text("a language such as en"),
        shown="found in the text",
    )
    stability: float | None = option(
        None, "0 to 1", check=between(0, 1), json="voice_settings.stability", shown="the voice's"
    )
    similarity_boost: float | None = option(
        None,
        "0 to 1",
        check=between(0, 1),
        json="voice_settings.similarity_boost",
        shown="the voice's",
    )
    style: float | None = option(
        None, "0 to 1", check=between(0, 1), json="voice_settings.style", shown="the voice's"
    )
    speed: float | None = option(
        None,
        "0.7 to 1.2; 1 is the voice's own",
        check=between(0.7, 1.2),
        json="voice_settings.speed",
    )
    text_normalization: str = option(
        "auto", "`auto`, `on` or `off`: write numbers out", check=one_of("auto", "on", "off")
    )
    rate: int = option(24000, "samples a second of the audio", check=one_of(*RATES))


class TTS:
    """ElevenLabs' voices as a `StreamingTTS` (extra ``elevenlabs``).

    A reply is one context of the service, whose character times say what the person heard. Text is
    sent by the clause, as soon as each is complete. The arguments are the fields of
    `ElevenLabsTTSOptions`, and are described in docs/providers/elevenlabs.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    @takes(ElevenLabsTTSOptions)
    def __init__(self, options: ElevenLabsTTSOptions) -> None:
        self.rate = options.rate
        self._service = SpeechService(ELEVENLABS, options)
        self._reconnect = options.reconnect
        self._path = f"/v1/text-to-speech/{quote(options.voice, safe='')}/multi-stream-input"
        self._query: Query = (
            ("model_id", options.model),
            ("output_format", f"pcm_{options.rate}"),
            ("language_code", options.language),
            ("auto_mode", True),
            ("sync_alignment", True),
            ("inactivity_timeout", CONTEXT_IDLE_S),
            ("apply_text_normalization", options.text_normalization),
        )
        self._settings = deep_merge(json_fields(options), options.extra or {})

    def connect(self) -> TTSConnection:
        """Return the voice of a new conversation."""
        return SocketTTS[bytes](
            TRAITS,
            self.rate,
            make_codec=partial(ElevenLabsTTSCodec, self._settings, self.rate, self._service.error),
            make_wire=partial(self._service.websocket, self._path, self._query),
            clock=self._service.clock,
            reconnect=self._reconnect,
            origin=self,
        )
