"""Deepgram's voices: Flux and Aura."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial

from duologue.errors import ConfigError
from duologue.pipeline.interfaces import TTSConnection
from duologue.pipeline.socket_tts import SocketTTS
from duologue.pipeline.tts_codec import TTSCodec, VoiceTraits
from duologue.providers._options import between, one_of, option, takes, text
from duologue.providers._speech_service import Query, SpeechOptions, SpeechService
from duologue.providers.deepgram._aura_tts_codec import AuraCodec
from duologue.providers.deepgram._flux_tts_codec import FluxTTSCodec
from duologue.providers.deepgram._service import DEEPGRAM

RATES = (8000, 16000, 24000, 32000, 44100, 48000)
FLUX_TRAITS = VoiceTraits("none", splits=False)
AURA_TRAITS = VoiceTraits("clauses")


@dataclass(frozen=True)
class DeepgramTTSOptions(SpeechOptions):
    """Options of Deepgram's voices."""

    voice: str = option(
        "flux-alexis-en",
        "name of the voice: a Flux voice, or an Aura voice such as `aura-2-thalia-en`",
        check=text("the name of a voice"),
    )
    _: KW_ONLY
    speed: float | None = option(
        None, "0.5 to 1.5; 1 is the voice's own", check=between(0.5, 1.5), shown="1"
    )
    expressivity: float | None = option(
        None, "-2 to 2, for Flux voices", check=between(-2, 2), shown="the voice's"
    )
    rate: int = option(24000, "samples a second of the audio", check=one_of(*RATES))


class TTS:
    """Deepgram's voices as a `StreamingTTS` (extra ``deepgram``).

    A Flux voice takes the text as the model writes it, and says after an interruption what was
    spoken. An Aura voice is sent clauses, whose beginnings are known. The arguments are the fields
    of `DeepgramTTSOptions`, and are described in docs/providers/deepgram.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    @takes(DeepgramTTSOptions)
    def __init__(self, options: DeepgramTTSOptions) -> None:
        flux = options.voice.startswith("flux")
        if not flux and options.expressivity is not None:
            raise ConfigError("expressivity is for Flux voices: leave it out")
        self.rate = options.rate
        self._service = SpeechService(DEEPGRAM, options)
        self._reconnect = options.reconnect
        query: Query = (
            ("model", options.voice),
            ("encoding", "linear16"),
            ("sample_rate", options.rate),
            ("speed", options.speed),
            ("expressivity", options.expressivity),
        )
        self._traits = FLUX_TRAITS if flux else AURA_TRAITS
        self._make_codec: Callable[[], TTSCodec[bytes]]
        if flux:
            self._make_codec = partial(FluxTTSCodec, self.rate, self._service.error)
        else:
            # The limit of a minute goes on over connections, but a lost one is rare.
            now = self._service.clock.now
            self._make_codec = partial(AuraCodec, self.rate, self._service.error, now)
        path = "/v2/speak" if flux else "/v1/speak"
        self._make_wire = partial(self._service.websocket, path, query)

    def connect(self) -> TTSConnection:
        """Return the voice of a new conversation."""
        return SocketTTS[bytes](
            self._traits,
            self.rate,
            make_codec=self._make_codec,
            make_wire=self._make_wire,
            clock=self._service.clock,
            reconnect=self._reconnect,
            origin=self,
        )
