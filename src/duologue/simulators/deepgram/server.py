"""`DeepgramSimulator`: a server on this machine that speaks Deepgram's WebSocket protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

from duologue._optional import optional
from duologue.errors import ConfigError
from duologue.json_types import JsonObject

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
    from duologue.simulators._speech.voices import Voice, make_voice
    from duologue.simulators.deepgram._aura_tts_session import AuraTTSSession
    from duologue.simulators.deepgram._flux_stt_session import FluxSTTSession
    from duologue.simulators.deepgram._flux_tts_session import FluxTTSSession
    from duologue.simulators.deepgram._nova_stt_session import NovaSTTSession

_ENCODINGS = ("linear16",)


class DeepgramSimulator(SpeechSimulator):
    """Deepgram on this machine; use as ``async with``.

    Args:
        backend: ``script``: tones and the ``transcripts``; ``local``: the built-in voice and
            recogniser.
        transcripts: What is recognised, turn by turn.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        key: The API key that is valid.
        faults: What goes wrong: faults, or names of presets.
        clock_scale: Divides the service's limits of time.
        stale_frames: Frames of audio that still come after a voice was stopped.
        flux_speed: Seconds of audio that a Flux voice makes in a second; None: hundreds.
        seed: Makes delays the same in every run.
        clock: The clock of all times.

    Raises:
        ConfigError: An option is wrong, or the port is in use.
        MissingExtraError: The extra ``simulate`` is not installed.
    """

    default_key: ClassVar[str] = "dg-simulator"

    def __init__(
        self,
        backend: str = "script",
        *,
        stale_frames: int = 3,
        flux_speed: float | None = None,
        **options: Unpack[SpeechSimulatorOptions],
    ) -> None:
        super().__init__(backend, **options)
        if flux_speed is not None and flux_speed <= 0:
            raise ConfigError(f"flux_speed must be above 0, not {flux_speed}")
        self._stale_frames = stale_frames
        self._flux_speed = flux_speed

    def routes(self) -> Mapping[str, SessionFactory]:
        """Return the session factories by path."""
        return {
            "/v2/listen": self._make_flux_stt,
            "/v1/listen": self._make_nova_stt,
            "/v2/speak": self._make_flux_tts,
            "/v1/speak": self._make_aura_tts,
        }

    def key_of(self, request: web.Request) -> str:
        """Return the key, or the token of a bearer."""
        return request.headers.get("Authorization", "").partition(" ")[2]

    def error_body(self, status: int, message: str) -> JsonObject:
        """Return the body of a refusal."""
        return {"err_code": f"HTTP_{status}", "err_msg": message, "request_id": "simulated"}

    def _make_flux_stt(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        if not _model(request).startswith("flux-"):
            raise RefusedError(400, "model must be a Flux model on /v2/listen")
        eager = request.query.get("eager_eot_threshold")
        eot = float(request.query.get("eot_threshold", "0.7"))
        if eager is not None and not 0.3 <= float(eager) <= min(0.9, eot):
            raise RefusedError(400, "eager_eot_threshold is out of range")
        return FluxSTTSession(
            channel,
            self._clock,
            self.recognizer(),
            _rate(request),
            eager=eager is not None,
            timeout_s=float(request.query.get("eot_timeout_ms", "5000")) / 1000,
        )

    def _make_nova_stt(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        if _model(request).startswith("flux-"):
            raise RefusedError(400, "Flux models are on /v2/listen")
        return NovaSTTSession(
            channel,
            self._clock,
            self.recognizer(),
            _rate(request),
            clock_scale=self.clock_scale,
        )

    def _make_flux_tts(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        if not _model(request).startswith("flux-"):
            raise RefusedError(400, "model must be a Flux voice on /v2/speak")
        return FluxTTSSession(
            channel,
            self._clock,
            self._voice(request),
            stale_frames=self._stale_frames,
            speed=self._flux_speed,
        )

    def _make_aura_tts(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        if not _model(request).startswith("aura-"):
            raise RefusedError(400, "model must be an Aura voice on /v1/speak")
        return AuraTTSSession(
            channel, self._clock, self._voice(request), stale_frames=self._stale_frames
        )

    def _voice(self, request: web.Request) -> Voice:
        return make_voice(self.backend, _rate(request))


def _model(request: web.Request) -> str:
    model = request.query.get("model", "")
    if not model:
        raise RefusedError(400, "model is required")
    if request.query.get("encoding", "linear16") not in _ENCODINGS:
        raise RefusedError(400, "the simulator speaks linear16 only")
    return model


def _rate(request: web.Request) -> int:
    try:
        return int(request.query.get("sample_rate", "24000"))
    except ValueError:
        raise RefusedError(400, "sample_rate must be a number") from None
