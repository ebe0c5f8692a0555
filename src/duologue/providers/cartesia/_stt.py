"""Cartesia's recogniser with turns, Ink-2."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from duologue.clock import Clock, LoopClock
from duologue.errors import ConfigError
from duologue.pipeline.interfaces import STTConnection
from duologue.pipeline.socket_stt import SocketSTT
from duologue.pipeline.stt_codec import RecognizerTraits
from duologue.providers._validate import check_range
from duologue.providers.cartesia._service import cartesia
from duologue.providers.cartesia._stt_codec import CartesiaTurnsCodec
from duologue.realtime.network import ApiKey
from duologue.realtime.reconnect import ReconnectPolicy

TRAITS = RecognizerTraits(ends_turns=False, silence_s=0.5, idle_silence_s=60.0)


class STT:
    """Cartesia's recogniser as a `StreamingSTT` (extra ``cartesia``).

    The service finds the turns: its eager end begins a reply, its end ends the turn.

    Args:
        model: Name of the model.
        keyterms: Words that it should expect.
        turn_start_threshold: 0.5 to 0.9: how sure it must be that a turn has begun.
        turn_eager_end_threshold: 0.3 to 0.6: below this a turn may be over.
        turn_end_threshold: 0.05 to 0.5: below this a turn is over.
        turn_end_timeout_ms: 640 to 11200: milliseconds of silence that end a turn.
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

    rate = 16000
    turns: Literal["service", "local"] = "service"

    def __init__(
        self,
        model: str = "ink-2",
        *,
        keyterms: Sequence[str] = (),
        turn_start_threshold: float = 0.8,
        turn_eager_end_threshold: float = 0.4,
        turn_end_threshold: float = 0.2,
        turn_end_timeout_ms: int = 5600,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        reconnect: ReconnectPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_range("turn_start_threshold", turn_start_threshold, 0.5, 0.9)
        check_range("turn_eager_end_threshold", turn_eager_end_threshold, 0.3, 0.6)
        check_range("turn_end_threshold", turn_end_threshold, 0.05, 0.5)
        check_range("turn_end_timeout_ms", turn_end_timeout_ms, 640, 11200, integer=True)
        if not turn_end_threshold < turn_eager_end_threshold < turn_start_threshold:
            raise ConfigError(
                "turn_end_threshold must be below turn_eager_end_threshold, and that below "
                "turn_start_threshold"
            )
        self._service = cartesia(
            base_url=base_url,
            api_key=api_key,
            headers=headers,
            proxy=proxy,
            ssl_context=ssl_context,
        )
        self._query = (
            ("model", model),
            ("encoding", "pcm_s16le"),
            ("sample_rate", self.rate),
            ("turn_start_threshold", turn_start_threshold),
            ("turn_eager_end_threshold", turn_eager_end_threshold),
            ("turn_end_threshold", turn_end_threshold),
            ("turn_end_timeout_ms", turn_end_timeout_ms),
            *(("keyterm", keyterm) for keyterm in keyterms),
        )
        self._reconnect = reconnect
        self._clock = clock or LoopClock()

    def connect(self) -> STTConnection:
        """Return the transcription of a new conversation."""
        return SocketSTT[bytes](
            TRAITS,
            self.rate,
            make_codec=partial(CartesiaTurnsCodec, self._service.error),
            make_wire=partial(self._service.websocket, "/stt/turns/websocket", self._query),
            clock=self._clock,
            reconnect=self._reconnect,
        )
