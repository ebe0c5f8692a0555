"""`ElevenLabsSimulator`: a server on this machine that speaks ElevenLabs' WebSocket protocols."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Unpack

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
        self._other_spelling = other_spelling

    def routes(self) -> Mapping[str, SessionFactory]:
        """Return the session factories by path."""
        speech = "/v1/text-to-speech/{voice}"
        return {
            f"{speech}/multi-stream-input": partial(self._make_tts, multi=True),
            f"{speech}/stream-input": partial(self._make_tts, multi=False),
            "/v1/speech-to-text/realtime": self._make_stt,
        }

    def key_of(self, request: web.Request) -> str:
        """Return the key of the header."""
        return request.headers.get("xi-api-key", "")

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
