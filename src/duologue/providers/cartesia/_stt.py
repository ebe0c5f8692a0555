"""Cartesia's recogniser with turns, Ink-2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Literal

from duologue.errors import ConfigError
from duologue.pipeline.interfaces import STTConnection
from duologue.pipeline.socket_stt import SocketSTT
from duologue.pipeline.stt_codec import RecognizerTraits
from duologue.providers._options import between, option, takes, text
from duologue.providers._speech_service import Query, SpeechOptions, SpeechService
from duologue.providers.cartesia._service import CARTESIA
from duologue.providers.cartesia._stt_codec import CartesiaTurnsCodec

RATE = 16000
TRAITS = RecognizerTraits(ends_turns=False, silence_s=0.5, idle_silence_s=60.0)


@dataclass(frozen=True)
class CartesiaSTTOptions(SpeechOptions):
    """Options of Cartesia's recogniser."""

    model: str = option("ink-2", "name of the model", check=text("the name of a model"))
    _: KW_ONLY
    keyterms: Sequence[str] = option((), "words that it should expect")
    turn_start_threshold: float = option(
        0.8, "0.5 to 0.9: how sure it must be that a turn has begun", check=between(0.5, 0.9)
    )
    turn_eager_end_threshold: float = option(
        0.4, "0.3 to 0.6: below this a turn may be over", check=between(0.3, 0.6)
    )
    turn_end_threshold: float = option(
        0.2, "0.05 to 0.5: below this a turn is over", check=between(0.05, 0.5)
    )
    turn_end_timeout_ms: int = option(
        5600,
        "640 to 11200: milliseconds of silence that end a turn",
        check=between(640, 11200, integer=True),
    )

    def __post_init__(self) -> None:
        """Check every option, and their order."""
        super().__post_init__()
        if not (
            self.turn_end_threshold < self.turn_eager_end_threshold < self.turn_start_threshold
        ):
            raise ConfigError(
                "turn_end_threshold must be below turn_eager_end_threshold, and that below "
                "turn_start_threshold"
            )


class STT:
    """Cartesia's recogniser as a `StreamingSTT` (extra ``cartesia``).

    The service finds the turns: its eager end begins a reply, its end ends the turn. The arguments
    are the fields of `CartesiaSTTOptions`, and are described in docs/providers/cartesia.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    rate = RATE
    turns: Literal["service", "local"] = "service"

    @takes(CartesiaSTTOptions)
    def __init__(self, options: CartesiaSTTOptions) -> None:
        self._service = SpeechService(CARTESIA, options)
        self._reconnect = options.reconnect
        self._query: Query = (
            ("model", options.model),
            ("encoding", "pcm_s16le"),
            ("sample_rate", RATE),
            ("turn_start_threshold", options.turn_start_threshold),
            ("turn_eager_end_threshold", options.turn_eager_end_threshold),
            ("turn_end_threshold", options.turn_end_threshold),
            ("turn_end_timeout_ms", options.turn_end_timeout_ms),
            *(("keyterm", keyterm) for keyterm in options.keyterms),
        )

    def connect(self) -> STTConnection:
        """Return the transcription of a new conversation."""
        return SocketSTT[bytes](
            TRAITS,
            RATE,
            make_codec=partial(CartesiaTurnsCodec, self._service.error),
            make_wire=partial(self._service.websocket, "/stt/turns/websocket", self._query),
            clock=self._service.clock,
            reconnect=self._reconnect,
        )
