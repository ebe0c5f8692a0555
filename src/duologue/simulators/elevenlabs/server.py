"""`ElevenLabsSimulator`: a server on this machine that speaks ElevenLabs' WebSocket protocols."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Unpack
from uuid import uuid4

from duologue._bounded_dict import BoundedDict
from duologue._optional import optional
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
    from duologue.simulators._speech.voices import make_voice
    from duologue.simulators.elevenlabs._stt_session import ScribeSession
    from duologue.simulators.elevenlabs._tts_session import ElevenLabsTTSSession

MAX_INACTIVITY_S = 180
TOKEN_KINDS = ("realtime_scribe", "batch_scribe", "tts_websocket")
TOKEN_S = 900.0
"""Seconds for which a single-use token is valid."""
MAX_TOKENS = 1024
"""Unused tokens that are remembered; beyond it the oldest is no longer valid."""


class ElevenLabsSimulator(SpeechSimulator):
    """ElevenLabs on this machine; use as ``async with``.

    Args:
        backend: ``script``: tones and the ``transcripts``; ``local``: the built-in voice and
            recogniser.
        transcripts: What is recognised, turn by turn.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        key: The API key that is valid.
        faults: What goes wrong: faults, or names of presets.
        clock_scale: Divides the service's limits of time.
        absolute_times: Character times count from the start of the context. By default they count
            from the start of each message; observers of the service report both.
        other_spelling: Some fields are spelt ``context_id`` instead of ``contextId`` and so on;
            observers of the service report both.
        seed: Makes delays the same in every run.
        clock: The clock of all times.

    Raises:
        ConfigError: An option is wrong, or the port is in use.
        MissingExtraError: The extra ``simulate`` is not installed.
    """

    default_key: ClassVar[str] = "sk_simulator"

    def __init__(
        self,
        backend: str = "script",
        *,
        absolute_times: bool = False,
        other_spelling: bool = False,
        **options: Unpack[SpeechSimulatorOptions],
    ) -> None:
        super().__init__(backend, **options)
        self._absolute_times = absolute_times
        self._tokens: BoundedDict[str, tuple[str, float]] = BoundedDict(MAX_TOKENS)
        """What each single-use token is for, and until when."""
        self._other_spelling = other_spelling

    def routes(self) -> Mapping[str, SessionFactory]:
        """Return the session factories by path."""
        speech = "/v1/text-to-speech/{voice}"
        return {
            f"{speech}/multi-stream-input": partial(self._make_tts, multi=True),
            f"{speech}/stream-input": partial(self._make_tts, multi=False),
            "/v1/speech-to-text/realtime": self._make_stt,
        }

    def application(self) -> web.Application:
        """Return the application with all routes of the service."""
        app = super().application()
        app.router.add_post("/v1/single-use-token/{kind}", self._create_token)
        return app

    def key_of(self, request: web.Request) -> str:
        """Return the key of the header; a single-use token in the address counts as the key."""
        query = request.query
        token = query.get("token") or query.get("single_use_token")
        if token is None:
            return request.headers.get("xi-api-key", "")
        kind, expires_at = self._tokens.pop(token, ("", 0.0))
        scribe = request.path.startswith("/v1/speech-to-text")
        fits = kind == ("realtime_scribe" if scribe else "tts_websocket")
        return self.key if fits and self._clock.now() < expires_at else ""

    async def _create_token(self, request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.headers.get("xi-api-key", ""), self.key):
            return web.json_response(self.error_body(401, "Invalid API key"), status=401)
        kind = request.match_info["kind"]
        if kind not in TOKEN_KINDS:
            return web.json_response(self.error_body(422, f"no token is for {kind}"), status=422)
        token = f"sutkn_{uuid4().hex}"
        self._tokens[token] = kind, self._clock.now() + TOKEN_S / self.clock_scale
        return web.json_response({"token": token})

    def error_body(self, status: int, message: str) -> JsonObject:
        """Return the body of a refusal."""
        return {"detail": {"status": f"http_{status}", "message": message}}

    def _make_tts(
        self, request: web.Request, channel: EventChannel, *, multi: bool
    ) -> SpeechSession:
        query = request.query
        rate = _rate(query.get("output_format", "mp3_44100_128"), "output_format")
        try:
            idle_s = min(MAX_INACTIVITY_S, float(query.get("inactivity_timeout", "20")))
        except ValueError:
            raise RefusedError(400, "inactivity_timeout must be a number") from None
        return ElevenLabsTTSSession(
            channel,
            self._clock,
            make_voice(self.backend, rate),
            multi=multi,
            auto_mode=query.get("auto_mode") == "true",
            context_idle_s=idle_s / self.clock_scale,
            absolute_times=self._absolute_times,
            other_spelling=self._other_spelling,
        )

    def _make_stt(self, request: web.Request, channel: EventChannel) -> SpeechSession:
        query = request.query
        if query.get("commit_strategy", "manual") != "manual":
            raise RefusedError(400, "the simulator takes manual commits only")
        return ScribeSession(
            channel,
            self._clock,
            self.recognizer(),
            _rate(query.get("audio_format", "pcm_16000"), "audio_format"),
            timestamps=query.get("include_timestamps") == "true",
            clock_scale=self.clock_scale,
        )


def _rate(audio_format: str, name: str) -> int:
    kind, _, rate = audio_format.partition("_")
    if kind != "pcm" or not rate.isdigit():
        raise RefusedError(400, f"the simulator takes a {name} of pcm only")
    return int(rate)
