"""Cartesia's voices."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial

from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import TTSConnection
from duologue.pipeline.socket_tts import SocketTTS
from duologue.pipeline.tts_codec import VoiceTraits
from duologue.providers._json_fields import deep_merge
from duologue.providers._options import between, json_fields, one_of, option, takes, text
from duologue.providers._speech_service import SpeechOptions, SpeechService
from duologue.providers.cartesia._service import CARTESIA
from duologue.providers.cartesia._tts_codec import CartesiaTTSCodec

RATES = (8000, 16000, 22050, 24000, 44100, 48000)
MAX_CONTEXTS = 8
"""Replies at once on one connection; the service's own limit depends on the plan."""

TRAITS = VoiceTraits("words", max_contexts=MAX_CONTEXTS, confirms_cancel=False)


@dataclass(frozen=True)
class CartesiaTTSOptions(SpeechOptions):
    """Options of a Cartesia voice."""

    voice: str = option("", "id of the voice", check=text("the id of a voice"), json="voice.id")
    _: KW_ONLY
    model: str = option(
        "sonic-3", "name of the model", check=text("the name of a model"), json="model_id"
    )
    language: str | None = option(
        None,
        "language of the text, such as `en`",
        check=text("a language such as en"),
        shown="the model's",
        json="language",
    )
    speed: float | None = option(
        None,
        "0.6 to 1.5; 1 is the voice's own",
        check=between(0.6, 1.5),
        json="generation_config.speed",
    )
    volume: float | None = option(
        None,
        "0.5 to 2; 1 is the voice's own",
        check=between(0.5, 2.0),
        json="generation_config.volume",
    )
    emotion: str | None = option(
        None,
        "an emotion that the model knows, such as `calm`",
        check=text("an emotion"),
        json="generation_config.emotion",
    )
    rate: int = option(
        24000,
        "samples a second of the audio",
        check=one_of(*RATES),
        json="output_format.sample_rate",
    )


class TTS:
    """Cartesia's voices as a `StreamingTTS` (extra ``cartesia``).

    A reply is one context of the service, whose word times say what the person heard. Text is sent
    by the clause, as soon as each is complete. The arguments are the fields of
    `CartesiaTTSOptions`, and are described in docs/providers/cartesia.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    @takes(CartesiaTTSOptions)
    def __init__(self, options: CartesiaTTSOptions) -> None:
        self.rate = options.rate
        self._service = SpeechService(CARTESIA, options)
        self._reconnect = options.reconnect
        fixed: JsonObject = {
            "voice": {"mode": "id"},
            "output_format": {"container": "raw", "encoding": "pcm_s16le"},
            "add_timestamps": True,
            "max_buffer_delay_ms": 0,
        }
        request = deep_merge(fixed, json_fields(options))
        self._request = deep_merge(request, options.extra or {})

    def connect(self) -> TTSConnection:
        """Return the voice of a new conversation."""
        return SocketTTS[bytes](
            TRAITS,
            self.rate,
            make_codec=partial(CartesiaTTSCodec, self._request, self.rate, self._service.error),
            make_wire=partial(self._service.websocket, "/tts/websocket"),
            clock=self._service.clock,
            reconnect=self._reconnect,
            origin=self,
        )
