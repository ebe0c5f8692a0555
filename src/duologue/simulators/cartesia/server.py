"""`CartesiaSimulator`: a server on this machine that speaks Cartesia's WebSocket protocols."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Unpack

from duologue._optional import optional
from duologue.errors import ConfigError

with optional("simulate"):
    from aiohttp import web

    from duologue.simulators._channel import EventChannel
    from duologue.simulators._speech.service import (
        RefusedError,
        SessionFactory,
        SpeechSimulator,
        SpeechSimulatorOptions,
    )
    from duologue.simulators._speech.sessions import SpeechSession
    from duologue.simulators._speech.voices import make_voice
    from duologue.simulators.cartesia._manual_stt_session import CartesiaManualSTTSession
    from duologue.simulators.cartesia._stt_session import CartesiaSTTSession
    from duologue.simulators.cartesia._tts_session import CartesiaTTSSession


class CartesiaSimulator(SpeechSimulator):
    """Cartesia on this machine; use as ``async with``.

    Args:
        backend: ``script``: tones and the ``transcripts``; ``local``: the built-in voice and
            recogniser.
        transcripts: What is recognised, turn by turn.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        key: The API key that is valid.
        faults: What goes wrong: faults, or names of presets.
        clock_scale: Divides the service's limits of time.
        max_contexts: Contexts that may be active at once on a connection.
        timestamps: Send word times. The service leaves them out for some texts.
        seed: Makes delays the same in every run.
        clock: The clock of all times.

    Raises:
        ConfigError: An option is wrong, or the port is in use.
        MissingExtraError: The extra ``simulate`` is not installed.
    """

    default_key: ClassVar[str] = "sk_car_simulator"

    def __init__(
        self,
        backend: str = "script",
        *,
        max_contexts: int = 15,
        timestamps: bool = True,
        **options: Unpack[SpeechSimulatorOptions],
    ) -> None:
        if max_contexts < 1:
            raise ConfigError(f"max_contexts must be 1 or more, not {max_contexts}")
        super().__init__(backend, **options)
        self._max_contexts = max_contexts
        self._timestamps = timestamps

    def routes(self) -> Mapping[str, SessionFactory]:
        """Return the session factories by path."""
        return {
            "/tts/websocket": self._make_tts,
            "/stt/turns/websocket": self._make_stt,
            "/stt/websocket": self._make_manual_stt,
        }

    def key_of(self, request: web.Request) -> str:
        """Return the key of either header."""
        kind, _, key = request.headers.get("Authorization", "").partition(" ")
        return key if kind.lower() == "bearer" else request.headers.get("X-API-Key", "")

    def _make_tts(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        self._check_version(request)
        return CartesiaTTSSession(
            channel,
            self._clock,
            partial(make_voice, self.backend),
            max_contexts=self._max_contexts,
            clock_scale=self.clock_scale,
            with_timestamps=self._timestamps,
        )

    def _make_stt(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        rate = self._check_stt(request)
        return CartesiaSTTSession(
            channel, self._clock, self.recognizer(), rate, clock_scale=self.clock_scale
        )

    def _make_manual_stt(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        rate = self._check_stt(request)
        return CartesiaManualSTTSession(
            channel,
            self._clock,
            self.recognizer(),
            rate,
            language=request.query.get("language", "en"),
            clock_scale=self.clock_scale,
        )

    def _check_stt(self, request: web.Request) -> int:
        """Return the rate of the audio of a recogniser."""
        self._check_version(request)
        query = request.query
        if query.get("encoding") != "pcm_s16le":
            raise RefusedError(400, "encoding must be pcm_s16le here")
        try:
            rate = int(query.get("sample_rate", ""))
        except ValueError:
            raise RefusedError(400, "sample_rate is required") from None
        if not query.get("model"):
            raise RefusedError(400, "model is required")
        return rate

    @staticmethod
    def _check_version(request: web.Request) -> None:
        if not (request.headers.get("Cartesia-Version") or request.query.get("cartesia_version")):
            raise RefusedError(400, "Cartesia-Version is required")
