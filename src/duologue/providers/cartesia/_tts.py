"""Cartesia's voices."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import partial

from duologue.clock import Clock, LoopClock
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import TTSConnection
from duologue.pipeline.socket_tts import SocketTTS
from duologue.pipeline.tts_codec import VoiceTraits
from duologue.providers._json_fields import deep_merge
from duologue.providers._validate import check_choice, check_range
from duologue.providers.cartesia._service import cartesia
from duologue.providers.cartesia._tts_codec import CartesiaTTSCodec
from duologue.realtime.network import ApiKey
from duologue.realtime.reconnect import ReconnectPolicy

RATES = (8000, 16000, 22050, 24000, 44100, 48000)
MAX_CONTEXTS = 8
"""Replies at once on one connection; the service's own limit depends on the plan."""

TRAITS = VoiceTraits("words", max_contexts=MAX_CONTEXTS, confirms_cancel=False)


class TTS:
    """Cartesia's voices as a `StreamingTTS` (extra ``cartesia``).

    A reply is one context of the service, whose word times say what the person heard. Text is sent
    by the clause, as soon as each is complete.

    Args:
        voice: Id of the voice.
        model: Name of the model.
        language: Language of the text, such as ``en``; the model's default if None.
        speed: 0.6 to 1.5; 1 is the voice's own.
        volume: 0.5 to 2; 1 is the voice's own.
        emotion: An emotion that the model knows, such as ``calm``.
        rate: Hz of the audio: 8000, 16000, 22050, 24000, 44100 or 48000.
        extra: Fields without an argument here, merged into every message last.
        api_key: A key, or a function that returns one for each connection; read from
            ``CARTESIA_API_KEY`` when not given.
        base_url: Another address of the service.
        headers: More headers of each connection.
        proxy: Address of a proxy; None uses the environment's.
        ssl_context: Whom to trust, and with which certificate of our own.
        reconnect: How lost connections are replaced.
        clock: The clock, for tests.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    def __init__(
        self,
        voice: str,
        *,
        model: str = "sonic-3",
        language: str | None = None,
        speed: float | None = None,
        volume: float | None = None,
        emotion: str | None = None,
        rate: int = 24000,
        extra: Mapping[str, Json] | None = None,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        for name, value in (("voice", voice), ("model", model)):
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{name} must be the name of one, not {value!r}")
        check_choice("rate", rate, RATES, "")
        if speed is not None:
            check_range("speed", speed, 0.6, 1.5)
        if volume is not None:
            check_range("volume", volume, 0.5, 2.0)
        self.rate = rate
        self._service = cartesia(
            base_url=base_url,
            api_key=api_key,
            headers=headers,
            proxy=proxy,
            ssl_context=ssl_context,
        )
        tone = {"speed": speed, "volume": volume, "emotion": emotion}
        generation: JsonObject = {key: value for key, value in tone.items() if value is not None}
        request: JsonObject = {
            "model_id": model,
            "voice": {"mode": "id", "id": voice},
            "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": rate},
            "add_timestamps": True,
            "max_buffer_delay_ms": 0,
        }
        if language is not None:
            request["language"] = language
        if generation:
            request["generation_config"] = generation
        self._request = deep_merge(request, extra or {})
        self._reconnect = reconnect
        self._clock = clock or LoopClock()

    def connect(self) -> TTSConnection:
        """Return the voice of a new conversation."""
        return SocketTTS[bytes](
            TRAITS,
            self.rate,
            make_codec=partial(CartesiaTTSCodec, self._request, self.rate, self._service.error),
            make_wire=partial(self._service.websocket, "/tts/websocket"),
            clock=self._clock,
            reconnect=self._reconnect,
        )
