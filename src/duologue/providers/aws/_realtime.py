"""`Realtime` of Amazon Nova Sonic: speech to speech over Bedrock's bidirectional stream."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from duologue._net import is_loopback, split_address
from duologue.errors import ConfigError, UnsupportedError
from duologue.providers._options import takes
from duologue.providers.aws._capabilities import capabilities_of, generation_of
from duologue.providers.aws._codec import Codec
from duologue.providers.aws._config import RealtimeConfig
from duologue.providers.aws._credentials import Credentials, resolve_credentials
from duologue.providers.aws._signals import Message
from duologue.realtime import codec as protocols
from duologue.realtime.codec import SessionSetup, Wire
from duologue.realtime.network import NetworkRealtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.vad.earshot import EarshotVAD

if TYPE_CHECKING:
    from duologue.providers.aws._wire import BedrockWire

ROLL_OVER = ReconnectPolicy(max_age_s=366.7, roll_over_ahead_s=66.7)
"""The next stream takes over in the first silence after five minutes, or after six in any case."""


class Realtime(NetworkRealtime[Message]):
    """A speech-to-speech model of Amazon Nova Sonic, on Bedrock.

    The connection is HTTP/2 with event-stream frames, not a WebSocket. The arguments are the fields
    of `RealtimeConfig`, and are described in docs/providers/aws.md.

    Raises:
        ConfigError: A value is invalid.
    """

    @takes(RealtimeConfig)
    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        base_url = _check_base_url(
            config.base_url
            or os.environ.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
            or os.environ.get("AWS_ENDPOINT_URL")
            or f"https://bedrock-runtime.{config.region}.amazonaws.com"
        )
        if config.proxy is not None:
            split_address("proxy", config.proxy, ("http", "https"), "http://proxy.example:3128")
        super().__init__(
            capabilities_of(config.model, config.input_rate, config.output_rate),
            base_url=base_url,
            headers=config.headers,
            proxy=config.proxy,
            ssl_context=config.ssl_context,
            transport="duologue.providers.aws._wire",
            extra="aws",
            reconnect=config.reconnect or ROLL_OVER,
            clock=config.clock,
            vad=config.vad or EarshotVAD("aws"),
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Import the SDK and load the trusted certificates, in a thread.

        Raises:
            MissingExtraError: The extra ``aws`` is not installed.
            ConfigError: ``AWS_CA_BUNDLE`` can't be read.
        """
        await super().prepare(setup)
        if self._is_secure:
            if self.ssl_context is None:
                bundle = os.environ.get("AWS_CA_BUNDLE")
                self.ssl_context = await asyncio.to_thread(_trust_context, bundle)
            self.ssl_context.set_alpn_protocols(["h2"])

    def make_codec(self, setup: SessionSetup) -> Codec:
        """Make the codec of the next stream."""
        del setup
        return Codec(self._config)

    def make_wire(self, codec: protocols.Codec[Message], setup: SessionSetup) -> Wire[Message]:
        """Make the wire of the next stream."""
        from duologue.providers.aws._wire import BedrockWire

        del codec, setup
        wire: BedrockWire = BedrockWire(
            model=self._config.model,
            region=self._config.region,
            endpoint=self.base_url,
            credentials=self._find_credentials,
            tls=self.ssl_context if self._is_secure else None,
            clock=self.clock,
            profile=self._config.profile,
            proxy=self.proxy,
            headers=self.headers,
        )
        return wire

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

    @property
    def _is_secure(self) -> bool:
        return urlsplit(self.base_url).scheme == "https"

    async def _find_credentials(self) -> Credentials:
        config = self._config
        return await resolve_credentials(config.credentials, config.profile, config.region)


def _trust_context(bundle: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"AWS_CA_BUNDLE can't be read: {reason}") from error


def _check_base_url(base_url: str) -> str:
    example = "https://bedrock-runtime.us-east-1.amazonaws.com"
    address = split_address("base_url", base_url, ("http", "https"), example)
    if address.scheme == "http" and not is_loopback(address.hostname or ""):
        raise ConfigError(f"base_url must use https: except on this machine, not {base_url!r}")
    return base_url.rstrip("/")
