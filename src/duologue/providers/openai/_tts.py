"""Voices behind OpenAI's speech API: servers of one's own, and OpenAI's as long as it has it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping

import numpy as np

from duologue._optional import import_optional
from duologue.audio import AudioFrame
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.json_types import Json, JsonObject
from duologue.providers._validate import check_mapping, check_positive, check_range
from duologue.providers.openai._http import OpenAIServer
from duologue.realtime.network import ApiKey

MAX_CHARS = 4096
"""Characters of one request."""
_WAV_HEADER_BYTES = 44
"""Bytes of the header that servers write in front of a WAV stream."""


class TTS:
    """A voice as a `TTS` (extra ``openai``): Kokoro-FastAPI, speaches, vLLM and others.

    Each clause is one request, whose audio is played while it comes. OpenAI itself ends this API in
    January 2027.

    Args:
        voice: Name of the voice.
        model: Name of the model.
        base_url: The server, such as ``http://127.0.0.1:8880/v1``; read from ``OPENAI_BASE_URL``
            when not given, and OpenAI's own by default.
        api_key: A key, or a function that returns one for each request; read from
            ``OPENAI_API_KEY`` when not given. Your own server needs none.
        rate: Hz of the audio that the server sends: 24000 unless its voice is another.
        speed: 0.25 to 4; 1 is the voice's own.
        instructions: How to speak, for models that take it.
        headers: Additional headers of each request.
        proxy: Address of an HTTP proxy; None uses that of the environment.
        ssl_context: Trusted certificates and our own; the system's if None.
        options: Fields of every request, whatever their names.
        timeout: Seconds until the response, and between two parts of it.

    Raises:
        ConfigError: An argument is invalid, or OpenAI's own server has no key.
    """

    def __init__(
        self,
        voice: str,
        *,
        model: str = "gpt-4o-mini-tts",
        base_url: str | None = None,
        api_key: ApiKey | None = None,
        rate: int = 24000,
        speed: float | None = None,
        instructions: str | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        options: Mapping[str, Json] | None = None,
        timeout: float = 15.0,
    ) -> None:
        for name, value in (("voice", voice), ("model", model)):
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{name} must be the name of one, not {value!r}")
        check_positive("rate", rate)
        if speed is not None:
            check_range("speed", speed, 0.25, 4.0)
        self.rate = rate
        self._request: JsonObject = {"model": model, "voice": voice, "response_format": "pcm"}
        if speed is not None:
            self._request["speed"] = speed
        if instructions is not None:
            self._request["instructions"] = instructions
        if options is not None:
            check_mapping("options", options)
            self._request.update(options)
        self._server = OpenAIServer(
            base_url=base_url,
            api_key=api_key,
            headers=headers,
            proxy=proxy,
            ssl_context=ssl_context,
            timeout=timeout,
        )

    async def prepare(self) -> None:
        """Import the HTTP client in a thread (0.1 s).

        Raises:
            MissingExtraError: httpx is not installed.
        """
        await asyncio.to_thread(import_optional, "httpx", "openai")

    async def close(self) -> None:
        """Close the HTTP connections; the next request opens new ones."""
        await self._server.close()

    async def synthesize(self, text: str) -> AsyncGenerator[AudioFrame]:
        """Stream the audio of ``text``; closing the generator closes the response.

        Raises:
            SessionError: The server refused, with its own message, or can't be reached.
        """
        for begin in range(0, len(text), MAX_CHARS):
            request = {**self._request, "input": text[begin : begin + MAX_CHARS]}
            async with self._server.post("/audio/speech", request) as response:
                kind = response.headers.get("content-type", "")
                if kind.startswith(("application/json", "text/")):
                    raise SessionError(
                        f"{self._server.shown_url} sent {kind} instead of audio",
                        kind=ErrorKind.RETRY,
                    )
                rest, skip = b"", -1
                try:
                    async for piece in response.aiter_bytes():
                        data = rest + piece
                        if skip < 0:
                            if len(data) < _WAV_HEADER_BYTES:
                                rest = data
                                continue
                            skip = _WAV_HEADER_BYTES if data.startswith(b"RIFF") else 0
                            data = data[skip:]
                        even = len(data) & ~1
                        rest = data[even:]
                        if even:
                            yield AudioFrame(np.frombuffer(data[:even], "<i2"), self.rate)
                except import_optional("httpx", "openai").HTTPError as error:
                    raise self._server.connection_error("broke off", error) from error
