"""`Realtime` of Amazon Nova Sonic: speech to speech over Bedrock's bidirectional stream."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from duologue._net import is_loopback, split_address
from duologue._optional import import_optional
from duologue.clock import Clock
from duologue.errors import ConfigError, UnsupportedError
from duologue.providers.aws._capabilities import capabilities_of, generation_of
from duologue.providers.aws._codec import Codec
from duologue.providers.aws._config import Endpointing, RealtimeConfig
from duologue.providers.aws._credentials import Credentials, CredentialSource, resolve_credentials
from duologue.providers.aws._signals import Message
from duologue.realtime.codec import Connection, SessionSetup, Wire
from duologue.realtime.realtime import Realtime as BaseRealtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.wire_connection import WireConnection
from duologue.vad.earshot import EarshotVAD
from duologue.vad.vad import VAD

if TYPE_CHECKING:
    from duologue.providers.aws._wire import BedrockWire

ROLL_OVER = ReconnectPolicy(max_age_s=366.7, roll_over_ahead_s=66.7)
"""The next stream takes over in the first silence after five minutes, or after six in any case."""


class Realtime(BaseRealtime):
    """A speech-to-speech model of Amazon Nova Sonic, on Bedrock.

    The connection is HTTP/2 with event-stream frames, not a WebSocket.

    Args:
        model: The id or ARN of the model.
        region: The AWS region.
        voice: The voice of the agent.
        endpointing: How soon a pause ends the person's turn; ``high`` is the soonest, after 1.5 s.
            Nova 2 only.
        max_tokens: The most tokens of one reply.
        temperature: The randomness of replies, 0 to 1.
        top_p: The share of the likeliest tokens that replies are drawn from, 0 to 1.
        input_sample_rate: Hz of the input audio: 8000, 16000 or 24000.
        output_sample_rate: Hz of the agent's audio: 8000, 16000 or 24000.
        profile: A named profile of the AWS configuration files, to take credentials from.
        credentials: `Credentials`, or a function or coroutine function that is called for each
            stream. By default, credentials are found as the AWS SDK finds them.
        tool_choice: ``auto``, ``any``, or the name of a tool.
        endpoint_uri: The address of a VPC endpoint or of the simulated service; ``http:`` only on
            this machine. By default ``AWS_ENDPOINT_URL_BEDROCK_RUNTIME`` or ``AWS_ENDPOINT_URL``.
        ssl_context: The certificates to trust. It is set to offer HTTP/2.
        proxy: An HTTP proxy to connect through by CONNECT (``http://user:password@host:port``). By
            default that of the environment (``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).
        vad: Detects when the person speaks, which the model does not report. By default the one
            that ships with this package.
        reconnect: When the next stream takes over, because each ends after eight minutes. By
            default `ROLL_OVER`.
        clock: The clock to measure time with.

    Raises:
        ConfigError: A value can't work.
    """

    def __init__(
        self,
        model: str = "amazon.nova-2-sonic-v1:0",
        region: str = "us-east-1",
        voice: str = "matthew",
        *,
        endpointing: Endpointing = "high",
        max_tokens: int = 1024,
        temperature: float = 0.7,
        top_p: float = 0.9,
        input_sample_rate: int = 16000,
        output_sample_rate: int = 24000,
        profile: str | None = None,
        credentials: CredentialSource | None = None,
        tool_choice: str | None = None,
        endpoint_uri: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        vad: VAD | None = None,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._config = RealtimeConfig(
            model=model,
            region=region,
            voice=voice,
            endpointing=endpointing,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            tool_choice=tool_choice,
        )
        if profile is not None and credentials is not None:
            raise ConfigError("give profile or credentials, not both")
        if credentials is not None and not isinstance(credentials, Credentials | Callable):
            raise ConfigError("credentials must be aws.Credentials or a function that returns them")
        self._credential_source = credentials
        self._aws_profile = profile
        self._endpoint = _check_endpoint(
            endpoint_uri
            or os.environ.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
            or os.environ.get("AWS_ENDPOINT_URL")
            or f"https://bedrock-runtime.{region}.amazonaws.com"
        )
        self._ssl = ssl_context
        self._proxy = None if proxy is None else _check_proxy(proxy)
        super().__init__(
            capabilities_of(model, input_sample_rate, output_sample_rate),
            reconnect=reconnect or ROLL_OVER,
            clock=clock,
            vad=vad or EarshotVAD("aws"),
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Import the SDK and load the trusted certificates, in a thread.

        Raises:
            MissingExtraError: The extra ``aws`` is not installed.
        """
        await asyncio.to_thread(import_optional, "duologue.providers.aws._wire", "aws")
        if urlsplit(self._endpoint).scheme == "https":
            if self._ssl is None:
                self._ssl = await asyncio.to_thread(_trust_context, os.environ.get("AWS_CA_BUNDLE"))
            self._ssl.set_alpn_protocols(["h2"])

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        return WireConnection[Message](
            self._make_wire,
            Codec(self._config),
            setup,
            audio_limit_s=self.input_backlog_s,
        )

    def request_reply(self, request_id: str, instructions: str | None = None) -> None:
        """Ask the model to speak.

        Raises:
            UnsupportedError: Nova Sonic 1 replies to speech only.
        """
        if not generation_of(self._config.model).accepts_text:
            raise UnsupportedError(
                f"{self._config.model} replies to speech only: use amazon.nova-2-sonic-v1:0"
            )
        super().request_reply(request_id, instructions)

    def _make_wire(self) -> Wire[Message]:
        from duologue.providers.aws._wire import BedrockWire

        wire: BedrockWire = BedrockWire(
            model=self._config.model,
            region=self._config.region,
            endpoint=self._endpoint,
            credentials=self._credential_getter(),
            tls=self._ssl if urlsplit(self._endpoint).scheme == "https" else None,
            clock=self.clock,
            profile=self._aws_profile,
            proxy=self._proxy,
        )
        return wire

    def _credential_getter(self) -> Callable[[], Awaitable[Credentials]]:
        async def keys() -> Credentials:
            return await resolve_credentials(
                self._credential_source, self._aws_profile, self._config.region
            )

        return keys


def _trust_context(bundle: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"AWS_CA_BUNDLE can't be read: {reason}") from error


def _check_endpoint(endpoint: str) -> str:
    example = "https://bedrock-runtime.us-east-1.amazonaws.com"
    address = split_address("endpoint_uri", endpoint, ("http", "https"), example)
    if address.scheme == "http" and not is_loopback(address.hostname or ""):
        raise ConfigError(f"endpoint_uri must use https: except on this machine, not {endpoint!r}")
    return endpoint.rstrip("/")


def _check_proxy(proxy: str) -> str:
    split_address("proxy", proxy, ("http", "https"), "http://proxy.example:3128")
    return proxy
